"""Bounds the processor time that browsers can make the console use, and divides it among them. Pure.

The costs of a page, of a refusal and of a connection that sends nothing differ by factors. So processor time is counted,
and not requests.

    level      burst_s at most; gains `share` of each second, loses the processor time used
    free       level >= 0 and no work waits: work is done when it arrives
    otherwise  work waits; whenever the level is back at zero, one piece of it has a turn

Each flow (a signed-in user, or the address of a client) has a queue. The flow that has used least goes next, so one
address with a thousand connections takes as much as another with one. A flow that begins to wait starts level with the
one that had the last turn: it is owed nothing for the time in which it wanted nothing (start-time fair queueing,
Goyal et al., 1996).

Run by pace.py.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

WaiterT = TypeVar("WaiterT")
MAX_REMEMBERED = 1_000
"""Flows whose use is remembered while they do not wait."""


class Turns(Generic[WaiterT]):
    def __init__(
        self, share: float, burst_s: float, clock_s: Callable[[], float], used_s: Callable[[], float]
    ) -> None:
        """`used_s` returns the processor time used so far."""
        self._share, self._burst_s = share, burst_s
        self._clock_s, self._used_s = clock_s, used_s
        self._level_s = burst_s
        self._seen_at_s, self._seen_used_s = clock_s(), used_s()
        self._waiting: dict[str, deque[WaiterT]] = {}
        self._spent_s: dict[str, float] = {}
        self._active: str | None = None
        """The flow whose work is being done."""
        self._start_s = 0.0
        """The time that the flow of the last turn had spent before it."""

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def is_free(self, flow: str) -> bool:
        """Return True if work of this flow may be done now; it is charged to the flow."""
        self._count()
        if self._waiting or self._level_s < 0:
            return False
        self._begin(flow)
        return True

    def wait(self, flow: str, waiter: WaiterT) -> None:
        """Let work wait for its turn."""
        if flow not in self._waiting:
            self._waiting[flow] = deque()
            self._enter(flow)
        self._waiting[flow].append(waiter)

    def wait_s(self) -> float:
        """Return the time until the next turn."""
        self._count()
        return max(0.0, -self._level_s / self._share)

    def next(self) -> WaiterT | None:
        """Return the work whose turn it is; None if there is none yet."""
        self._count()
        if not self._waiting or self._level_s < 0:
            return None
        flow = min(self._waiting, key=self._spent_s.__getitem__)
        queue = self._waiting.pop(flow)
        found = queue.popleft()
        if queue:
            self._waiting[flow] = queue  # behind the others that have used as much
        self._begin(flow)
        return found

    def _begin(self, flow: str) -> None:
        self._enter(flow)
        self._active, self._start_s = flow, self._spent_s[flow]

    def _enter(self, flow: str) -> None:
        self._spent_s[flow] = max(self._spent_s.get(flow, 0.0), self._start_s)
        if len(self._spent_s) > MAX_REMEMBERED + len(self._waiting):
            kept = {*self._waiting, flow}
            self._spent_s = {each: spent for each, spent in self._spent_s.items() if each in kept}

    def _count(self) -> None:
        now_s, used_s = self._clock_s(), self._used_s()
        gained_s, lost_s = (now_s - self._seen_at_s) * self._share, used_s - self._seen_used_s
        self._level_s = min(self._burst_s, self._level_s + gained_s - lost_s)
        self._seen_at_s, self._seen_used_s = now_s, used_s
        if self._active in self._spent_s:
            self._spent_s[self._active] += lost_s
