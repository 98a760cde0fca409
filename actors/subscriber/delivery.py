"""The delivery strategies: when a record's offset is committed, and what follows from that. Pure.

                     at-least-once, exactly-once            at-most-once
    committed        after the handler has finished         before the handler is called
    a crash          repeats what was not yet committed     loses what was committed and not yet handled
    a failure        is tried again, then dead-lettered     is dead-lettered, never tried again
    a revocation     drops what is not yet handled          handles what is committed to the end: nobody else will
    a stop           drops what is not yet handled          handles what is committed, until the deadline

The machine asks the strategy and knows no delivery by name. Exactly-once is at-least-once whose commits take along what
the handler published and the dead letters: a repeat finds nothing of the first time (committing.py). So what is done
beyond the committed offset is published when the offset passes it, and no sooner: a partition may go to a member that
knows offsets alone, a program in any language, which would make it once more.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from ...transport.addresses import TopicPartition
from .effects import Offsets, Record
from .partitions import Partition


class DeliveryStrategy(Protocol):
    @property
    def tries_again(self) -> bool:
        """Whether a record may be given to the handler a second time."""
        ...

    @property
    def keeps_what_it_holds(self) -> bool:
        """Whether records held at a revocation or a stop are still to be handled here."""
        ...

    @property
    def tells_ahead(self) -> bool:
        """Whether a commit says what is done beyond its offset, for those who can read it."""
        ...

    def before_handling(self, records: Sequence[Record]) -> Offsets:
        """What must be committed before any of these is handled; empty: nothing."""
        ...

    def after_handling(self, partitions: Iterable[Partition]) -> Offsets:
        """What may be committed now that some records are done."""
        ...


class AtLeastOnce:
    tries_again = True
    keeps_what_it_holds = False
    tells_ahead = True

    def before_handling(self, records: Sequence[Record]) -> Offsets:
        return {}

    def after_handling(self, partitions: Iterable[Partition]) -> Offsets:
        done = ((partition.key, partition.done_offset) for partition in partitions)
        return {key: offset for key, offset in done if offset is not None}


class ExactlyOnce(AtLeastOnce):
    tells_ahead = False


class AtMostOnce:
    tries_again = False
    keeps_what_it_holds = True
    tells_ahead = False

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
    """By partition, the offset after the last of these records, which are in order by partition."""
    return {key_of(record): record.offset + 1 for record in records}


def beginnings(records: Sequence[Record]) -> Offsets:
    """By partition, the offset of the first of these records."""
    return {key_of(record): record.offset for record in reversed(records)}


def key_of(record: Record) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)
