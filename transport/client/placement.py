"""The batch that each published message goes into: an open one of its partition, a new one, or one of its own.

Opens the batches, and does the steps of an append that need the lock; the opening of `accumulator.py` has the protocol.
Called by the accumulator, in the threads of publishers, which may wait here for room in the buffer. Knows no socket.
"""

from collections.abc import Callable
from time import time
from typing import Any, Protocol

from ..addresses import TopicPartition
from ..batch import Headers, RecordFields
from ..deduplication import partition_for_dedup_id
from ..partitioner import partition_for_key
from ..protocol.data import Expected
from ..protocol.message import MAX_HEADER_BYTES
from .batches import Batches, HeldPartitions, Lingers, call_here, open_gate
from .content import ContentEncoder, Given
from .delivery import Delivery
from .gate import Gate, Opened, may_wait, wait_at
from .identified import ANY_PARTITION, Schedule
from .options import InvalidOption
from .producer_batch import PartitionQueue, ProducerBatch

CLOCK_BYTES = 16 * 1024
CLOCK_RECORDS = 128
"""The clock is read once in so many records and bytes."""
ENCODED_BYTES = 64 * 1024
"""Records are encoded in parts of about this size. They and their objects fit a processor's own cache."""
LARGE_BYTES = 64 * 1024
"""A record from this size on travels in a batch of its own, so that its neighbours cannot make the batch too large."""
BATCH_OVERHEAD_BYTES = 128
"""Bytes of a batch beside its records, rounded up."""


class Destinations(Protocol):
    """The topics that are published to. `partitions_of` may wait until `least` partitions are known."""

    def partitions_of(self, topic: str, least: int = 1) -> int: ...

    def check_partition(self, topic: str, partition: int | None) -> None: ...

    def largest_batch_of(self, topic: str) -> int: ...

    def choose_partition(self, topic: str) -> int: ...


