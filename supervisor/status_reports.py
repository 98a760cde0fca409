"""Answers `status` without holding up anybody: each actor's memory is measured in slices, some a turn, for a while.

    added       measured in slices until REPORT_MS have passed, then answered; actors never measured before come first
    answered    those that were left out are measured afterwards, for the next report, which may come a second later

The kernel takes about half a millisecond to add up a process's own pages; a thousand actors in one go would keep an
operator waiting for half a second, and delay a restart by as much. Called by process.py; Linux only, elsewhere the memory
is 0.
"""

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from ..transport.machine import Reply
from ..transport.protocol.operations import ActorStatus
from .events import ReportStatus

ACTORS_PER_TURN = 5
REPORT_MS = 20


class _Report(Struct):
    order: ReportStatus
    left: deque[ActorStatus]
    """Still to be measured."""
    deadline: int
    is_answered: bool = False


class StatusReports:
    def __init__(self, measure: Callable[[int], int] | None = None) -> None:
        """`measure` tells the memory of a process in bytes; tests give another one than the system's."""
        self._measure = own_memory_bytes if measure is None else measure
        self._reports: deque[_Report] = deque()
        self._known: dict[int, int] = {}
        """By process id, as last measured; of the actors of the last report."""

    def __bool__(self) -> bool:
        """Whether there is work to do."""
        return bool(self._reports)

    def add(self, order: ReportStatus, now: int) -> None:
        actors = [actor for actor in order.body.actors if actor.pid is not None]
        for actor in actors:
            actor.memory_bytes = self._known.get(actor.pid or 0, 0)
        self._known = {actor.pid or 0: actor.memory_bytes for actor in actors if actor.memory_bytes}
        # What only an earlier report asked for is not measured for its own sake.
        self._reports = deque(report for report in self._reports if not report.is_answered)
        left = deque(sorted(actors, key=lambda actor: actor.memory_bytes > 0))
        self._reports.append(_Report(order, left, now + REPORT_MS))

    def step(self, now: int) -> list[Reply]:
        """Measure some more; the replies of the reports that are complete, or have taken long enough."""
        replies: list[Reply] = []
        for report in self._reports:
            if not report.is_answered and (not report.left or now >= report.deadline):
                report.is_answered = True
                replies.append(Reply(report.order.to, report.order.body))
        while self._reports and self._reports[0].is_answered and not self._reports[0].left:
            self._reports.popleft()
        if self._reports:
            self._measure_some(self._reports[0].left)
        return replies

    def _measure_some(self, left: deque[ActorStatus]) -> None:
        for _ in range(min(ACTORS_PER_TURN, len(left))):
            actor = left.popleft()
            assert actor.pid is not None
            actor.memory_bytes = self._known[actor.pid] = self._measure(actor.pid)


def own_memory_bytes(pid: int) -> int:
    """What would be free if the process ended. What it shares with the fork server is nobody's own."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as rollup:
            return 1024 * sum(int(line.split()[1]) for line in rollup if line.startswith(b"Private_"))
    except OSError:
        # Gone meanwhile, or not Linux.
        return 0
