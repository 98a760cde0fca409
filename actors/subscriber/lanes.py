"""Partitions as their subscriber sees them: the records held, the attempts at the first, how far each is done. Pure.

    state      means                                               left by
    idle       its first record may be given to the handler        a run -> running
    running    some of its records are with the worker             Ran -> idle, waiting, burying or settling
    waiting    its first record failed, or burying it did          the timer -> idle, or burying again
    burying    its first record is on its way to the dead letters  Buried -> settling, BuryFailed -> waiting
    settling   a record that had failed is done, and not committed Committed -> idle

Its records are handled in order and one at a time, so what is done is always a prefix, and `done_offset` is its end.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal

from ...transport.addresses import Place
from .effects import Cause, Charge, Failure, Letter, Record

LaneState = Literal["idle", "running", "waiting", "burying", "settling"]


HELD_BYTES = 8 * 1024 * 1024
"""A partition of which so much is held is full, however few its records."""


class Lane:
    """The records of one partition that are held, and what became of those before."""

    def __init__(self, number: int, key: Place) -> None:
        self.number = number
        """A partition that went and came back is another lane."""
        self.key = key
        self.state: LaneState = "idle"
        self.held: deque[Record] = deque()
        self.held_bytes = 0
        self.attempts = 0
        """Failed attempts at the first record."""
        self.handed = 0
        """How often it was given to the handler in vain, releases included."""
        self.first_failed_ms = 0
        self.last_failed_ms = 0
        self.is_rejected = False
        self.alarm: str | None = None
        """Set while it is parked."""
        self.last_failure: Failure | None = None
        self.letter: Letter | None = None
        """The first record's dead letter, once its attempts are used up."""
        self.done_offset: int | None = None
        """Everything before it is done; None: nothing is yet."""
        self.committed_offset: int | None = None
        self.is_paused = False
        self.is_leaving = False
        """Wanted elsewhere; goes when what is at hand is finished."""

    @property
    def is_busy(self) -> bool:
        return self.state in ("running", "burying")

    def hold(self, records: Sequence[Record]) -> None:
        self.held.extend(records)
        self.held_bytes += sum(map(_size_bytes, records))

    def is_fuller_than(self, records: int, size_bytes: int) -> bool:
        return len(self.held) > records or self.held_bytes > size_bytes

    def run_length(self, most: int, charged_offset: int | None) -> int:
        """How many of the records held may go to the handler in one run.

        A record with failed attempts behind it goes alone, so that nothing else is in danger with it.
        """
        if self.attempts:
            return 1
        count = min(most, len(self.held))
        if charged_offset is None:
            return count
        return next((at for at in range(count) if self.held[at].offset >= charged_offset), count)

    def charge(self, charge: Charge, failure: Failure) -> None:
        """Its first record was tried by an earlier incarnation."""
        self.attempts = charge.attempts
        self.handed = charge.handed
        self.first_failed_ms = charge.first_failed_ms
        self.last_failed_ms = charge.last_failed_ms
        self.is_rejected = charge.cause == "rejected"
        self.last_failure = failure

    def as_charge(self) -> Charge:
        """What `charge` would take up again."""
        cause: Cause = "failed" if self.attempts else "released"
        return Charge(
            *self.key,
            self.held[0].offset,
            self.attempts,
            "rejected" if self.is_rejected else cause,
            self.handed,
            self.first_failed_ms,
            self.last_failed_ms,
        )

    def finish(self, count: int) -> None:
        """The first `count` records are done."""
        for _ in range(count):
            record = self.held.popleft()
            self.held_bytes -= _size_bytes(record)
            self.done_offset = record.offset + 1
        if count:
            self.attempts = self.handed = 0
            self.first_failed_ms = self.last_failed_ms = 0
            self.is_rejected = False
            self.last_failure = None
            self.letter = None
            self.alarm = None

    def fail(self, failure: Failure, now: int) -> None:
        self.attempts += 1
        self.first_failed_ms = self.first_failed_ms or now
        self.last_failed_ms = now
        self.last_failure = failure

    def keep(self, count: int) -> None:
        """Hold the first `count` records only."""
        while len(self.held) > count:
            self.held_bytes -= _size_bytes(self.held.pop())


def _size_bytes(record: Record) -> int:
    return len(record.key or b"") + len(record.value or b"")


class Lanes:
    """All lanes, by partition and by number, and whose turn it is."""

    def __init__(self) -> None:
        self.owned: dict[Place, Lane] = {}
        """The partitions that are this member's."""
        self.at_work: dict[int, Lane] = {}
        """These, and the ones that went while what they hold is still to be handled here."""
        self._turns: dict[int, Lane] = {}
        self._numbers = itertools.count(1)

    def get(self, key: Place) -> Lane:
        """The partition's lane, made when it is the first."""
        lane = self.owned.get(key)
        if lane is None:
            lane = Lane(next(self._numbers), key)
            self.owned[key] = self.at_work[lane.number] = lane
        return lane

    def of(self, keys: Iterable[Place]) -> list[Lane]:
        return [self.owned[key] for key in keys if key in self.owned]

    def is_owned(self, lane: Lane) -> bool:
        return self.owned.get(lane.key) is lane

    def queue(self, lane: Lane) -> None:
        """Let it have its turn after those that wait already."""
        if lane.held and lane.state == "idle":
            self._turns[lane.number] = lane

    def next(self) -> Lane | None:
        """The lane whose turn it is."""
        while self._turns:
            lane = self._turns.pop(next(iter(self._turns)))
            if lane.held and lane.state == "idle":
                return lane
        return None

    def let_go(self, lanes: list[Lane], *, is_handled_to_the_end: bool) -> None:
        """They are no longer this member's."""
        for lane in lanes:
            del self.owned[lane.key]
            if not (lane.held and is_handled_to_the_end):
                self._turns.pop(lane.number, None)
                del self.at_work[lane.number]
