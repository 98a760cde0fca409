"""What others have left: attempts, finished records and suspects, and the progress of a partition's last owner. Pure.

A record that an earlier incarnation finished without committing it is not handled again. Its word counts only as long as
the group's offset has not been set back since: a partition that begins before the offset that was committed when the
record was started is being read anew on purpose. Nor does it count, as nothing does that was noted, in another lineage of
the partition or for a record of another leader epoch (lineage.py).
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
    """A record that was handled and perhaps not committed."""

    topic: str
    partition: int
    offset: int
    committed: int
    """The group's offset, as far as known, when it was started."""
    leader_epoch: int = 0
    lineage: bytes = UNTRACED


class Suspect(Struct, frozen=True):
    """A record that was at hand, with others, when the process ended."""

    topic: str
    partition: int
    offset: int
    leader_epoch: int = 0
    lineage: bytes = UNTRACED

    @property
    def spot(self) -> Spot:
        return (self.topic, self.partition, self.offset)


class RecoveredState(Struct, frozen=True):
    """What a flight recorder says when it is opened."""

    prior_attempts: Sequence[PriorAttempt] = ()
    finished: Sequence[Finished] = ()
    suspects: Sequence[Suspect] = ()


NOTHING_RECOVERED = RecoveredState()


class Memory:
    """The past, as long as it matters."""

    def __init__(self, recovered: RecoveredState) -> None:
        self._prior_attempts: dict[TopicPartition, dict[int, PriorAttempt]] = {}
        self._finished: dict[TopicPartition, list[Finished]] = {}
        self._done: dict[TopicPartition, tuple[dict[int, int], Ahead]] = {}
        """The leader epochs of finished records by offset, and what the last owner had done."""
        self._lineages: dict[TopicPartition, bytes] = {}
        for prior_attempt in recovered.prior_attempts:
            self.prior_attempt(prior_attempt)
        for finished in recovered.finished:
            self._finished.setdefault(TopicPartition(finished.topic, finished.partition), []).append(finished)

    def learn(self, lineages: Mapping[TopicPartition, bytes]) -> None:
        """What partitions belong to that are new here."""
        self._lineages.update(lineages)

    def lineage(self, key: TopicPartition) -> bytes:
        return self._lineages.get(key, UNTRACED)

    def clear(self) -> None:
        """It matters no more."""
        self._prior_attempts.clear()
        self._finished.clear()
        self._done.clear()

    def prior_attempt(self, prior_attempt: PriorAttempt) -> None:
        self._prior_attempts.setdefault(prior_attempt.key, {})[prior_attempt.offset] = prior_attempt

    def prior_attempts(self) -> list[PriorAttempt]:
        return [
            prior_attempt
            for prior_attempts in self._prior_attempts.values()
            for prior_attempt in prior_attempts.values()
        ]

    def charged(self, key: TopicPartition) -> Mapping[int, PriorAttempt]:
        """By offset."""
        return self._prior_attempts.get(key) or {}

    def take_charge(self, record: Record) -> PriorAttempt | None:
        """The record's charge, or one that is void: of another record at its offset."""
        prior_attempts = self._prior_attempts.get(TopicPartition(record.topic, record.partition))
        return prior_attempts.pop(record.offset, None) if prior_attempts else None

    def take_charges_before(self, key: TopicPartition, offset: int) -> Iterator[PriorAttempt]:
        """Those of records that the group has passed."""
        for at in [at for at in self._prior_attempts.get(key) or () if at < offset]:
            yield self._prior_attempts[key].pop(at)

    def take_void_charges(self, key: TopicPartition) -> list[PriorAttempt]:
        """Those of another lineage."""
        prior_attempts, lineage = self._prior_attempts.get(key, {}), self.lineage(key)
        return [
            prior_attempts.pop(each.offset)
            for each in list(prior_attempts.values())
            if each.lineage != lineage
        ]

    def begin(self, key: TopicPartition, position: int, ahead: Ahead) -> None:
        """The partition is read from `position` on; its last owner had done what is `ahead`."""
        noted = [each for each in self._finished.get(key, ()) if each.lineage == self.lineage(key)]
        is_set_back = any(finished.committed > position for finished in noted)
        done = {} if is_set_back else {finished.offset: finished.leader_epoch for finished in noted}
        for offset in self.charged(key):
            done.pop(offset, None)
        if done or ahead:
            self._done[key] = (done, ahead)
        else:
            self._done.pop(key, None)

    def sort(self, key: TopicPartition, records: list[Record]) -> tuple[list[Record], list[Record]]:
        """Those to be handled, and those that are done already."""
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
