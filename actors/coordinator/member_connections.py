"""The connection that each member of a group or share group used last. Pure.

A client reaches the coordinator through a gateway, or on a connection of its own. When the connection that its member
used last is over, the member is gone. The end of one that it has left says nothing. Bounded: beyond the limit the member
that came first is forgotten, and its session or its locks time out. Called by memberships.py and share/group.py.
"""

from typing import NamedTuple

from ...transport.machine import Received

MAX_MEMBERS = 20_000


class MemberConnection(NamedTuple):
    peer: bytes
    """The connection to this actor: a gateway's, or the client's own."""
    client: bytes
    """The client's connection, at the gateway or here."""


class MemberConnections:
    def __init__(self, limit: int = MAX_MEMBERS) -> None:
        self._limit = limit
        self._connections: dict[str, MemberConnection] = {}

    def note(self, member: str, event: Received) -> None:
        used = self._connections.get(member)
        peer, client = event.sender.route[0], event.context.connection
        if used is not None and used.peer == peer and used.client == client:
            return
        self._connections[member] = MemberConnection(peer, client)
        if len(self._connections) > self._limit:
            del self._connections[next(iter(self._connections))]

    def is_last(self, member: str, peer: bytes, client: bytes) -> bool:
        """Return True if the member has used no other connection since."""
        return self._connections.get(member) == (peer, client)

    def of(self, connection: bytes) -> list[str]:
        """Return the members whose last connection was this one, which was their client's own."""
        own = MemberConnection(connection, connection)
        return [member for member, used in self._connections.items() if used == own]

    def forget(self, member: str) -> None:
        self._connections.pop(member, None)
