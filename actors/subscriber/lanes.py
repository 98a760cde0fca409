"""Lanes: records that are handled in sequence, the attempts at the first, and its next step. Pure.

    state           means                                               left by
    idle            its first record may be given to the handler        a run -> running
    running         some of its records are with a worker               HandlerReturned -> idle, waiting,
                                                                        dead-lettering or settling
    waiting         its first record or its dead letter has failed,     the timer -> idle, or dead-lettering again
                    or a limit of its key defers it
    dead-lettering  its first record's dead letter is in flight         DeadLetterPublished -> settling,
                                                                        DeadLetterFailed -> waiting
    settling        a record that had failed is done, not committed     Committed -> idle

partitions.py decides which records share a lane.
"""

from collections import deque
from collections.abc import Mapping
from typing import Literal

from ...transport.addresses import TopicPartition
from .effects import Cause, DeadLetterRecord, Failure, PriorAttempt, Record

LaneState = Literal["idle", "running", "waiting", "dead-lettering", "settling"]
LaneName = bytes | tuple[bytes, int] | int | None
"""A key, one of several lanes of a key, the offset of a record without a key, or MAIN."""
MAIN = -1
EXPIRED = "it expired before it was handled"

DEADLY: frozenset[Cause] = frozenset({"killed", "timed out", "cpu exceeded"})
"""Causes that ended the process; such a record is retried with no other in progress, so that the next death is its own.
"""


class Lane:
    """The held records of one lane, and the attempts at the first."""

    __slots__ = (
        "again_ms",
        "alarm",
        "attempts",
        "dead_letter",
        "first_failed_ms",
        "handed",
        "held",
        "is_collected",
        "is_deadly",
        "is_rejected",
        "key",
        "last_failed_ms",
        "last_failure",
        "name",
        "number",
        "settling",
        "state",
        "turns",
    )

    def __init__(self, number: int, key: TopicPartition, name: LaneName = MAIN) -> None:
        self.number = number
        """Unique number: a partition that is revoked and assigned again gets new lanes."""
        self.key = key
        """The lane's partition."""
        self.name = name
        self.state: LaneState = "idle"
        self.held: deque[Record] = deque()
        self.settling: int | None = None
        """Offset of the record whose commit the lane waits for."""
        self.alarm: str | None = None
        """The alarm's text while the first record is parked."""
        self.dead_letter: DeadLetterRecord | None = None
        """The first record's dead letter, once its attempts are used up."""
        self.turns = 0
        """Number of records that may follow in the present turn of its key."""
        self.is_collected = False
        """True once the lane has waited for further records of its key."""
        self._begin()

    def _begin(self) -> None:
        """Reset the counts for a new first record."""
        self.attempts = 0
        """Failed attempts at the first record."""
        self.handed = 0
        """Number of times the first record was given to the handler without success, releases included."""
        self.first_failed_ms = 0
        self.last_failed_ms = 0
        self.again_ms = 0
        """Time of its retry, while the lane waits."""
        self.is_rejected = False
        self.is_deadly = False
        self.last_failure: Failure | None = None

    @property
    def record_key(self) -> bytes | None:
        """The key of the lane's records; None if they have no limits by key."""
        if isinstance(self.name, tuple):
            return self.name[0]
        return self.name if isinstance(self.name, bytes) else None

    @property
    def is_busy(self) -> bool:
        return self.state in ("running", "dead-lettering")

    def run_length(self, most: int, apart: Mapping[int, object]) -> int:
        """Return the number of held records that may go to the handler in one run.

        A record that has failed or was released goes alone: no other record is at risk with it, and it is committed
        before the next one is tried. A run ends before each of the offsets in `apart`.
        """
        if self.handed:
            return 1
        count = min(most, len(self.held))
        if not apart:
            return count
        return next((at for at in range(1, count) if self.held[at].offset in apart), count)

    def restore(self, prior_attempt: PriorAttempt, failure: Failure) -> None:
        """Restore the attempts of the first record from an earlier incarnation."""
        self.attempts = prior_attempt.attempts
        self.handed = prior_attempt.handed
        self.first_failed_ms = prior_attempt.first_failed_ms
        self.last_failed_ms = prior_attempt.last_failed_ms
        self.is_rejected = prior_attempt.cause == "rejected"
        self.is_deadly = prior_attempt.cause in DEADLY
        self.last_failure = failure

    def as_prior_attempt(self, lineage: bytes) -> PriorAttempt:
        """Return the PriorAttempt from which `restore` would restore the lane."""
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
        """Remove the first `count` records, which are done; return them."""
        if not count:
            return []
        pop = self.held.popleft
        done = [pop() for _ in range(count)]
        if self.last_failure is not None or self.handed:
            self._begin()
            self.dead_letter = self.alarm = None
        return done

    def expire(self, now: int) -> None:
        """Give the first record up, because its time has passed before its turn."""
        self.is_rejected = True
        self.first_failed_ms = self.first_failed_ms or now
        self.last_failed_ms = now
        self.last_failure = Failure(EXPIRED)

    def fail(self, failure: Failure, now: int) -> None:
        self.attempts += 1
        self.first_failed_ms = self.first_failed_ms or now
        self.last_failed_ms = now
        self.last_failure = failure

    def keep(self, count: int) -> list[Record]:
        """Hold the first `count` records only; return the others."""
        return [self.held.pop() for _ in range(len(self.held) - count)]
