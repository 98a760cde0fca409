"""The delivery strategies: when a record's offset is committed, and the consequences. Pure.

                     at-least-once, exactly-once            at-most-once
    committed        after the handler has finished         before the handler is called
    a crash          repeats the uncommitted records        loses the committed records not handled yet
    a failure        is retried, then dead-lettered         is dead-lettered, never retried
    a revocation     drops the records not handled yet      handles all committed records: no other member will
    a stop           drops the records not handled yet      handles committed records, until the deadline

The machine calls the strategy and knows no delivery by name. Exactly-once is at-least-once whose commits include the
handler's messages and the dead letters: a repeat finds no output of the first attempt (committing.py). So the outputs
of records beyond the committed offset are published when the offset passes these, and no sooner: the partition may be
assigned to a member that reads only offsets, a program in any language, which would produce the same outputs again.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from ...transport.addresses import TopicPartition
from .effects import Offsets, Record
from .partitions import Partition


class DeliveryStrategy(Protocol):
    @property
    def may_retry(self) -> bool:
        """True if a record may be given to the handler a second time."""
        ...

    @property
    def keeps_held_records(self) -> bool:
        """True if records held at a revocation or a stop must still be handled here."""
        ...

    @property
    def records_ahead(self) -> bool:
        """True if a commit's metadata lists the progress beyond its offset, for members that can read it."""
        ...

    def before_handling(self, records: Sequence[Record]) -> Offsets:
        """Return the offsets to commit before any of these records is handled; empty for none."""
        ...

    def after_handling(self, partitions: Iterable[Partition]) -> Offsets:
        """Return the offsets that may be committed now that some records are done."""
        ...


class AtLeastOnce:
    may_retry = True
    keeps_held_records = False
    records_ahead = True

    def before_handling(self, records: Sequence[Record]) -> Offsets:
        return {}

    def after_handling(self, partitions: Iterable[Partition]) -> Offsets:
        done = ((partition.key, partition.done_offset) for partition in partitions)
        return {key: offset for key, offset in done if offset is not None}


class ExactlyOnce(AtLeastOnce):
    records_ahead = False


class AtMostOnce:
    may_retry = False
    keeps_held_records = True
    records_ahead = False

    def before_handling(self, records: Sequence[Record]) -> Offsets:
        return ends(records)

    def after_handling(self, partitions: Iterable[Partition]) -> Offsets:
        return {}


STRATEGIES: dict[str, DeliveryStrategy] = {
    "at-least-once": AtLeastOnce(),
    "at-most-once": AtMostOnce(),
    "exactly-once": ExactlyOnce(),
}


def ends(records: Sequence[Record]) -> Offsets:
    """Return, by partition, the offset after the last of these records, which are in order by partition."""
    return {key_of(record): record.offset + 1 for record in records}


def beginnings(records: Sequence[Record]) -> Offsets:
    """Return, by partition, the offset of the first of these records."""
    return {key_of(record): record.offset for record in reversed(records)}


def key_of(record: Record) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)
