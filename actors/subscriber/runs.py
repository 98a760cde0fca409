"""Runs: which worker has which records, and which lane starts next. Pure.

A hop to a thread and back costs as much as many handlers do, so a run may hold the first records of several lanes, of
one partition. Its size adapts: it doubles after a run that ended at once and halves after one that took long. So
handlers that wait get a record each and as many threads as there are, and handlers that return at once cost no hop
each. A record waits behind another key's for SLICE_MS at most: then the records that its worker has not begun are taken
back.

A lane that has ended a process runs with no other in progress, and suspects run in halves (bisection.py); until that is
over no other lane starts. With one worker there is never a second record in progress.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator

from ...transport.addresses import TopicPartition
from ...transport.subscription import SubscriberOptions
from .bisection import Bisection, Spot
from .breaker import Breaker
from .effects import Record, Run
from .lanes import Lane
from .partitions import Partitions
from .recovered_state import Memory, Suspect, spot_of

RUN_RECORDS = 500
POOL_RECORDS = 500
"""Most records in the runs of all workers together: fewer than the finished ones that the flight recorder keeps."""
SLICE_MS = 50
"""Time after which a run ends at the next record, so that other partitions have their turn and commits continue."""
QUICK_MS = 2
SLOW_MS = 10


class Running:
    """The run of one worker."""

    def __init__(self, number: int, worker: int, now: int) -> None:
        self.number = number
        self.worker = worker
        self.started_ms = now
        self.records: list[Record] = []
        self._parts: list[tuple[Lane, int]] = []
        """The lanes of the run, in order, and the number of records of each."""

    def add(self, lane: Lane, count: int) -> None:
        self._parts.append((lane, count))
        self.records += itertools.islice(lane.held, count)
        lane.state = "running"

    @property
    def lanes(self) -> list[Lane]:
        return [lane for lane, _ in self._parts]

    def count_of(self, lane: Lane) -> int:
        return sum(count for each, count in self._parts if each is lane)

    def done(self, count: int) -> Iterator[tuple[Lane, int]]:
        """Return each lane, and the number of its records among the first `count`."""
        for lane, taken in self._parts:
            yield lane, min(count, taken)
            count -= min(count, taken)

    def lane_at(self, index: int) -> Lane:
        """Return the lane of the record at `index` of the run."""
        for lane, taken in self._parts:
            if index < taken:
                return lane
            index -= taken
        raise IndexError(index)

    def give_back(self, count: int) -> list[Lane]:
        """Give back the last `count` records; return their lanes. Lanes without a record left in the run are idle."""
        del self.records[len(self.records) - count :]
        lanes: list[Lane] = []
        while count:
            lane, taken = self._parts.pop()
            kept = max(0, taken - count)
            count -= taken - kept
            if kept:
                self._parts.append((lane, kept))
            else:
                lane.state = "idle"
            lanes.insert(0, lane)
        return lanes


class Runs:
    def __init__(
        self,
        options: SubscriberOptions,
        partitions: Partitions,
        memory: Memory,
        suspects: Iterable[Suspect],
        breaker: Breaker,
    ) -> None:
        self._partitions = partitions
        self._memory = memory
        self._breaker = breaker
        self._concurrency = concurrency = options.concurrency
        self._free = deque(range(concurrency))
        """Free workers, in turn."""
        self._is_single = concurrency == 1
        self._size = RUN_RECORDS if self._is_single else 1
        """Current number of records in a run."""
        self._most = min(RUN_RECORDS, max(1, POOL_RECORDS // concurrency))
        if options.is_limited_by_key:
            self._most = 1  # each record is decided about when it is its turn
        if options.expired != "deliver":
            self._size = self._most = 1
        self._suspects = {} if self._is_single else {each.spot: each for each in suspects}
        self._bisection = Bisection(self._suspects)
        self._deadly: set[int] = set()
        self._numbers = itertools.count(1)
        self.running: dict[int, Running] = {}

    def next_lane(self) -> Lane | None:
        """Return the lane that starts next; None if no lane may start."""
        if not (self._free and self._breaker.lets(len(self.running))):
            return None
        if not self._is_guarded:
            return self._partitions.next()
        return self._next_guarded()

    @property
    def _is_guarded(self) -> bool:
        return not self._is_single and bool(self._bisection.suspects or self._has_deadly())

    def start(self, lane: Lane, committed: int, now: int) -> Run:
        apart = self._memory.prior_attempts_of(lane.key)
        running = Running(next(self._numbers), self._free.popleft(), now)
        self.running[running.number] = running
        is_careful = not self._is_single and (self._is_guarded or self._breaker.state != "closed")
        most = 1 if is_careful else self._size
        running.add(lane, lane.run_length(most, apart))
        if not (self._is_single or lane.attempts):
            # Leave a share for the other workers.
            beside = min(most - len(running.records), self._partitions.waiting_count // self._concurrency)
            while len(running.records) < most and beside > 0:
                other = self._partitions.next_beside(lane, apart)
                if other is None:
                    break
                running.add(other, other.run_length(most - len(running.records), apart))
                beside -= 1
        tally = (lane.attempts + 1, lane.handed, lane.first_failed_ms, lane.last_failed_ms)
        return Run(
            running.number,
            tuple(running.records),
            *tally,
            running.worker,
            committed,
            self._memory.lineage(lane.key),
        )

    def ended(self, number: int, now: int) -> Running | None:
        running = self.running.pop(number, None)
        if running is not None:
            self._free.append(running.worker)
            self._measure(len(running.records), now - running.started_ms)
            if self._bisection.suspects:
                for record in running.records:
                    self._bisection.clear(spot_of(record))
        return running

    def clear(self, record: Record) -> None:
        """Clear a record that is done, with a run or without one."""
        self._bisection.clear(spot_of(record))

    def of_worker(self, worker: int) -> list[int]:
        """Return the number of the worker's run, if it has one."""
        return [number for number, running in self.running.items() if running.worker == worker]

    def with_workers(self, lane: Lane) -> int:
        """Return the number of the lane's records that a worker has."""
        return sum(running.count_of(lane) for running in self.running.values())

    def clear_suspects(self, key: TopicPartition, before: int | None = None) -> None:
        """Clear the suspects of a partition that is revoked, or those before the offset that is done."""
        for spot in list(self._bisection.suspects):
            if spot[:2] == key and (before is None or spot[2] < before):
                self._bisection.clear(spot)

    def clear_void(self, key: TopicPartition, lineage: bytes) -> None:
        """Clear suspects of another lineage: other records have their offsets."""
        for spot in list(self._bisection.suspects):
            if spot[:2] == key and self._suspects[spot].lineage != lineage:
                self._bisection.clear(spot)

    def isolate(self, lane: Lane) -> None:
        """Run the lane alone from now on if its first record ended a process."""
        if lane.is_deadly:
            self._deadly.add(lane.number)

    def _measure(self, count: int, took_ms: int) -> None:
        if self._is_single:
            return
        if took_ms > SLOW_MS:
            self._size = max(1, self._size // 2)
        elif took_ms <= QUICK_MS and count >= self._size:
            self._size = min(2 * self._size, self._most)

    def _has_deadly(self) -> bool:
        if self._deadly:
            lanes = self._partitions.at_work
            self._deadly = {number for number in self._deadly if number in lanes and lanes[number].is_deadly}
        return bool(self._deadly)

    def _next_guarded(self) -> Lane | None:
        if any(lane.is_deadly for running in self.running.values() for lane in running.lanes):
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
        """Return the first suspect among the lane's records; those before it are tried with it."""
        return next((spot_of(record) for record in lane.held if self._is_suspect(record)), None)

    def _is_suspect(self, record: Record) -> bool:
        spot = spot_of(record)
        return spot in self._bisection.suspects and self._suspects[spot].leader_epoch == record.leader_epoch
