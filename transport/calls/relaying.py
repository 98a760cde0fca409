"""Requests to actors of other nodes, wrapped for this node's link. Pure."""

from ..addresses import Address
from ..codec import encode_header
from ..machine import Payload
from ..protocol.links import Relay
from ..protocol.message import Request


def relayed(
    target: tuple[str, Address], request: Request | bytes, payload: Payload, timeout_ms: int | None
) -> tuple[Relay, Payload]:
    """Return a request and its payload that the link passes on to `target`, a node and an address there.

    `timeout_ms` is that of a call; None: a cast.
    """
    node, address = target
    header = request if isinstance(request, bytes) else encode_header(request)
    if timeout_ms is None:
        return Relay(node=node, address=address, is_cast=True), [header, *payload]
    return Relay(node=node, address=address, timeout_ms=timeout_ms), [header, *payload]
