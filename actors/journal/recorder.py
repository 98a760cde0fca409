"""The recorder: appends decided changes to the log, and holds the replies that wait for them. Pure.

Owns the order: changes of one flush become one or more batches under the actor's identity, are sent one after the
other, and return as Durable in the same order. The records of one change are never divided between two batches. Must
never release a reply before all changes of its flush are durable. An answer that is more than a reply (AnswerT) is
returned with the changes. Called by machine.py, which flushes, and by the service, which decides.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from ...transport.batch import SEQUENCE_LIMIT, Record, build, parse_header
from ...transport.machine import LoopEffect, LoopEvent, Reply, Sender
from ...transport.protocol.message import Reply as ReplyBody
from .appender import Appender
from .identity import JournalIdentity
from .room import check_share
from .snapshot import LogMark

MAX_BATCH_BYTES = 512 * 1024
"""Longest batch, keys and values: half of a topic's default maximum."""
MAX_GATHERED = 400_000
"""Most changes waiting for the append before them; shared by the connections (room.py)."""
MAX_WAITING = 8_000
"""Most answers waiting for changes to become durable; shared by the connections (room.py)."""


class HasSender(Protocol):
    """A request that is answered later."""

    @property
    def sender(self) -> Sender: ...


ChangeT = TypeVar("ChangeT")
AnswerT = TypeVar("AnswerT", bound=HasSender)


class Durable(Struct, Generic[ChangeT, AnswerT], frozen=True):
    changes: list[ChangeT]
    answers: list[AnswerT]
    """Answers that waited for them; replies have been sent."""
    mark: LogMark


class _Batch(Struct, Generic[ChangeT, AnswerT], frozen=True):
    frame: bytes
    changes: list[ChangeT]
    waiting: list[Reply | AnswerT]


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
        self._waiting: list[Reply | AnswerT] = []
        self._answers: dict[bytes, int] = {}
        """Answers that wait, by connection."""
        self._answer_count = 0
        self._changes: dict[bytes, int] = {}
        """Changes gathered for the next flush, by the connection of the request before them."""
        self._change_count = 0
        self._last_connection = b""

    @property
    def is_idle(self) -> bool:
        """True if the next flush may start."""
        return not self._batches

    def check_room(self, sender: Sender, gathered: int) -> None:
        """Raise ProtocolError if another request of this connection would have to wait behind too many.

        `gathered` changes wait for the next flush.
        """
        if gathered > self._change_count:
            before, last = self._change_count, self._last_connection
            self._changes[last] = self._changes.get(last, 0) + gathered - before
            self._change_count = gathered
        self._last_connection = connection = sender.route[0]
        answers, changes = self._answers.get(connection, 0), self._changes.get(connection, 0)
        check_share(answers, self._answer_count, MAX_WAITING, "requests wait for durable records")
        check_share(changes, gathered, MAX_GATHERED, "changes wait to be recorded")

    def reply(self, to: Sender, body: ReplyBody, *, is_gathered: bool) -> list[LoopEffect]:
        """Reply once all decisions are durable, which may be now."""
        if not is_gathered and self.is_idle:
            return [Reply(to, body)]
        self.wait(Reply(to, body), is_gathered=is_gathered)
        return []

    def wait(self, answer: Reply | AnswerT, *, is_gathered: bool) -> None:
        """Hold an answer until the next flush is durable, or, with no changes gathered, until the last one is."""
        connection = _connection_of(answer)
        self._answers[connection] = self._answers.get(connection, 0) + 1
        self._answer_count += 1
        if is_gathered:
            self._waiting.append(answer)
        else:
            self._batches[-1].waiting.append(answer)

    def flush(self, changes: list[ChangeT], now: int) -> list[LoopEffect]:
        assert changes, "a flush has changes"
        assert not self._batches, "one flush is outstanding at a time"
        self._changes.clear()
        self._change_count = 0
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

    def handle(self, event: LoopEvent) -> tuple[list[LoopEffect], Durable[ChangeT, AnswerT] | None]:
        base_offset = self._appender.handle(event)
        if base_offset is None:
            return [], None
        batch = self._batches.popleft()
        effects = self._appender.append(self._batches[0].frame) if self._batches else []
        header = parse_header(batch.frame)
        mark = LogMark(base_offset, header.crc32c, base_offset + header.record_count)
        answers: list[AnswerT] = []
        for answer in batch.waiting:
            self._release(_connection_of(answer))
            if isinstance(answer, Reply):
                effects.append(answer)
            else:
                answers.append(answer)
        return effects, Durable(batch.changes, answers, mark)

    def _release(self, connection: bytes) -> None:
        self._answer_count -= 1
        self._answers[connection] -= 1
        if not self._answers[connection]:
            del self._answers[connection]

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


def _connection_of(answer: Reply | HasSender) -> bytes:
    return (answer.to if isinstance(answer, Reply) else answer.sender).route[0]


def _cut(encoded: list[Sequence[Record]], start: int) -> int:
    """Return the end of the batch that begins at `start`: at least one change, and no more bytes than allowed."""
    if len(encoded) == start + 1:
        return start + 1
    size_bytes = 0
    for end in range(start, len(encoded)):
        size_bytes += sum(len(key or b"") + len(value or b"") + 8 for key, value, _, _ in encoded[end])
        if size_bytes > MAX_BATCH_BYTES and end > start:
            return end
    return len(encoded)
