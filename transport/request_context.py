"""The context of a request: on whose behalf it is made, and the checks done on the way. Pure.

Inside the broker a context is a frame of its own in front of the client's header, which stays as the client wrote it:

    call = call-id "" [context] header payload*        cast = [context] header payload*
    context = 0xC1 secret fields                       fields = MessagePack array of RequestContext's, in order

0xC1 begins no MessagePack map and no JSON. The secret is new with each supervisor, which passes it to its actors alone,
so a client cannot make a context, not even on an actor's own `ipc` socket: there the receiving loop makes it
(`direct_context`). The gateway makes those of the requests that it forwards; an actor's own requests have an empty one
(`OWN`). So a context proves that an actor has sent the request. A request without one is a client's, and is refused
if only actors may make it (`refusal_of_client`). Called by server_side.py and calls/performer.py.
"""

import msgspec
from msgspec import Struct

from .addresses import is_internal
from .protocol.data import Fetch, Produce
from .protocol.errors import ErrorBody, ErrorCode
from .protocol.groups import GroupHeartbeat
from .protocol.message import InternalRequest, NodeRequest, PeerRequest, Request
from .protocol.session import Cancel
from .protocol.topics import DeleteRecords

_MARK = b"\xc1"
_PLACES = (3, 1)
"""Positions of a context, after the connection's name: in a call, in a cast."""
_WRITES = (Produce, DeleteRecords)
"""Requests that change a partition's records. Those of internal topics are the business of their actors."""
_OF_PEERS = (NodeRequest, PeerRequest, Cancel)
"""Requests that another node's connection may send."""
_WITH_CLIENT_ID = (Produce, Fetch, GroupHeartbeat)
"""Requests in which a client gives its own id."""


class RequestContext(Struct, frozen=True, array_like=True, gc=False):
    principal: str = ""
    """The authenticated user; empty without authentication. On a connection to the gateway itself it is `key:` and the
    public key of the connection, for which the gateway finds the user."""
    client_id: str = ""
    """The client's name for itself; empty if it has given none."""
    connection: bytes = b""
    """The client's connection, at the gateway or at the actor itself."""
    is_admitted: bool = False
    """True if the quotas of the client have been enforced."""
    trace: str = ""
    """Identifier by which a request is followed through the actors; empty for none."""
    address: str = ""
    """IP address of a client that an actor of the broker makes the request for; empty: that of the connection."""


KEY_PREFIX = "key:"
"""Begins the principal of a request whose connection is known by its key alone."""
UNKNOWN = RequestContext()
OWN = RequestContext()
"""The context of a request that an actor makes on its own behalf."""
NO_CONTEXT = RequestContext(trace="none")
"""By identity: the request carries no context, because its receiver belongs to another broker, with another secret."""


def direct_context(connection: bytes, request: Request, principal: str = "") -> RequestContext:
    """Return the context of a request that came on a connection of its client."""
    if isinstance(request, _WITH_CLIENT_ID):
        return RequestContext(principal=principal, client_id=request.client_id, connection=connection)
    return RequestContext(principal=principal, connection=connection)


def refusal_of_client(request: Request, *, is_peer: bool = False) -> ErrorBody | None:
    """Return the refusal of a request that came without a context: of a client, if only actors may make it, or only
    other nodes; of another node (`is_peer`), if it is not meant for them."""
    if is_peer:
        if isinstance(request, _OF_PEERS):
            return None
        op = request.__struct_config__.tag
        return ErrorBody(ErrorCode.FORBIDDEN, f"{op} is no request of other nodes")
    if isinstance(request, NodeRequest):
        op = request.__struct_config__.tag
        return ErrorBody(ErrorCode.FORBIDDEN, f"{op} is a request of nodes, at the peer endpoint")
    if isinstance(request, InternalRequest):
        op = request.__struct_config__.tag
        return ErrorBody(ErrorCode.FORBIDDEN, f"{op} is a request of actors, not of clients")
    if isinstance(request, _WRITES) and is_internal(request.topic):
        return ErrorBody(ErrorCode.FORBIDDEN, f"topic {request.topic[:250]!r} is internal")
    return None


class ContextFrames:
    """Makes and recognises the context frames of one broker."""

    def __init__(self, secret: bytes) -> None:
        self._start = _MARK + secret
        self._encode = msgspec.msgpack.Encoder().encode
        self.own = self.frame(OWN)
        self._decode = msgspec.msgpack.Decoder(RequestContext).decode

    def frame(self, context: RequestContext) -> bytes:
        return self._start + self._encode(context)

    def take(self, frames: list[bytes]) -> RequestContext | None:
        """Remove the context from a message's frames and return it; None if there is none."""
        for place in _PLACES:
            if len(frames) > place and frames[place].startswith(self._start):
                return self._decode(frames.pop(place)[len(self._start) :])
        return None
