"""The open and sealed batches of a producer, and the bound on their memory: the side of the network thread.

The accumulator (`accumulator.py`) appends to the open batches without a lock; its opening explains the protocol between
the two. Owns the lock.
"""

import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Literal, TypeAlias

from ..addresses import TopicPartition
from ..protocol.errors import ErrorBody
from .delivery import call_back
from .errors import Backpressure, BufferFull
from .gate import Gate, Opened
from .lanes import ProducerIdentity
from .pace import Pace
from .producer_batch import PartitionQueue, ProducerBatch

_SEALED = 1 << 62
Lingers: TypeAlias = Literal["not at all", "for a time", "to the end"]
"""The last one: until `suspend`, or until the network thread takes it; it is not notified for that batch alone."""


def open_gate(gate: Opened) -> None:
    gate.open()


def call_here(callback: Callable[[], None]) -> None:
    callback()


class Change(threading.Condition):
    """A condition that threads seldom wait for: then its notification takes no steps."""

    def __init__(self, lock: Any) -> None:
        super().__init__(lock)
        self._sleepers = 0

    def wait(self, timeout: float | None = None) -> bool:
        self._sleepers += 1
        try:
            return super().wait(timeout)
        finally:
            self._sleepers -= 1

    def notify_all(self) -> None:
        if self._sleepers:
            super().notify_all()


class HeldPartitions:
    """Partitions that refuse for backpressure.

    A patient publisher waits for room, and the time in which a partition is held does not count. Any other publisher gets
    an error.
    """

    def __init__(self, *, is_patient: bool) -> None:
        self.is_patient = is_patient
        self.excused_s = 0.0
        """The time up to which waiting for room does not count."""
        self._held: dict[TopicPartition, ErrorBody] = {}
        """The last refusal of each."""

    def __contains__(self, tp: TopicPartition) -> bool:
        return tp in self._held

    def hold(self, tp: TopicPartition, error: ErrorBody, now_s: float) -> None:
        self._held[tp] = error
        if self.is_patient:
            self.excused_s = now_s

    def release(self, tp: TopicPartition) -> None:
        self._held.pop(tp, None)

    def check(self, tp: TopicPartition) -> None:
        """Raise Backpressure for a publisher that does not wait."""
        if not self.is_patient and tp in self._held:
            raise Backpressure.from_body(self._held[tp])


