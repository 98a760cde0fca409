"""Which connection each member of a share group spoke by last. Pure.

A member is whoever acquires under a name. When its connection is gone, so is the member, unless it has spoken by another
one since: a client that lost its connection and came back keeps its locks if it spoke before the end of the old
connection was noticed. Bounded; beyond, the longest silent is forgotten, and its locks end by their own time.
"""

MAX_SHARE_MEMBERS = 20_000


class ShareMembers:
    def __init__(self, limit: int = MAX_SHARE_MEMBERS) -> None:
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

    def forget(self, connection: bytes) -> list[tuple[str, str]]:
        """The connection is gone: the groups and members that go with it."""
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
