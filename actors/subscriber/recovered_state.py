"""State left by others: attempts, finished records and suspects, and the progress of a partition's previous owner.
Pure.

A record that an earlier incarnation finished without committing it is not handled again. That holds only as long as the
group's offset has not been set back since: a partition that starts before the offset that was committed when the record
was started is being read again on purpose. No note of a record holds in another lineage of the partition or for a
record of another leader epoch (lineage.py).
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from ...transport.addresses import TopicPartition
from ...transport.lineage import UNTRACED
from .bisection import Spot
from .effects import PriorAttempt, Record
from .progress import Ahead


class Finished(Struct, frozen=True):
    """A record that was handled and possibly not committed."""

    topic: str
    partition: int
    offset: int
    committed: int
    """The group's offset, as far as known, when the record was started."""
    leader_epoch: int = 0
    lineage: bytes = UNTRACED


class Suspect(Struct, frozen=True):
    """A record that was in progress, with others, when the process ended."""

    topic: str
    partition: int
    offset: int
    leader_epoch: int = 0
    lineage: bytes = UNTRACED

    @property
    def spot(self) -> Spot:
        return (self.topic, self.partition, self.offset)


class RecoveredState(Struct, frozen=True):
    """The content of a flight recorder when it is opened."""

    prior_attempts: Sequence[PriorAttempt] = ()
    finished: Sequence[Finished] = ()
    suspects: Sequence[Suspect] = ()


NOTHING_RECOVERED = RecoveredState()


class Memory:
    """The recovered state, as long as it applies."""

    def __init__(self, recovered: RecoveredState) -> None:
        self._prior_attempts: dict[TopicPartition, dict[int, PriorAttempt]] = {}
        self._finished: dict[TopicPartition, list[Finished]] = {}
        self._done: dict[TopicPartition, tuple[dict[int, int], Ahead]] = {}
        """The leader epochs of finished records by offset, and the previous owner's progress."""
        self._lineages: dict[TopicPartition, bytes] = {}
        for prior_attempt in recovered.prior_attempts:
            self.remember(prior_attempt)
        for finished in recovered.finished:
            self._finished.setdefault(TopicPartition(finished.topic, finished.partition), []).append(finished)

    def learn(self, lineages: Mapping[TopicPartition, bytes]) -> None:
        """Note the lineages of partitions that are new here."""
        self._lineages.update(lineages)

    def lineage(self, key: TopicPartition) -> bytes:
        return self._lineages.get(key, UNTRACED)

    def clear(self) -> None:
        """Drop all state: it no longer applies."""
        self._prior_attempts.clear()
        self._finished.clear()
        self._done.clear()

    def remember(self, prior_attempt: PriorAttempt) -> None:
        self._prior_attempts.setdefault(prior_attempt.key, {})[prior_attempt.offset] = prior_attempt

    def prior_attempts(self) -> list[PriorAttempt]:
        return [
            prior_attempt
            for prior_attempts in self._prior_attempts.values()
            for prior_attempt in prior_attempts.values()
        ]

    def prior_attempts_of(self, key: TopicPartition) -> Mapping[int, PriorAttempt]:
        """Return the partition's prior attempts by offset."""
        return self._prior_attempts.get(key) or {}

    def take_prior_attempt(self, record: Record) -> PriorAttempt | None:
        """Remove and return the record's prior attempt, or a void one: of another record with its offset."""
        prior_attempts = self._prior_attempts.get(TopicPartition(record.topic, record.partition))
        return prior_attempts.pop(record.offset, None) if prior_attempts else None

    def take_before(self, key: TopicPartition, offset: int) -> Iterator[PriorAttempt]:
        """Remove and return the prior attempts of records that the group has passed."""
        for at in [at for at in self._prior_attempts.get(key) or () if at < offset]:
            yield self._prior_attempts[key].pop(at)

    def take_void(self, key: TopicPartition) -> list[PriorAttempt]:
        """Remove and return the prior attempts of another lineage."""
        prior_attempts, lineage = self._prior_attempts.get(key, {}), self.lineage(key)
        return [
            prior_attempts.pop(each.offset)
            for each in list(prior_attempts.values())
            if each.lineage != lineage
        ]

    def begin(self, key: TopicPartition, position: int, ahead: Ahead) -> None:
        """Start the partition at `position`; `ahead` is the previous owner's progress."""
        noted = [each for each in self._finished.get(key, ()) if each.lineage == self.lineage(key)]
        is_set_back = any(finished.committed > position for finished in noted)
        done = {} if is_set_back else {finished.offset: finished.leader_epoch for finished in noted}
        for offset in self.prior_attempts_of(key):
            done.pop(offset, None)
        if done or ahead:
            self._done[key] = (done, ahead)
        else:
            self._done.pop(key, None)

    def sort(self, key: TopicPartition, records: list[Record]) -> tuple[list[Record], list[Record]]:
        """Return the records to handle, and those that are done already."""
        if key not in self._done:
            return records, []
        done, ahead = self._done[key]
        flags = [
            done.get(record.offset) == record.leader_epoch or ahead.has(record.offset, record.leader_epoch)
            for record in records
        ]
        fresh = [record for record, is_done in zip(records, flags, strict=True) if not is_done]
        return fresh, list(itertools.compress(records, flags))


def spot_of(record: Record) -> Spot:
    return (record.topic, record.partition, record.offset)
