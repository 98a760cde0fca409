"""The recorder: appends decided changes to the log, and holds the answers that wait for them.

Owns the order: changes of one flush become one or more batches under the actor's identity, are sent one after the
other, and return as Durable in the same order. The records of one change are never divided between two batches. Must
never send an answer before all changes of its flush are durable. Called by the actor's machine, which flushes and
defines its changes and its waiting answers.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct

from ...transport.batch import SEQUENCE_LIMIT, Record, build, parse_header
from ...transport.machine import Effect, Event, Sender
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Reply
from .appender import Appender
from .identity import JournalIdentity
from .mark import LogMark

MAX_BATCH_BYTES = 512 * 1024
"""Longest batch, keys and values: half of a topic's default maximum."""
MAX_GATHERED = 200_000
"""Most changes waiting for the append before them; beyond, requests are refused OVERLOADED."""
MAX_WAITING = 4_000
"""Most answers waiting for changes to become durable; beyond, requests are refused OVERLOADED."""


class Waiting(Struct, frozen=True):
    """An answer to send once its changes are durable."""

    sender: Sender
    body: Reply


ChangeT = TypeVar("ChangeT")
AnswerT = TypeVar("AnswerT")


class Durable(NamedTuple, Generic[ChangeT, AnswerT]):
    changes: list[ChangeT]
    waiting: list[AnswerT]
    mark: LogMark


class _Batch(NamedTuple, Generic[ChangeT, AnswerT]):
    frame: bytes
    changes: list[ChangeT]
    waiting: list[AnswerT]


class Recorder(Generic[ChangeT, AnswerT]):
    def __init__(
        self,
        appender: Appender,
        identity: JournalIdentity,
        next_sequence: int,
        encode: Callable[[ChangeT], Sequence[Record]],
    ) -> None:
        self._appender = appender
        self._identity = identity
        self._next_sequence = next_sequence
        self._encode = encode
        self._batches: deque[_Batch[ChangeT, AnswerT]] = deque()
        self._waiting: list[AnswerT] = []

    @property
    def is_idle(self) -> bool:
        """True if the next flush may start."""
        return not self._batches

    def check_room(self, gathered: int) -> None:
        """Raise ProtocolError if another request would have to wait behind too many."""
        waiting = len(self._waiting) + sum(len(batch.waiting) for batch in self._batches)
        if gathered >= MAX_GATHERED or waiting >= MAX_WAITING:
            message = f"{waiting} requests wait for records to become durable"
            raise ProtocolError(ErrorCode.OVERLOADED, message)

    def wait(self, answer: AnswerT, *, is_gathered: bool) -> None:
        """Hold an answer until the next flush is durable, or, with no changes gathered, until the last one is."""
        if is_gathered:
            self._waiting.append(answer)
        else:
            self._batches[-1].waiting.append(answer)

    def flush(self, changes: list[ChangeT], now: int) -> list[Effect]:
        assert changes, "a flush has changes"
        assert not self._batches, "one flush is outstanding at a time"
        start = 0
        encoded = [self._encode(change) for change in changes]
        while start < len(encoded):
            end = _cut(encoded, start)
            records = [record for group in encoded[start:end] for record in group]
            self._batches.append(_Batch(self._build(records, now), changes[start:end], []))
            start = end
        self._batches[-1].waiting.extend(self._waiting)
        self._waiting = []
        return self._appender.append(self._batches[0].frame)

    def handle(self, event: Event, now: int) -> tuple[list[Effect], Durable[ChangeT, AnswerT] | None]:
        effects, base_offset = self._appender.handle(event, now)
        if base_offset is None:
            return effects, None
        batch = self._batches.popleft()
        if self._batches:
            effects += self._appender.append(self._batches[0].frame)
        header = parse_header(batch.frame)
        mark = LogMark(base_offset, header.crc32c, base_offset + header.record_count)
        return effects, Durable(batch.changes, batch.waiting, mark)

    def _build(self, records: list[Record], now: int) -> bytes:
        frame = build(
            records,
            first_timestamp_ms=now,
            max_timestamp_ms=now,
            producer_id=self._identity.producer_id,
            producer_epoch=self._identity.epoch,
            base_sequence=self._next_sequence,
        )
        self._next_sequence = (self._next_sequence + len(records)) % SEQUENCE_LIMIT
        return frame


def _cut(encoded: list[Sequence[Record]], start: int) -> int:
    """Return the end of the batch that begins at `start`: at least one change, and no more bytes than allowed."""
    size_bytes = 0
    for end in range(start, len(encoded)):
        size_bytes += sum(len(key or b"") + len(value or b"") + 8 for key, value, _, _ in encoded[end])
        if size_bytes > MAX_BATCH_BYTES and end > start:
            return end
    return len(encoded)
