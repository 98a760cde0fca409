"""Answers `status` without holding up anybody: each actor's memory is measured in slices, some a turn.

The kernel takes about half a millisecond to add up a process's own pages; two hundred actors in one go would delay a
restart by a tenth of a second. Called by process.py; Linux only, elsewhere the memory is 0.
"""

from collections import deque
from collections.abc import Iterator

from ..transport.machine import Reply
from ..transport.protocol.operations import ActorStatus
from .events import ReportStatus

ACTORS_PER_TURN = 10


class StatusReports:
    def __init__(self) -> None:
        self._waiting: deque[tuple[ReportStatus, Iterator[ActorStatus]]] = deque()

    def __bool__(self) -> bool:
        """Whether there is work to do."""
        return bool(self._waiting)

    def add(self, report: ReportStatus) -> None:
        self._waiting.append((report, iter(report.body.actors)))

    def step(self) -> Reply | None:
        """Measure some more; the reply when that was the last of its actors."""
        report, actors = self._waiting[0]
        for _ in range(ACTORS_PER_TURN):
            actor = next(actors, None)
            if actor is None:
                self._waiting.popleft()
                return Reply(report.to, report.body)
            if actor.pid is not None:
                actor.memory_bytes = own_memory_bytes(actor.pid)
        return None


def own_memory_bytes(pid: int) -> int:
    """What would be free if the process ended. What it shares with the fork server is nobody's own."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as rollup:
            return 1024 * sum(int(line.split()[1]) for line in rollup if line.startswith(b"Private_"))
    except OSError:
        # Gone meanwhile, or not Linux.
        return 0
