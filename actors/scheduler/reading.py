"""The contents of pending messages, read back from the scheduler's partition of `__delayed`. Pure.

Owns one job at a time: entries in, the messages found in the same order out. Neighbours in the log are read in one
sweep, up to SWEEPS of them side by side. A job that exceeds its byte limit ends early, with the messages found before
the first gap and the remaining entries. Messages dropped by compaction are not found: they were cancelled. Called by
moves.py.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from ...transport.addresses import Address, TopicPartition, partition_address
from ...transport.batch import InvalidBatch
from ...transport.compression import Buffer
from ...transport.log_access.reader import PartitionReader, StoredBatch
from ...transport.machine import Answered, Call, Failed, LoopEffect, LoopEvent
from ...transport.protocol.data import FetchReply
from ..journal.identity import start_of
from .pending_messages import offset_of
from .records import Message, MessageKey, decode_key, decode_message

SWEEPS = 8
FETCH_BYTES = 256 * 1024
GAP = 256
"""Offsets between two wanted messages beyond which another sweep begins."""


class Unreadable(RuntimeError):
    """The scheduler's own records cannot be read."""


class SweepCall(Struct, frozen=True):
    """The fetch of a sweep, by the sweep's number."""

    sweep: int


class ReadMessage(NamedTuple):
    entry: int
    scheduled_id: str
    message: Message


class ReadJob(NamedTuple):
    """A read request and its result."""

    target: TopicPartition | None
    """The target whose intent is read again; None for due messages."""
    found: list[ReadMessage]
    unread: list[int]
    """Entries that were not read because of the byte limit."""


class _Sweep(Struct, eq=False):
    reader: PartitionReader
    unread: list[int]
    """Offsets of messages, rising."""


class MessageReading:
    def __init__(self, address: Address, tp: TopicPartition) -> None:
        self._address = address
        """The scheduler's own address; records of other writers do not count."""
        self._tp = tp
        self._target: TopicPartition | None = None
        self._entries: Sequence[int] = ()
        self._found: dict[int, ReadMessage] = {}
        self._sweeps: list[_Sweep] = []
        self._next_sweep = 0
        self._size_bytes = 0
        self._most_bytes: int | None = None
        self._in_flight = 0

    @property
    def is_idle(self) -> bool:
        return not self._entries

    @property
    def _has_room(self) -> bool:
        return self._most_bytes is None or self._size_bytes < self._most_bytes

    def begin(
        self, target: TopicPartition | None, entries: Sequence[int], most_bytes: int | None = None
    ) -> list[LoopEffect]:
        """Begin a job. `most_bytes`: the limit for keys and values; None reads all."""
        assert self.is_idle, "one job runs at a time"
        assert entries, "a job needs at least one entry"
        self._target, self._entries = target, entries
        self._most_bytes = most_bytes
        self._found, self._size_bytes = {}, 0
        # The first entry begins a sweep, so that a job with much to read finds at least that one.
        first = offset_of(entries[0])
        offsets = sorted(offset_of(entry) for entry in entries)
        runs = [
            *_near([offset for offset in offsets if offset >= first]),
            *_near([offset for offset in offsets if offset < first]),
        ]
        self._sweeps = [_Sweep(PartitionReader(self._tp, isolation="read_uncommitted"), run) for run in runs]
        self._next_sweep = self._in_flight = 0
        return self._start_sweeps()

    def handle(self, event: LoopEvent) -> tuple[list[LoopEffect], ReadJob | None]:
        """Return effects, and the job when it is done."""
        match event:
            case Answered(key=SweepCall(sweep=sweep)):
                self._in_flight -= 1
                effects = self._on_read(sweep, event.reply, event.payload)
                effects += self._start_sweeps()
                return effects, self._done()
            case Failed(key=SweepCall(), error=error):
                raise Unreadable(f"{partition_address(*self._tp)}: {error.code}: {error.message}")
        return [], None

    def _start_sweeps(self) -> list[LoopEffect]:
        effects: list[LoopEffect] = []
        while self._in_flight < SWEEPS and self._next_sweep < len(self._sweeps) and self._has_room:
            effects.append(self._fetch(self._next_sweep))
            self._next_sweep += 1
        return effects

    def _fetch(self, number: int) -> Call:
        self._in_flight += 1
        sweep = self._sweeps[number]
        sweep.reader.seek(sweep.unread[0])
        return sweep.reader.fetch(SweepCall(number), max_bytes=FETCH_BYTES, is_endless=True)

    def _on_read(self, number: int, reply: FetchReply, payload: Sequence[Buffer]) -> list[LoopEffect]:
        sweep = self._sweeps[number]
        wanted = set(sweep.unread)
        fetched = sweep.reader.on_fetched(reply, payload)
        for batch in fetched.batches():
            if not wanted.isdisjoint(range(batch.header.base_offset, batch.header.next_offset)):
                self._take(batch, wanted)
        # Advance by at least one, or a message dropped by compaction would be requested forever.
        reached = max(fetched.next_offset, sweep.unread[0] + 1)
        del sweep.unread[: bisect_left(sweep.unread, reached)]
        return [self._fetch(number)] if sweep.unread and self._has_room else []

    def _take(self, batch: StoredBatch, wanted: set[int]) -> None:
        header = batch.header
        if start_of(self._address, header) is None:
            return
        try:
            records = batch.records()
        except InvalidBatch as error:
            raise Unreadable(
                f"batch {header.base_offset} of {partition_address(*self._tp)}: {error}"
            ) from error
        for offset, (key, value, _, _) in enumerate(records, header.base_offset):
            if offset not in wanted or value is None:
                continue
            decoded = decode_key(key or b"")
            if isinstance(decoded, MessageKey):
                message = decode_message(value)
                self._size_bytes += message.size_bytes
                self._found[offset] = ReadMessage(-1, decoded.scheduled_id, message)

    def _done(self) -> ReadJob | None:
        if self._in_flight:
            return None
        unread = {offset for sweep in self._sweeps for offset in sweep.unread}
        found: list[ReadMessage] = []
        entries, self._entries = self._entries, ()
        for number, entry in enumerate(entries):
            offset = offset_of(entry)
            if offset in unread:
                return ReadJob(self._target, found, list(entries[number:]))
            if offset in self._found:
                found.append(self._found[offset]._replace(entry=entry))
        return ReadJob(self._target, found, [])


def _near(offsets: Sequence[int]) -> list[list[int]]:
    """Divide rising offsets where they lie far apart."""
    runs: list[list[int]] = []
    for offset in offsets:
        if not runs or offset - runs[-1][-1] > GAP:
            runs.append([])
        runs[-1].append(offset)
    return runs
