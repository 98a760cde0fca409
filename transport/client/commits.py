"""The commits of a consumer: under which identity, which positions, and when automatically. Pure.

A commit is made under the member's identity. None is made from the loss of all partitions until the program has been
notified, because the positions were reached before the loss.

settled     the positions at the start of the last poll: after the messages returned by earlier polls
committed   the group's positions, as far as this consumer has committed them
due         `interval_s` after the last time, unless a commit is in flight
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from ..addresses import TopicPartition, coordinator_address
from ..machine import Call
from ..protocol.errors import ErrorCode, PlanariaError
from ..protocol.groups import CommitOffsets, CommitOffsetsReply, PartitionOffset
from .errors import CommitFailed
from .membership import MemberIdentity
from .options import InvalidOption, as_partition, check_offset, check_text
from .reader import Reader

Partition: TypeAlias = tuple[str, int]
"""Topic and partition: a TopicPartition, or a plain tuple."""
Offsets: TypeAlias = Mapping[TopicPartition, int]
GivenOffsets: TypeAlias = Offsets | Mapping[tuple[str, int], int]
Metadata: TypeAlias = Mapping[TopicPartition, str] | Mapping[tuple[str, int], str]


class CommitFirst(NamedTuple):
    """Send the commit and wait for its outcome. Refused or unanswered, its messages are delivered again."""

    request: CommitOffsets
    offsets: Offsets


LEAST_PAUSE_S = 0.1
"""Between two automatic commits of a poll that waits: one that is refused is not repeated in a busy loop."""


class AutoCommit:
    def __init__(self, is_on: bool, interval_s: float, now_s: float) -> None:
        self.is_on = is_on
        self.settled: dict[TopicPartition, int] = {}
        self._interval_s = interval_s
        self._committed: dict[TopicPartition, int] = {}
        self._is_in_flight = False
        self._next_at_s = now_s + interval_s

    def due(self, now_s: float) -> dict[TopicPartition, int]:
        """Return the positions to commit now."""
        if not self.is_on or self._is_in_flight or now_s < self._next_at_s:
            return {}
        self._next_at_s = now_s + self._interval_s
        return self.uncommitted(self.settled)

    def longest_wait_s(self, now_s: float) -> float | None:
        """Return how long a poll may wait before it commits; None while there is nothing to commit."""
        if not self.is_on or self._is_in_flight or not self.uncommitted(self.settled):
            return None
        return max(self._next_at_s - now_s, LEAST_PAUSE_S)

    def uncommitted(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Return the positions that are not committed."""
        return {tp: at for tp, at in positions.items() if self._committed.get(tp) != at}

    def begin(self) -> None:
        """Record that a commit was sent. `end` follows."""
        self._is_in_flight = True

    def end(self) -> None:
        self._is_in_flight = False

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._committed.update(offsets)

    def settled_of(self, tps: frozenset[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self.settled[tp] for tp in sorted(tps & self.settled.keys())}

    def forget(self, tps: Iterable[TopicPartition]) -> None:
        for tp in tps:
            self.settled.pop(tp, None)
            self._committed.pop(tp, None)


class Commits:
    """Builds the requests. The positions are those of the reader."""

    def __init__(self, group: str | None, reader: Reader, auto: AutoCommit) -> None:
        self.auto = auto
        self.identity = MemberIdentity()
        self.losses = 0
        """Losses of all owned partitions that have been reported to the program."""
        self._group = group
        self._reader = reader

    def request(self, offsets: GivenOffsets, metadata: Metadata | None = None) -> CommitOffsets:
        """Return the request. Raises CommitFailed when all partitions were lost meanwhile."""
        assert self._group is not None
        if self.identity.losses != self.losses:
            raise CommitFailed(ErrorCode.NOT_ASSIGNED, "the partitions have been lost")
        return CommitOffsets(
            group=self._group,
            offsets=[self._reader.stamped(item) for item in as_offsets(offsets, metadata)],
            member_id=self.identity.member_id,
            generation=self.identity.generation,
        )

    def automatic(self, offsets: Offsets) -> CommitFirst | None:
        """Return the automatic commit of these offsets, if there is one to make."""
        if not self.auto.is_on or not offsets or self.identity.losses != self.losses:
            return None  # after a loss the next owner reads these messages again
        return CommitFirst(self.request(offsets), offsets)

    def due(self, now_s: float, timeout_ms: int) -> Call | None:
        """Return the automatic commit of the messages of earlier polls, if its time has come."""
        positions = self.auto.due(now_s)
        action = self.automatic(positions)
        if action is None:
            return None
        self.auto.begin()
        # Not retried automatically: the older commit could overwrite a newer one made by the program meanwhile.
        return commit_call(action.request, timeout_ms, ("commit", positions), is_retried=False)

    def longest_wait_s(self, left_s: float | None, now_s: float) -> float | None:
        """Return how long a poll with `left_s` seconds left may wait before it commits."""
        due_s = self.auto.longest_wait_s(now_s)
        return left_s if due_s is None else due_s if left_s is None else min(left_s, due_s)

    def check(self, *, is_in_transaction: bool = False) -> None:
        """Raise the error that no commit of this consumer's offsets can avoid."""
        if self._group is None:
            raise PlanariaError("a consumer without a group has nowhere to commit to")
        if is_in_transaction and self.auto.is_on:
            raise InvalidOption("auto_commit: must be False where a transaction commits the offsets")


def commit_call(request: CommitOffsets, timeout_ms: int, key: Any = None, *, is_retried: bool = True) -> Call:
    """Return the call of a commit to the group's coordinator."""
    address = coordinator_address(request.group)
    return Call(key, address, request, CommitOffsetsReply, timeout_ms=timeout_ms, is_retried=is_retried)


def as_offsets(offsets: GivenOffsets, metadata: Metadata | None = None) -> list[PartitionOffset]:
    """Return the offsets as they are sent. Raises InvalidOption for a value that is no partition or no offset."""
    given: Any = offsets
    told: Any = {} if metadata is None else metadata
    for what, each in (("offsets", given), ("metadata", told)):
        if not isinstance(each, Mapping):
            raise InvalidOption(f"{what}: must be a dict by (topic, partition), not {each!r}")
    found = []
    for tp, offset in given.items():
        check_offset(offset)
        text = told.get(tp, "")
        check_text("metadata:", text)
        found.append(PartitionOffset(*as_partition("offsets", tp), offset, text))
    return found
