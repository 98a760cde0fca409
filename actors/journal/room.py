"""A room that the connections of an actor share: each may hold as much as is left. Pure.

So one connection alone gets half of a room, two get a third each, and a connection that holds nothing is admitted
until the very end. Nothing is evicted: a decision of an actor cannot be taken back. The gateway, through which
most requests come, is one connection to an actor, and divides its share between its clients (actors/gateway/shares.py).
"""

from ...transport.protocol.errors import ErrorCode, ProtocolError


def check_share(held: int, taken: int, capacity: int, waiting: str) -> None:
    """Raise ProtocolError if a connection that holds `held` of the `taken` places gets no other one.

    `waiting` names the occupants in the error.
    """
    if held >= capacity - taken:
        raise ProtocolError(ErrorCode.OVERLOADED, f"{taken} {waiting}, {held} of them from this connection")
