"""Lanes: records that are handled one after another, the attempts at the first, and what is to become of it. Pure.

    state      means                                               left by
    idle       its first record may be given to the handler        a run -> running
    running    some of its records are with a worker               Ran -> idle, waiting, burying or settling
    waiting    its first record failed, or burying it did          the timer -> idle, or burying again
    burying    its first record goes to the dead letters  DeadLetterPublished -> settling, DeadLetterFailed -> waiting
    settling   a record that had failed is done, and not committed Committed -> idle

Which records share a lane, partitions.py decides.
"""

from collections import deque
from collections.abc import Mapping
from typing import Literal

from ...transport.addresses import TopicPartition
from .effects import Cause, DeadLetterRecord, Failure, PriorAttempt, Record

LaneState = Literal["idle", "running", "waiting", "burying", "settling"]
LaneName = bytes | int | None
"""A key, the offset of a record without one, or MAIN."""
MAIN = -1

DEADLY: frozenset[Cause] = frozenset({"killed", "timed out", "cpu exceeded"})
"""Who has ended a process is tried again with nothing else at hand, so that the next death speaks of it alone."""


class Lane:
    """The records of one lane that are held, and what became of the first."""

    __slots__ = (
        "again_ms",
        "alarm",
        "attempts",
        "first_failed_ms",
        "handed",
        "held",
        "is_deadly",
        "is_rejected",
        "key",
        "last_failed_ms",
        "last_failure",
        "letter",
        "name",
        "number",
        "settling",
        "state",
    )

    def __init__(self, number: int, key: TopicPartition, name: LaneName = MAIN) -> None:
        self.number = number
        """The lane of a partition that went and came back is another one."""
        self.key = key
        """Its partition."""
        self.name = name
        self.state: LaneState = "idle"
        self.held: deque[Record] = deque()
        self.settling: int | None = None
        """The offset of the record it is settling for."""
        self.alarm: str | None = None
        """Set while it is parked."""
        self.letter: DeadLetterRecord | None = None
        """The first record's dead letter, once its attempts are used up."""
        self._begin()

    def _begin(self) -> None:
        """The first record is another one."""
        self.attempts = 0
        """Failed attempts at the first record."""
        self.handed = 0
        """How often it was given to the handler in vain, releases included."""
        self.first_failed_ms = 0
        self.last_failed_ms = 0
        self.again_ms = 0
        """When it is tried again, while it waits."""
        self.is_rejected = False
        self.is_deadly = False
        self.last_failure: Failure | None = None

    @property
    def is_busy(self) -> bool:
        return self.state in ("running", "burying")

    def run_length(self, most: int, apart: Mapping[int, object]) -> int:
        """How many of the records held may go to the handler in one run.

        A record with failed attempts behind it goes alone, so that nothing else is in danger with it; before one of the
        offsets in `apart` a run ends.
        """
        if self.attempts:
            return 1
        count = min(most, len(self.held))
        if not apart:
            return count
        return next((at for at in range(1, count) if self.held[at].offset in apart), count)

    def prior_attempt(self, prior_attempt: PriorAttempt, failure: Failure) -> None:
        """Its first record was tried by an earlier incarnation."""
        self.attempts = prior_attempt.attempts
        self.handed = prior_attempt.handed
        self.first_failed_ms = prior_attempt.first_failed_ms
        self.last_failed_ms = prior_attempt.last_failed_ms
        self.is_rejected = prior_attempt.cause == "rejected"
        self.is_deadly = prior_attempt.cause in DEADLY
        self.last_failure = failure

    def as_charge(self, lineage: bytes) -> PriorAttempt:
        """What `charge` would take up again."""
        cause: Cause = "failed" if self.attempts else "released"
        failure = self.last_failure
        return PriorAttempt(
            *self.key,
            self.held[0].offset,
            self.attempts,
            "rejected" if self.is_rejected else "killed" if self.is_deadly else cause,
            self.handed,
            self.first_failed_ms,
            self.last_failed_ms,
            exit=failure.exit if failure is not None else None,
            stack=failure.stack if failure is not None else None,
            peak_bytes=failure.peak_bytes if failure is not None else None,
            leader_epoch=self.held[0].leader_epoch,
            lineage=lineage,
        )

    def finish(self, count: int) -> list[Record]:
        """The first `count` records are done; returns them."""
        if not count:
            return []
        pop = self.held.popleft
        done = [pop() for _ in range(count)]
        if self.handed:
            self._begin()
            self.letter = self.alarm = None
        return done

    def fail(self, failure: Failure, now: int) -> None:
        self.attempts += 1
        self.first_failed_ms = self.first_failed_ms or now
        self.last_failed_ms = now
        self.last_failure = failure

    def keep(self, count: int) -> list[Record]:
        """Hold the first `count` records only; returns the others."""
        return [self.held.pop() for _ in range(len(self.held) - count)]
