"""Answers `status` without delaying other work: the actors' memory is measured one per turn, for a while.

    added       measured until REPORT_MS have passed, then answered; actors never measured before come first; while
                actors are being launched it is answered at once, with the last measurements, and none is measured: the
                kernel may have to wait for a process that is loading its modules
    answered    the remaining actors are measured afterwards, for the next report, which may come a second later

A measurement holds for VALID_MS: a client that waits for a state asks many times a second. The kernel takes about a
millisecond to add up a process's own pages; a thousand actors in one go would delay an operator by a second, and a
restart by as much. Called by process.py; Linux only, elsewhere the memory is 0.
"""

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from ..transport.machine import Reply
from ..transport.processes import own_memory_bytes
from ..transport.protocol.operations import ActorStatus
from .events import ReportStatus

REPORT_MS = 20
VALID_MS = 1_000
MAX_REPORTS = 8
"""Reports in progress; further requests stay in the socket, from which ZeroMQ takes them by connection in turn."""


class _Memory(Struct):
    """The memory of a process, and the time at which it was measured."""

    size_bytes: int
    at: int


class _Report(Struct):
    order: ReportStatus
    left: deque[ActorStatus]
    """Still to be measured."""
    deadline: int
    is_answered: bool = False


class StatusReports:
    def __init__(self, measure: Callable[[int], int] | None = None) -> None:
        """`measure` returns the memory of a process in bytes; tests replace it."""
        self._measure = own_memory_bytes if measure is None else measure
        self._reports: deque[_Report] = deque()
        self._known: dict[int, _Memory] = {}
        """Last measurement by process id, for the actors of the last report."""

    def __bool__(self) -> bool:
        """True if there is work to do."""
        return bool(self._reports)

    @property
    def is_full(self) -> bool:
        return sum(not report.is_answered for report in self._reports) >= MAX_REPORTS

    def add(self, order: ReportStatus, now: int, *, is_urgent: bool = False) -> None:
        """Begin a report. For an urgent one nothing is measured."""
        known, self._known = self._known, {}
        new: list[ActorStatus] = []
        due: list[ActorStatus] = []
        for actor in order.body.actors:
            if actor.pid is None:
                continue
            memory = known.get(actor.pid)
            if memory is None:
                new.append(actor)
                continue
            self._known[actor.pid] = memory
            actor.memory_bytes = memory.size_bytes
            if now - memory.at >= VALID_MS:
                due.append(actor)
        # Actors that only an earlier report needs are no longer measured.
        self._reports = deque(report for report in self._reports if not report.is_answered)
        left = deque(() if is_urgent else (*new, *due))
        self._reports.append(_Report(order, left, now + REPORT_MS))

    def step(self, now: int) -> Reply | None:
        """Measure the next process; return the reply of the first report that is complete or due."""
        reply: Reply | None = None
        for report in self._reports:
            if not report.is_answered and (not report.left or now >= report.deadline):
                report.is_answered = True
                reply = Reply(report.order.to, report.order.body)
                break
        while self._reports and self._reports[0].is_answered and not self._reports[0].left:
            self._reports.popleft()
        if self._reports:
            self._measure_next(self._reports[0].left, now)
        return reply

    def _measure_next(self, left: deque[ActorStatus], now: int) -> None:
        if left:
            actor = left.popleft()
            assert actor.pid is not None
            actor.memory_bytes = self._measure(actor.pid)
            self._known[actor.pid] = _Memory(actor.memory_bytes, now)
