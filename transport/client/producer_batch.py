"""The records of one partition on their way, and waiting for them: a batch is open, then sealed, then done.

Owns the state of a batch. Only `accumulator.py` and its parts fill, seal and finish batches; it defines the threads that
may do so, and lends each batch its lock. Never talks to a socket.
"""

import threading
from collections.abc import Callable
from time import time
from typing import Any

from ..addresses import TopicPartition
from ..batch import NO_PRODUCER, RecordFields, completed
from ..protocol.data import Expected
from .delivery import Delivery, RecordMetadata
from .gate import Gate, Opened, wait_at
from .gathered_records import GatheredRecords
from .identified import Schedule


class ProducerBatch:
    """Records of one partition on their way: open, sealed, then done with an offset or an error."""

    __slots__ = (
        "alone", "append", "base_offset", "callbacks", "caller", "created_ms", "delta_ms", "encoded_room", "error",
        "expected", "first_ms", "frame", "gates", "handle", "hasten", "is_announced", "is_awaited",
        "is_done", "is_duplicate",
        "is_lingering", "is_open", "is_urgent", "large_bytes", "lock", "mark", "partition", "records", "room",
        "schedule", "size_bytes", "topic", "wait_at",
    )  # fmt: skip

    def __init__(
        self,
        topic: str,
        partition: int,
        room: int,
        large_bytes: int,
        now_ms: int,
        lock: threading.Lock,
        hasten: "Callable[[ProducerBatch], None]",
        wait_at: Callable[[Gate, float | None], bool] = wait_at,
    ) -> None:
        """Make an open batch with `room` bytes. Records of `large_bytes` and more go elsewhere. `wait_at` is the wait of
        a thread at its gate."""
        self.topic = topic
        self.partition = partition
        self.records = GatheredRecords()
        self.append = self.records.append
        self.room = self.size_bytes = room
        self.encoded_room = room
        """The room when records were last encoded."""
        self.large_bytes = large_bytes
        self.mark = room
        self.first_ms = int(time() * 1000)
        self.created_ms = now_ms
        self.delta_ms = 0
        self.is_open = True
        self.is_announced = False
        self.is_urgent = False
        self.is_lingering = False
        """True if the batch is taken later than announced, unless it becomes urgent."""
        self.hasten = hasten
        self.wait_at = wait_at
        self.is_awaited = False
        """True if a program has waited for one of the deliveries."""
        self.is_done = False
        self.is_duplicate = False
        self.base_offset = -1
        self.error: Exception | None = None
        self.frame: tuple[Any, memoryview] | None = None
        self.gates: list[Opened] = []
        self.callbacks: list[tuple[Callable[[Delivery], object], Delivery]] = []
        self.lock = lock
        self.alone: RecordFields | None = None
        """The only record of a batch that belongs to no lane."""
        self.schedule: Schedule | None = None
        self.expected: Expected | None = None
        self.handle: Callable[[Any, RecordFields], Any] = Delivery
        """Makes the object through which a publisher waits for its record."""
        self.caller: Any = None
        """Wakes the tasks of an event loop."""

    @property
    def record_count(self) -> int:
        return len(self.records)

    def build(
        self,
        producer_id: int = NO_PRODUCER,
        producer_epoch: int = -1,
        base_sequence: int = -1,
        attributes: int = 0,
    ) -> memoryview:
        """Return the batch, once it is sealed, as it travels."""
        return completed(
            self.records.take(),
            len(self.records),
            first_timestamp_ms=self.first_ms,
            max_timestamp_ms=self.first_ms + self.records.latest_delta_ms,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=base_sequence,
            attributes=attributes,
        )

    def offset_of(self, record: RecordFields) -> int | None:
        return None if self.base_offset < 0 else self.base_offset + self.records.position_of(record)

    def location_of(self, record: RecordFields) -> RecordMetadata:
        """Return the location of a record of a batch that is done without an error."""
        if self.schedule is not None:
            return RecordMetadata(self.topic, None, None, self.is_duplicate, self.schedule.scheduled_id)
        return RecordMetadata(self.topic, self.partition, self.offset_of(record), self.is_duplicate)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until the batch is done; False on timeout. A waiting thread ends the batch's lingering."""
        gate = Gate()
        if not self.attend(gate):
            return True
        try:
            self.wait_at(gate, timeout_s)
        finally:
            if not self.is_done:
                self.leave(gate)
        return self.is_done

    def attend(self, gate: Opened) -> bool:
        """Have the gate opened when the batch is done, and end its lingering. Return False if it is done."""
        with self.lock:
            if self.is_done:
                return False
            self.gates.append(gate)
        if self.is_open and not self.is_urgent:
            self.hasten(self)
        return True

    def leave(self, gate: Opened) -> None:
        """Undo `attend`."""
        with self.lock:
            if gate in self.gates:
                self.gates.remove(gate)


class PartitionQueue:
    """The batches of one partition that are not yet in flight."""

    __slots__ = ("key", "open", "sealed")

    def __init__(self, key: TopicPartition) -> None:
        self.key = key
        self.open: ProducerBatch | None = None
        self.sealed: list[ProducerBatch] = []
