"""The connection that each member of a group or share group used last. Pure.

When the connection of a member is gone, its coordinator is notified, unless the member has used another one since: a
client that lost its connection and reconnected stays if its next request came before the end of the old connection was
noticed. Bounded; beyond the limit the longest silent member is forgotten, and its session or its locks time out.

The notice is a call, repeated while the way to the coordinator's node is interrupted: without it no other member gets the
partitions of this one before its session ends. A coordinator that is down is not waited for. The one that follows it
knows no connections, and gives each member a full session.
"""

from ...transport.addresses import coordinator_address
from ...transport.machine import Call, Effect
from ...transport.protocol.groups import MemberGone
from ...transport.protocol.message import Done
from .keys import NO_TICKET, Forwarded
from .peers import Peers

MAX_MEMBERS = 20_000


class Members:
    def __init__(self, limit: int = MAX_MEMBERS) -> None:
        self._limit = limit
        self._connections: dict[tuple[str, str], bytes] = {}
        self._members: dict[bytes, set[tuple[str, str]]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def note(self, connection: bytes, group: str, member: str) -> None:
        key = (group, member)
        before = self._connections.get(key)
        if before == connection:
            return
        if before is not None:
            self._leave(key, before)
        self._connections[key] = connection
        self._members.setdefault(connection, set()).add(key)
        if len(self._connections) > self._limit:
            oldest = next(iter(self._connections))
            self._leave(oldest, self._connections[oldest])

    def on_disconnected(self, connection: bytes, peers: Peers) -> list[Effect]:
        """Notify the coordinators of the members that last used this connection."""
        return [
            Call(
                Forwarded(NO_TICKET),
                address,
                MemberGone(group=group, member_id=member, connection=connection),
                Done,
                is_retried=True,
            )
            for group, member in self.forget(connection)
            if peers.up(address := coordinator_address(group)) is not None
        ]

    def forget(self, connection: bytes) -> list[tuple[str, str]]:
        """Remove a closed connection; return the groups and members that leave with it."""
        gone = sorted(self._members.pop(connection, ()))
        for key in gone:
            del self._connections[key]
        return gone

    def _leave(self, key: tuple[str, str], connection: bytes) -> None:
        del self._connections[key]
        members = self._members[connection]
        members.remove(key)
        if not members:
            del self._members[connection]
