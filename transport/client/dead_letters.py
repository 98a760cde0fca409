"""Dead letters for operators: read from a topic, counted by reason, selected. Its only IO is requests to the broker.

The format is `transport/dead_letters.py`. Messages without these headers, published by another program, are included.
Called by redrive.py and the command line.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import asdict

from ..addresses import TopicPartition
from ..dead_letters import DeadLetterHeaders, decode
from ..fetched_records import is_for_readers
from ..log_access.reader import PartitionReader
from .admin import Admin
from .messages import Message, messages_of, verify_batch

FETCH_BYTES = 4 * 1024 * 1024


class DeadLetter(DeadLetterHeaders, frozen=True, kw_only=True):
    """One dead letter: its message and its headers, decoded."""

    message: Message

    @property
    def position(self) -> tuple[int, int]:
        """Partition and offset of the letter itself."""
        return self.message.partition, self.message.offset

    @property
    def failed_ms(self) -> int:
        return self.last_failure_ms or self.message.timestamp


class LetterFilter(Struct, frozen=True, kw_only=True):
    """Conditions that select letters; all of them must hold."""

    reason: str | None = None
    """Text contained in the reason or in the exception's type, ignoring case."""
    group: str | None = None
    since_ms: int | None = None
    """Failed at this time or later."""
    positions: frozenset[tuple[int, int]] | None = None
    """These partitions and offsets of the dead-letter topic."""

    def matches(self, letter: DeadLetter) -> bool:
        text = f"{letter.reason}\n{letter.exception or ''}".lower()
        return (
            (self.reason is None or self.reason.lower() in text)
            and (self.group is None or self.group == letter.group)
            and (self.since_ms is None or letter.failed_ms >= self.since_ms)
            and (self.positions is None or letter.position in self.positions)
        )


def letter_of(message: Message) -> DeadLetter:
    """Decode a message of a dead-letter topic. A malformed number in a header counts as missing."""
    return DeadLetter(message=message, **asdict(decode(message.headers or {})))


def read_letters(client: Admin, topic: str, newest: int | None = None) -> Iterator[DeadLetter]:
    """Yield every letter that exists now, partition by partition; with `newest` those of the last so many messages of
    each."""
    for partition in range(len(client.describe_topic(topic).partitions)):
        start = 0
        if newest is not None:
            start = max(0, client.list_offsets(topic, partition, isolation="read_committed").offset - newest)
        for message in read_partition(client, topic, partition, start):
            yield letter_of(message)


def read_partition(client: Admin, topic: str, partition: int, start: int = 0) -> Iterator[Message]:
    """Yield the messages from `start`, or the log start if that is later, to the present log end."""
    end = client.list_offsets(topic, partition, isolation="read_committed").offset
    first = max(start, client.list_offsets(topic, partition, "earliest").offset)
    reader = PartitionReader(TopicPartition(topic, partition), first)
    while first < end:
        fetched = reader.on_fetched(*client._fetch(topic, partition, first, max_bytes=FETCH_BYTES))
        for _, frame in fetched.batches():
            header = verify_batch(topic, partition, frame, first)
            if is_for_readers(header, fetched.aborted):
                found = messages_of(topic, partition, header, frame, first)
                yield from (message for message in found if message.offset < end)
        if not fetched.has_moved:
            return
        first = fetched.next_offset


def histogram(letters: Iterable[DeadLetter]) -> list[tuple[str, int]]:
    """Count the letters of each reason, most frequent first. Reasons that differ only in numbers are
    counted together."""
    counts = Counter(re.sub(r"\d+", "N", letter.reason) or "(none)" for letter in letters)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
