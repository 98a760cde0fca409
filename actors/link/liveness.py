"""Liveness: which of the watched nodes are connected, and since when the others are quiet. Pure.

    state of a watched node   means                                          left by
    new                       no ping yet in this start of it                ping -> connected; counts as connected
    connected                 its last ping came on an open connection       that connection closed -> lost
    lost                      its connection was closed                      ping -> connected

A kill of a whole node closes its connections at once, which the operating system reports. On a busy machine the link may
read a ping of such a connection after its end: it is no sign of life. A frozen or unreachable node only becomes quiet.
The time for which this link itself did not run is not held against others.
"""

from collections import deque
from collections.abc import Collection

from msgspec import Struct

from ...transport.protocol.links import PING_INTERVAL_MS, LinkReport, PeerState, Ping

CLOSED_KEPT = 256
MAX_OWN_PAUSE_MS = 3 * PING_INTERVAL_MS


class _Watched(Struct):
    quiet_since: int
    connection: bytes | None = None
    is_connected: bool = True
    has_pinged: bool = False


class Liveness:
    def __init__(self, node: str) -> None:
        self._node = node
        self._watched: dict[str, _Watched] = {}
        self._closed: deque[bytes] = deque(maxlen=CLOSED_KEPT)
        """The connections that have ended last; no other has one of their names."""
        self._last_beat: int | None = None

    def watch(self, nodes: Collection[str], now: int) -> None:
        """Replace the nodes to watch."""
        self._watched = {node: self._watched.get(node) or _Watched(now) for node in nodes}

    def forget(self, node: str, now: int) -> None:
        """Start over with a node that has started again."""
        if node in self._watched:
            self._watched[node] = _Watched(now)

    def on_ping(self, ping: Ping, connection: bytes, now: int) -> None:
        watched = self._watched.get(ping.node)
        if watched is not None and connection not in self._closed:
            watched.quiet_since = now
            watched.connection = connection
            watched.is_connected = True
            watched.has_pinged = True

    def on_closed(self, connection: bytes, now: int) -> bool:
        """Return True if a watched node was lost with this connection."""
        self._closed.append(connection)
        is_lost = False
        for watched in self._watched.values():
            if watched.connection == connection:
                watched.connection = None
                watched.is_connected = False
                watched.quiet_since = now
                is_lost = True
        return is_lost

    def on_beat(self, now: int) -> None:
        """Note that this link runs. After a pause of its own, no node has been quiet for longer than before it."""
        if self._last_beat is not None and now - self._last_beat > MAX_OWN_PAUSE_MS:
            pause_ms = now - self._last_beat
            for watched in self._watched.values():
                watched.quiet_since = min(now, watched.quiet_since + pause_ms)
        self._last_beat = now

    def report(self, now: int) -> LinkReport:
        peers = (
            PeerState(node, watched.is_connected, max(0, now - watched.quiet_since), watched.has_pinged)
            for node, watched in sorted(self._watched.items())
        )
        return LinkReport(self._node, tuple(peers))
