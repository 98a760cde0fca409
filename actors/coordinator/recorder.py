"""Decided, recorded, applied: changes on their way into the log, and the answers that wait for them.

Owns the order: changes of one flush become one or more batches under the coordinator's identity, go out one after the
other, and come back as Durable in the same order. Must never let an answer go before all changes of its flush are
durable. Called by machine.py, which flushes, and serving.py, whose answers wait.
"""

from collections import deque
from typing import NamedTuple

from msgspec import Struct

from ...transport.batch import SEQUENCE_LIMIT, Record, build, parse_header
from ...transport.machine import Effect, Event, Sender
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Reply
from ..journal.appender import Appender
from ..journal.identity import Identity
from ..journal.mark import LogMark
from .parked import ParkedHeartbeat
from .records import Change, encode

MAX_BATCH_BYTES = 512 * 1024
"""Of keys and values: half of what a topic accepts unless it is told otherwise."""
MAX_GATHERED = 200_000
"""Changes waiting for the append before them; beyond, requests are refused OVERLOADED."""
MAX_WAITING = 4_000
"""Answers waiting for changes to become durable; beyond, requests are refused OVERLOADED."""


class Waiting(Struct, frozen=True):
    """An answer to give once what it tells of is durable."""

    sender: Sender
    body: Reply


class Durable(NamedTuple):
    changes: list[Change]
    waiting: list[Waiting | ParkedHeartbeat]
    mark: LogMark


class _Batch(NamedTuple):
    frame: bytes
    changes: list[Change]
    waiting: list[Waiting | ParkedHeartbeat]


class Recorder:
    def __init__(self, appender: Appender, identity: Identity, next_sequence: int) -> None:
        self._appender = appender
        self._identity = identity
        self._next_sequence = next_sequence
        self._batches: deque[_Batch] = deque()
        self._waiting: list[Waiting | ParkedHeartbeat] = []

    @property
    def is_idle(self) -> bool:
        """Whether the next flush may go."""
        return not self._batches

    def check_room(self, gathered: int) -> None:
        """Raises ProtocolError when another request would have to wait behind too many."""
        waiting = len(self._waiting) + sum(len(batch.waiting) for batch in self._batches)
        if gathered >= MAX_GATHERED or waiting >= MAX_WAITING:
            message = f"{waiting} requests wait for the group's records to become durable"
            raise ProtocolError(ErrorCode.OVERLOADED, message)

    def wait(self, answer: Waiting | ParkedHeartbeat, *, is_gathered: bool) -> None:
        """Hold an answer: until the next flush is durable, or with nothing gathered, until the last one is."""
        if is_gathered:
            self._waiting.append(answer)
        else:
            self._batches[-1].waiting.append(answer)

    def flush(self, changes: list[Change], now: int) -> list[Effect]:
        assert changes, "a flush has something to say"
        assert not self._batches, "one flush is outstanding at a time"
        start = 0
        records = [encode(change) for change in changes]
        while start < len(records):
            end = _cut(records, start)
            self._batches.append(_Batch(self._build(records[start:end], now), changes[start:end], []))
            start = end
        self._batches[-1].waiting.extend(self._waiting)
        self._waiting = []
        return self._appender.append(self._batches[0].frame)

    def handle(self, event: Event, now: int) -> tuple[list[Effect], Durable | None]:
        effects, base_offset = self._appender.handle(event, now)
        if base_offset is None:
            return effects, None
        batch = self._batches.popleft()
        if self._batches:
            effects += self._appender.append(self._batches[0].frame)
        mark = LogMark(base_offset, parse_header(batch.frame).crc32c)
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


def _cut(records: list[Record], start: int) -> int:
    """The end of the batch that begins at `start`: at least one record, and no more bytes than allowed."""
    size_bytes = 0
    for end in range(start, len(records)):
        key, value, _, _ = records[end]
        size_bytes += len(key or b"") + len(value or b"") + 8
        if size_bytes > MAX_BATCH_BYTES and end > start:
            return end
    return len(records)
