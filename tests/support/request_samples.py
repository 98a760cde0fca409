"""An example of each public request, from the vectors of the protocol."""

from typing import Any

import msgspec

from header_vectors import OTHER_REQUESTS, SESSION_REQUESTS
from planaria.actors.gateway.machine import REQUESTS
from planaria.transport.codec import RequestDecoder
from planaria.transport.protocol.errors import ProtocolError
from planaria.transport.protocol.message import Request


def samples() -> list[tuple[str, dict[str, Any], Request]]:
    """Return the name, the header and the request of each."""
    decoder = RequestDecoder(REQUESTS)
    found: dict[type[Request], tuple[str, dict[str, Any], Request]] = {}
    for name, header in (SESSION_REQUESTS | OTHER_REQUESTS).items():
        try:
            request = decoder.decode(msgspec.json.encode(header), 1)
        except ProtocolError:
            continue  # an example of a refusal
        found.setdefault(type(request), (name, header, request))
    return list(found.values())