class Placement(Batches):
    """Puts encoded messages into batches."""

    def __init__(
        self,
        *,
        batch_bytes: int,
        batch_records: int,
        buffer_bytes: int,
        max_block_ms: int,
        destinations: Destinations,
        held: HeldPartitions,
        notify: Callable[[PartitionQueue], None],
        notify_identified: Callable[[ProducerBatch], None],
        now_ms: Callable[[], int],
        lingers: Lingers = "for a time",
        let_pass: Callable[[Opened], None] = open_gate,
        wait_at: Callable[[Gate, float | None], bool] = wait_at,
        call: Callable[[Callable[[], None]], None] = call_here,
        may_wait: Callable[[], bool] = may_wait,
        make_batch: Callable[..., ProducerBatch] = ProducerBatch,
        unnamed: str = "",
        place: Callable[..., Any] | None = None,
    ) -> None:
        """`held` has the partitions that refuse for backpressure: publishers wait for them, or are refused.
        `notify(lane)` wakes the network thread to take a batch, `notify_identified(batch)` hands it a batch of one record
        that waits for no other. `lingers`: how long a batch that is not full waits for more records, unless a caller
        waits for it. `let_pass(gate)` wakes the callers that wait for a finished batch, at the end of the network turn.
        `wait_at(gate, timeout_s)` is their wait; `call(callback)` runs the callbacks of deliveries.
        Where `may_wait()` is False, publishing raises BufferFull instead of waiting for room.
        Publishing returns `batch.handle(batch, record)`, of a batch that `make_batch` has made.
        `unnamed`: why no message may have a dedup id or a delivery time; empty if it may.
        `place` is called instead of the method of this name, which it calls when it may: for a message that no batch
        is open for, or that is a batch of its own.
        """
        super().__init__(
            batch_records=batch_records,
            buffer_bytes=buffer_bytes,
            max_block_ms=max_block_ms,
            held=held,
            now_ms=now_ms,
            lingers=lingers,
            let_pass=let_pass,
            wait_at=wait_at,
            call=call,
            may_wait=may_wait,
        )
        self._batch_bytes = batch_bytes
        self._destinations = destinations
        self._notify = notify
        self._notify_identified = notify_identified
        self._make_batch = make_batch
        self._unnamed = unnamed
        self._contents = ContentEncoder()
        self._place = place or self.place

    def place(
        self,
        topic: Given,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        timestamp_ms: int | None,
        size_bytes: int,
        dedup_id: str | None = None,
        when: Schedule | None = None,
        expected: Expected | None = None,
    ) -> Any:
        """Put an encoded message into a batch of its partition, which it chooses unless it is given."""
        details = (key, value, headers, timestamp_ms, size_bytes)
        if when is not None:
            if size_bytes > MAX_HEADER_BYTES:  # it travels in the header of its request
                raise InvalidOption(
                    f"value: a delayed message has at most {MAX_HEADER_BYTES} bytes, not {size_bytes}"
                )
            self._destinations.check_partition(topic, partition)
            tp = ANY_PARTITION if partition is None else partition
            return self._send_alone(topic, tp, *details, when)
        if partition is not None:
            self._destinations.check_partition(topic, partition)
        elif key is not None:
            partition = self._partition_of_key(topic, key)
        elif dedup_id is not None:
            partition = partition_for_dedup_id(dedup_id, self._destinations.partitions_of(topic))
        if dedup_id is not None:
            assert partition is not None
            return self._send_alone(topic, partition, *details, None, expected)
        return self._append(topic, partition, key, value, headers, timestamp_ms, size_bytes)

    def _partition_of_key(self, topic: Given, key: bytes) -> int:
        """Return the partition of an open batch for this key; otherwise by the present number of partitions."""
        batches = self._keyed.get(topic) if type(topic) is str else None
        if batches:
            partition = partition_for_key(key, len(batches))
            if batches[partition] is not None:
                return partition
        return partition_for_key(key, self._destinations.partitions_of(topic))

    def _append(
        self,
        topic: Given,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        timestamp_ms: int | None,
        size_bytes: int,
    ) -> Delivery:
        while True:
            batch = self._find(topic, partition)
            if size_bytes >= batch.large_bytes:
                return self._append_alone(
                    batch, RecordFields(key, value, 0, headers), size_bytes, timestamp_ms
                )
            handle = self._add(batch, key, value, headers, timestamp_ms, size_bytes)
            if handle is not None:
                return handle

    def _add(
        self,
        batch: ProducerBatch,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        timestamp_ms: int | None,
        size_bytes: int,
    ) -> Delivery | None:
        """Add a record to an open batch. Return None if the batch was sealed without it."""
        delta_ms = batch.delta_ms
        if timestamp_ms is not None:
            batch.records.has_own_times = True
            delta_ms = timestamp_ms - batch.first_ms
        record = RecordFields(key, value, delta_ms, headers)
        batch.append(record)
        room = batch.room = batch.room - size_bytes
        if room >= batch.mark or self._settle(batch, record):
            return batch.handle(batch, record)  # type: ignore[no-any-return]
        return None

    def _append_alone(
        self, open_batch: ProducerBatch, record: RecordFields, size_bytes: int, timestamp_ms: int | None
    ) -> Delivery:
        """Send a record behind those of the open batch, in a sealed batch that no other thread sees open."""
        topic, partition = open_batch.topic, open_batch.partition
        batch = self._batch_of_one(topic, partition, record, size_bytes, timestamp_ms)
        lane = self._lanes[topic, partition]
        with self._lock:
            self._wait_for_room()
            if lane.open is not None and lane.open.records:
                self._seal(lane, lane.open)
            self._seal(lane, batch)
        self._notify(lane)
        return batch.handle(batch, record)  # type: ignore[no-any-return]

    def _batch_of_one(
        self, topic: str, partition: int, record: RecordFields, size_bytes: int, timestamp_ms: int | None
    ) -> ProducerBatch:
        batch = self._new_batch(topic, partition)
        if timestamp_ms is not None:
            batch.first_ms = timestamp_ms
            batch.records.has_own_times = True
        batch.append(record)
        batch.room -= size_bytes
        return batch

    def _new_batch(self, topic: str, partition: int) -> ProducerBatch:
        """Return a batch with the room that the topic's partitions accept, less the records added while it fills up."""
        largest_bytes = self._destinations.largest_batch_of(topic) - BATCH_OVERHEAD_BYTES
        large_bytes = min(LARGE_BYTES, largest_bytes // 16)
        room = min(self._batch_bytes, largest_bytes - 8 * large_bytes)
        batch = self._make_batch(
            topic, partition, room, large_bytes, self._now_ms(), self._lock, self._hasten, self._wait_at
        )
        batch.is_urgent = self._lingers == "not at all"
        batch.is_announced = batch.is_lingering = self._lingers == "to the end"
        return batch

    def _send_alone(
        self,
        topic: Given,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        timestamp_ms: int | None,
        size_bytes: int,
        when: Schedule | None = None,
        expected: Expected | None = None,
    ) -> Delivery:
        """Send a record in a sealed batch of its own, which belongs to no lane."""
        record = RecordFields(key, value, 0, headers)
        batch = self._batch_of_one(topic, partition, record, size_bytes, timestamp_ms)
        batch.alone, batch.schedule, batch.expected = record, when, expected
        with self._lock:
            self._held.check(TopicPartition(topic, partition))
            self._wait_for_room()
            self._close(batch)
        self._notify_identified(batch)
        return batch.handle(batch, record)  # type: ignore[no-any-return]

    def _find(self, topic: Given, partition: int | None) -> ProducerBatch:
        if partition is None:
            # Anything else, which may have no hash, is refused where its partitions are looked up.
            batch = self._sticky.get(topic) if type(topic) is str else None
        else:
            batches = self._keyed.get(topic, ())
            batch = batches[partition] if partition < len(batches) else None
        return batch if batch is not None else self._open(topic, partition)

    def _open(self, topic: Given, partition: int | None) -> ProducerBatch:
        """Return the open batch to append to, a new one unless another thread was faster. Wait for room in the buffer."""
        chosen = self._destinations.choose_partition(topic) if partition is None else partition
        count = self._destinations.partitions_of(topic)
        key = TopicPartition(topic, chosen)
        with self._lock:
            self._held.check(key)
            self._wait_for_room()
            if partition is None and topic in self._sticky:
                return self._sticky[topic]
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = PartitionQueue(key)
            batch = lane.open
            if batch is None:
                batch = lane.open = self._new_batch(topic, chosen)
            if partition is None:
                self._sticky[topic] = batch
            keyed = self._keyed.get(topic)
            if keyed is None or len(keyed) != count:
                keyed = self._keyed[topic] = [None] * count
            if chosen < count:
                keyed[chosen] = batch
        return batch

    def _settle(self, batch: ProducerBatch, record: RecordFields) -> bool:
        """Handle the rare case after an append. Return True if the record is in its batch."""
        with self._lock:
            if batch.is_open:
                self._unfinished[batch] = None
                delta_ms = int(time() * 1000) - batch.first_ms
                batch.delta_ms = max(batch.delta_ms, delta_ms)
                if batch.encoded_room - batch.room >= ENCODED_BYTES:
                    batch.records.encode_previous()
                    batch.encoded_room = batch.room
                step_bytes = CLOCK_RECORDS * ((batch.size_bytes - batch.room) // len(batch.records))
                mark = batch.room - (step_bytes if step_bytes > CLOCK_BYTES else CLOCK_BYTES)
                batch.mark = mark if mark > 0 else 0
        if not batch.is_announced:
            self._notify(self._lanes[batch.topic, batch.partition])
            batch.is_announced = True
        if batch.is_open and self._is_full(batch):
            lane = self._lanes[batch.topic, batch.partition]
            self._notify(lane)
            with self._lock:
                if not self._may_wait() and lane.open is batch:
                    # An event loop, or a delivery callback, in the thread that seals: it would wait for itself.
                    self._seal(lane, batch)
                self._changed.wait_for(lambda: not batch.is_open or self._closed_by is not None)
        return batch.is_open or record in batch.records

    def _hasten(self, batch: ProducerBatch) -> None:
        batch.is_urgent = True
        if batch.is_lingering:
            self._notify(self._lanes[batch.topic, batch.partition])
