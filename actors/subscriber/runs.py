"""Which worker has what, and who may start next. Pure.

A lane that has ended a process runs with nothing else in progress, and suspects run in halves (bisection.py); until that
is over nothing else is started. With one worker nothing is ever in progress beside it.
"""

import itertools
from collections.abc import Iterable, Sequence

from msgspec import Struct

from ...transport.addresses import Place
from .bisection import Bisection, Spot
from .breaker import Breaker
from .effects import Record, Run
from .lanes import Lane
from .partitions import Partitions
from .past import Memory, spot_of

RUN_RECORDS = 500


class Running(Struct, frozen=True):
    """What a worker has."""

    number: int
    worker: int
    lane: Lane
    records: Sequence[Record]


class Runs:
    def __init__(
        self,
        concurrency: int,
        partitions: Partitions,
        memory: Memory,
        suspects: Iterable[Spot],
        breaker: Breaker,
    ) -> None:
        self._partitions = partitions
        self._memory = memory
        self._breaker = breaker
        self._free = list(range(concurrency - 1, -1, -1))
        self._is_single = concurrency == 1
        self._bisection = Bisection(() if self._is_single else suspects)
        self._deadly: set[int] = set()
        self._numbers = itertools.count(1)
        self.running: dict[int, Running] = {}

    def next_lane(self) -> Lane | None:
        """Who starts next; None while nobody may."""
        if not (self._free and self._breaker.lets(len(self.running))):
            return None
        if self._is_single or not (self._bisection.suspects or self._has_deadly()):
            return self._partitions.next()
        return self._next_guarded()

    def start(self, lane: Lane, committed: int) -> Run:
        apart = self._memory.charged(lane.key)
        most = RUN_RECORDS if self._is_single else 1
        records = list(itertools.islice(lane.held, lane.run_length(most, apart)))
        running = Running(next(self._numbers), self._free.pop(), lane, records)
        self.running[running.number] = running
        lane.state = "running"
        tally = (lane.attempts + 1, lane.handed, lane.first_failed_ms, lane.last_failed_ms)
        return Run(running.number, records, *tally, running.worker, committed)

    def ended(self, number: int) -> Running | None:
        running = self.running.pop(number, None)
        if running is not None:
            self._free.append(running.worker)
            if self._bisection.suspects:
                for record in running.records:
                    self._bisection.clear(spot_of(record))
        return running

    def dealt_with(self, record: Record) -> None:
        """It is done, with a run or without one: nobody waits for its trial."""
        self._bisection.clear(spot_of(record))

    def of_worker(self, worker: int) -> list[int]:
        """The number of its run, if it has one."""
        return [number for number, running in self.running.items() if running.worker == worker]

    def at_hand(self, lane: Lane) -> int:
        """How many of the lane's records a worker has."""
        return sum(len(running.records) for running in self.running.values() if running.lane is lane)

    def acquit(self, key: Place, before: int | None = None) -> None:
        """The partition is not this process's any more, or is done up to there."""
        for spot in list(self._bisection.suspects):
            if spot[:2] == key and (before is None or spot[2] < before):
                self._bisection.clear(spot)

    def beware(self, lane: Lane) -> None:
        """The lane's first record has an attempt behind it."""
        if lane.is_deadly:
            self._deadly.add(lane.number)

    def _has_deadly(self) -> bool:
        if self._deadly:
            lanes = self._partitions.at_work
            self._deadly = {number for number in self._deadly if number in lanes and lanes[number].is_deadly}
        return bool(self._deadly)

    def _next_guarded(self) -> Lane | None:
        if any(running.lane.is_deadly for running in self.running.values()):
            return None
        ready = self._partitions.ready()
        suspects = {spot: lane for lane in ready if (spot := self._suspect_in(lane)) is not None}
        on_trial = self._bisection.on_trial(sorted(suspects), is_quiet=not self.running)
        if on_trial or suspects:
            lane = next((lane for spot, lane in suspects.items() if spot in on_trial), None)
            return self._partitions.take(lane) if lane is not None else None
        deadly = next((lane for lane in ready if lane.is_deadly), None)
        if deadly is None:
            return self._partitions.next()
        return self._partitions.take(deadly) if not self.running else None

    def _suspect_in(self, lane: Lane) -> Spot | None:
        """The first suspect among the lane's records; those before it are tried with it."""
        suspects = self._bisection.suspects
        return next((spot for record in lane.held if (spot := spot_of(record)) in suspects), None)
