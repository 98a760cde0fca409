"""The durations of syncs on the leader's disk and on those of its followers: is this the one disk that is slow? Pure.

A disk that still works and takes seconds for each sync holds up every acknowledgement, and is never reported as dead.
The leader compares its own syncs with those that its followers report, each over the last WINDOW_MS:

    own syncs      slow: more than one of a hundred, and at least MIN_SLOW, took longer than the limit
    a follower's   good: at least MIN_SYNCS, none of which took longer than the limit

A leader whose own disk is slow asks its node's controller to be relieved by a follower whose disk is good: another
replica in sync leads then. It asks again after WINDOW_MS.
"""

from collections import deque
from collections.abc import Iterable

from ...transport.protocol.replication import Member

WINDOW_MS = 60_000
WINDOW_SYNCS = 1_000
MIN_SYNCS = 10
MIN_SLOW = 3


class SyncTimes:
    def __init__(self, limit_ms: int) -> None:
        """Compare with this limit; 0: never."""
        self._limit_ms = limit_ms
        self._own: deque[tuple[int, bool]] = deque(maxlen=WINDOW_SYNCS)
        """Time of each sync, and whether it was slow."""
        self._others: dict[Member, deque[tuple[int, bool]]] = {}
        self._asked_at: int | None = None

    def on_own(self, sync_ms: int, now: int) -> None:
        if self._limit_ms:
            self._own.append((now, sync_ms > self._limit_ms))

    def on_reported(self, member: Member, sync_ms: int, now: int) -> None:
        if self._limit_ms:
            window = self._others.get(member)
            if window is None:
                window = self._others[member] = deque(maxlen=WINDOW_SYNCS)
            window.append((now, sync_ms > self._limit_ms))

    def relief(self, in_sync: Iterable[Member], now: int) -> list[str]:
        """Return the nodes that could lead instead, if the leader should be relieved now; else none."""
        if not self._limit_ms or not self._own or not self._own[-1][1]:
            return []
        if self._asked_at is not None and now - self._asked_at < WINDOW_MS:
            return []
        slow, count = _counted(self._own, now)
        if slow < MIN_SLOW or slow * 100 <= count:
            return []
        found = [member.node for member in sorted(in_sync) if self._is_good(member, now)]
        if found:
            self._asked_at = now
        return found

    def _is_good(self, member: Member, now: int) -> bool:
        slow, count = _counted(self._others.get(member, deque()), now)
        return slow == 0 and count >= MIN_SYNCS


def _counted(window: deque[tuple[int, bool]], now: int) -> tuple[int, int]:
    """Return the number of slow syncs of the window, and of all of them."""
    while window and now - window[0][0] > WINDOW_MS:
        window.popleft()
    return sum(is_slow for _, is_slow in window), len(window)
