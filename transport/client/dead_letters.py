"""Dead letters as an operator meets them: read, counted by reason, picked out. Pure but for asking the broker.

The headers are those that hosted subscribers write. A letter that says nothing of where it came from (somebody else
published it) is shown all the same. Called by redrive.py and the command line.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec import UNSET, Struct

from ..batch import split
from ..fetched_records import is_for_readers
from .admin import Admin
from .messages import Message, messages_of, verify_batch

PREFIX = "dead-letter-"
REDRIVES = f"{PREFIX}redrives"
REDRIVEN_FROM = f"{PREFIX}redriven-from"
FETCH_BYTES = 4 * 1024 * 1024


class DeadLetter(Struct, frozen=True):
    """One letter, with what its headers tell. What they do not tell is None or 0."""

    message: Message
    topic: str | None
    partition: int | None
    offset: int | None
    timestamp_ms: int | None
    group: str | None
    failures: int
    deliveries: int
    first_failure_ms: int
    last_failure_ms: int
    reason: str
    exception: str | None
    traceback: str | None
    exit: str | None
    redrives: int

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset of the letter itself."""
        return self.message.partition, self.message.offset

    @property
    def failed_ms(self) -> int:
        return self.last_failure_ms or self.message.timestamp


class LetterFilter(Struct, frozen=True, kw_only=True):
    """Which letters are meant; all conditions must hold."""

    reason: str | None = None
    """Found in the reason or in the exception's type, upper and lower case alike."""
    group: str | None = None
    since_ms: int | None = None
    """Failed at this time or later."""
    places: frozenset[tuple[int, int]] | None = None
    """These partitions and offsets of the dead-letter topic."""

    def matches(self, letter: DeadLetter) -> bool:
        told = f"{letter.reason}\n{letter.exception or ''}".lower()
        return (
            (self.reason is None or self.reason.lower() in told)
            and (self.group is None or self.group == letter.group)
            and (self.since_ms is None or letter.failed_ms >= self.since_ms)
            and (self.places is None or letter.place in self.places)
        )


def letter_of(message: Message) -> DeadLetter:
    """What a message of a dead-letter topic says. A header that is no number counts as missing."""
    headers = message.headers or {}

    def number(name: str) -> int | None:
        text = headers.get(PREFIX + name, "")
        return int(text) if re.fullmatch(r"-?[0-9]{1,19}", text) else None

    return DeadLetter(
        message=message,
        topic=headers.get(f"{PREFIX}topic"),
        partition=number("partition"),
        offset=number("offset"),
        timestamp_ms=number("timestamp"),
        group=headers.get(f"{PREFIX}group"),
        failures=number("failures") or 0,
        deliveries=number("deliveries") or 0,
        first_failure_ms=number("first-failure") or 0,
        last_failure_ms=number("last-failure") or 0,
        reason=headers.get(f"{PREFIX}reason", ""),
        exception=headers.get(f"{PREFIX}exception"),
        traceback=headers.get(f"{PREFIX}traceback"),
        exit=headers.get(f"{PREFIX}exit"),
        redrives=number("redrives") or 0,
    )


def is_letter(message: Message) -> bool:
    """Whether the message has any header of a dead letter."""
    return any(name.startswith(PREFIX) for name in message.headers or {})


def read_letters(client: Admin, topic: str) -> Iterator[DeadLetter]:
    """Every letter that is there now, partition by partition."""
    for partition in range(len(client.describe_topic(topic).partitions)):
        for message in read_partition(client, topic, partition):
            yield letter_of(message)


def read_partition(client: Admin, topic: str, partition: int, start: int = 0) -> Iterator[Message]:
    """The messages from `start`, or the log's start if that is later, to what is its end now."""
    end = client.list_offsets(topic, partition, isolation="read_committed").offset
    offset = max(start, client.list_offsets(topic, partition, "earliest").offset)
    while offset < end:
        reply, payload = client.fetch(topic, partition, offset, max_bytes=FETCH_BYTES)
        aborted = () if reply.aborted is UNSET else reply.aborted
        left_out = {(each.producer_id, each.producer_epoch) for each in aborted}
        for run in payload:
            for _, frame in split(run):
                header = verify_batch(topic, partition, frame, offset)
                if is_for_readers(header, left_out):
                    found = messages_of(topic, partition, header, frame, offset)
                    yield from (message for message in found if message.offset < end)
        if reply.next_offset <= offset:
            return
        offset = reply.next_offset


def histogram(letters: Iterable[DeadLetter]) -> list[tuple[str, int]]:
    """How often each reason is there, the most frequent first. Numbers in reasons are alike."""
    counts = Counter(re.sub(r"\d+", "N", letter.reason) or "(none)" for letter in letters)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