class Batches:
    """Batches by partition, from their opening until they are done."""

    def __init__(
        self,
        *,
        batch_records: int,
        buffer_bytes: int,
        max_block_ms: int,
        held: HeldPartitions,
        now_ms: Callable[[], int],
        lingers: Lingers,
        let_pass: Callable[[Opened], None],
        wait_at: Callable[[Gate, float | None], bool],
        call: Callable[[Callable[[], None]], None],
        may_wait: Callable[[], bool],
    ) -> None:
        self._batch_records = batch_records
        self._buffer_bytes = buffer_bytes
        self._max_block_s = max_block_ms / 1000
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._changed = Change(self._lock)
        self._sticky: dict[str, ProducerBatch] = {}
        """The open batch for records without a key, by topic."""
        self._keyed: dict[str, list[ProducerBatch | None]] = {}
        """The open batches for records with a key, by topic and partition. The length of a list is the number of
        partitions by which keys are placed; it is read again with each new batch."""
        self._lanes: dict[tuple[str, int], PartitionQueue] = {}
        self._unfinished: dict[ProducerBatch, None] = {}
        self._buffered_bytes = 0
        self._closed_by: Exception | None = None
        self.identity: ProducerIdentity | None = None
        """Producer id and epoch of the transaction to which all unfinished batches belong."""
        self._held = held
        self._lingers = lingers
        self._pace = Pace() if lingers == "for a time" else None
        self._let_pass = let_pass
        self._wait_at = wait_at
        self._call = call
        self._may_wait = may_wait
        self._room_gates: list[Opened] = []

    @property
    def buffered_bytes(self) -> int:
        return self._buffered_bytes

    def take(
        self, lane: PartitionQueue, now_ms: int, linger_ms: int, is_idle: bool
    ) -> tuple[list[ProducerBatch], int | None]:
        """The sealed batches of a lane, and when to come back for the open one (None: when notified).

        The open one is sealed when it is full, and, if the lane `is_idle`, at once, or once it is `linger_ms` old if
        the producer publishes in bulk.
        """
        with self._lock:
            batch = lane.open
            due_ms = None
            if batch is not None and batch.records:
                batch.is_lingering = self._pace is None or self._pace.is_bulk(now_ms)
                # In this order: a caller that waits sets `is_urgent` before it reads `is_lingering`.
                due_ms = (
                    batch.created_ms + linger_ms if batch.is_lingering and not batch.is_urgent else now_ms
                )
                if self._is_full(batch) or (is_idle and due_ms <= now_ms):
                    self._seal(lane, batch)
                    due_ms = None
            taken, lane.sealed = lane.sealed, []
        return taken, due_ms

    def _seal(self, lane: PartitionQueue, batch: ProducerBatch) -> None:
        self._close(batch)
        if lane.open is batch:
            lane.open = None
        if self._sticky.get(batch.topic) is batch:
            del self._sticky[batch.topic]
        keyed = self._keyed.get(batch.topic)
        if keyed is not None and batch.partition < len(keyed) and keyed[batch.partition] is batch:
            keyed[batch.partition] = None
        lane.sealed.append(batch)
        self._changed.notify_all()

    def _close(self, batch: ProducerBatch) -> None:
        batch.is_open = False
        if self._lingers == "to the end":
            batch.created_ms = self._now_ms()  # it may have been open for as long as the program took
        batch.mark = _SEALED
        batch.records.close()
        if self._pace is not None:
            self._pace.note(len(batch.records), self._now_ms())
        batch.size_bytes -= batch.room
        self._buffered_bytes += batch.size_bytes
        self._unfinished[batch] = None

    def finish(
        self, batch: ProducerBatch, base_offset: int, error: Exception | None, is_duplicate: bool = False
    ) -> None:
        """A batch is done: wake those who wait for it, call those who asked to be called."""
        with self._lock:
            batch.base_offset = base_offset
            batch.error = error
            batch.is_duplicate = is_duplicate
            batch.frame = None
            batch.is_done = True
            callbacks, batch.callbacks = batch.callbacks, []
            self._unfinished.pop(batch, None)
            self._buffered_bytes -= batch.size_bytes
            self._changed.notify_all()
            gates, batch.gates = batch.gates, []
            if self._room_gates and self._buffered_bytes < self._buffer_bytes:
                gates += self._room_gates
                self._room_gates = []
        for gate in gates:
            self._let_pass(gate)
        for callback, delivery in callbacks:
            self._call(partial(call_back, callback, delivery))

    def hold(self, key: TopicPartition, error: ErrorBody) -> None:
        """A partition refuses for backpressure."""
        with self._lock:
            self._held.hold(key, error, monotonic())
            if self._held.is_patient:
                return
            # The next publish looks here, and is refused.
            lane = self._lanes.get(key)
            if lane is not None:
                self._close_empty(lane)

    def release(self, key: TopicPartition) -> None:
        """It takes messages again, or there is nothing left to ask it with."""
        if key in self._held:
            with self._lock:
                self._held.release(key)

    def lanes(self) -> list[PartitionQueue]:
        with self._lock:
            return list(self._lanes.values())

    def unfinished(self) -> list[ProducerBatch]:
        """Every batch with a record in it that is not done."""
        with self._lock:
            return list(self._unfinished)

    def on_fork(self, error: Exception) -> None:
        """Take nothing in a forked child, where no thread of the parent holds the lock or waits."""
        self._changed._at_fork_reinit()  # type: ignore[attr-defined]  # of the lock as well, as the standard library does
        for batch in self.unfinished():
            batch.callbacks, batch.gates = [], []
        self.suspend(error)

    def stop(self, error: Exception) -> None:
        """Take nothing more: every later append raises `error`."""
        with self._lock:
            self._closed_by = self._closed_by or error
            self._sticky.clear()
            self._keyed.clear()
            self._changed.notify_all()
            gates, self._room_gates = self._room_gates, []
        for gate in gates:
            gate.open()

    def suspend(self, error: Exception) -> None:
        """Take nothing until `reopen`. A publisher that is on its way into an open batch is turned back."""
        with self._lock:
            self._closed_by = error
            self._sticky.clear()
            self._keyed.clear()
            for lane in self._lanes.values():
                self._close_empty(lane)
            self._changed.notify_all()

    def reopen(self, identity: ProducerIdentity) -> None:
        """Gather again, for another transaction; all of the one before is done."""
        with self._lock:
            self.identity = identity
            self._closed_by = None

    def hide(self, topic: str) -> None:
        """Have the next message of the topic go through `place`, as if no batch were open."""
        with self._lock:
            self._sticky.pop(topic, None)
            self._keyed.pop(topic, None)

    @property
    def is_open(self) -> bool:
        return self._closed_by is None

    def _close_empty(self, lane: PartitionQueue) -> None:
        """Seal the open batch; one with nothing in it goes nowhere."""
        batch = lane.open
        if batch is None:
            return
        self._seal(lane, batch)
        if not batch.records:
            lane.sealed.remove(batch)
            del self._unfinished[batch]

    def _is_full(self, batch: ProducerBatch) -> bool:
        return batch.room < 0 or len(batch.records) >= self._batch_records

    def _wait_for_room(self) -> None:
        deadline = None
        while self._closed_by is None and self._buffered_bytes >= self._buffer_bytes:
            now = monotonic()
            deadline = deadline or now + self._max_block_s
            deadline = max(deadline, self._held.excused_s + self._max_block_s)
            if now >= deadline or not self._may_wait():
                raise BufferFull(
                    f"{self._buffered_bytes} bytes wait for the broker; buffer_bytes is {self._buffer_bytes}"
                )
            self._changed.wait(deadline - now)
        if self._closed_by is not None:
            raise self._closed_by

    def attend_room(self, gate: Opened) -> bool:
        """Have the gate opened when there is room in the buffer, or none will come. Return False if there is room."""
        with self._lock:
            if self._closed_by is not None or self._buffered_bytes < self._buffer_bytes:
                return False
            self._room_gates.append(gate)
            return True
