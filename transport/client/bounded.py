"""A bounded read: of each partition the records from one offset to another, which was its end when the read began. Pure.

Owns the offsets at which partitions end. A partition is finished when the reader's position has reached its end,
with or without a record there: compaction, aborted transactions and retention leave offsets without one. A part that
has no record then still ends the wait of its poll. Called by `reading.py` and `aio/reading.py`.
"""

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from ..addresses import TopicPartition
from .consuming import Consuming
from .errors import TopicReplaced
from .messages import Message

MESSAGES_A_PART = 500


class Span(Struct, frozen=True):
    """The offsets of a partition that are read."""

    start: int | None
    """None: from the beginning of the log."""
    end: int
    """The first offset that is not read."""
    topic_id: str | None = None

    @property
    def is_empty(self) -> bool:
        return self.end <= (self.start or 0)


class Part(NamedTuple):
    """Messages of a bounded read, the next ones."""

    messages: list[Message]
    is_last: bool


class BoundedRead:
    def __init__(self, spans: Mapping[TopicPartition, Span]) -> None:
        self._spans = {tp: span for tp, span in spans.items() if not span.is_empty}

    @property
    def starts(self) -> dict[TopicPartition, int | None]:
        """The partitions that are not finished, and where to begin."""
        return {tp: span.start for tp, span in self._spans.items()}

    @property
    def ends(self) -> dict[TopicPartition, int]:
        """The partitions that are not finished, and where they end."""
        return {tp: span.end for tp, span in self._spans.items()}

    def lower(self, ends: Mapping[TopicPartition, int]) -> None:
        """Take lower ends: records that a power failure has taken do not come any more."""
        for tp, end in ends.items():
            self._spans[tp] = replace(self._spans[tp], end=end)

    def take(self, machine: Consuming) -> list[Part]:
        """Return the next part; none while there is nothing to return. Raises TopicReplaced."""
        reader = machine.reader
        messages = reader.take(MESSAGES_A_PART)
        finished: set[TopicPartition] = set()
        for tp, span in self._spans.items():
            topic_id, _ = reader.origin(tp)
            if topic_id is not None and span.topic_id is not None and topic_id != span.topic_id:
                raise TopicReplaced("UNKNOWN_TOPIC_ID", f"topic {tp.topic!r} was created again")
            position = reader.position(tp)
            if position is not None and position >= span.end:
                finished.add(tp)
        if finished:
            messages = [each for each in messages if each.offset < self._spans[each.topic_partition].end]
            machine.release(finished)
            for tp in finished:
                del self._spans[tp]
        is_last = not self._spans
        return [Part(messages, is_last)] if messages or is_last else []
