"""An accumulator with known partitions, and the batches that it has sealed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from planaria.transport.batch import RecordFields, decode_fields, parse_header
from planaria.transport.client.accumulator import Accumulator
from planaria.transport.client.batches import HeldPartitions
from planaria.transport.client.pace import BULK_RECORDS_PER_MS, WINDOW_MS
from planaria.transport.client.producer_batch import PartitionQueue, ProducerBatch
from planaria.transport.protocol.errors import ErrorCode, ProtocolError

LARGEST_BYTES = 16_000


class Partitions:
    """The destinations of every topic: `count` partitions."""

    count = 4

    def partitions_of(self, topic: str, least: int = 1) -> int:
        return self.count

    def check_partition(self, topic: str, partition: int | None) -> None:
        if partition is not None and not 0 <= partition < self.count:
            raise ProtocolError(ErrorCode.UNKNOWN_PARTITION, f"{topic!r} has no partition {partition}")

    def largest_batch_of(self, topic: str) -> int:
        return LARGEST_BYTES

    def choose_partition(self, topic: str) -> int:
        return 0


def records_of(batch: ProducerBatch) -> list[RecordFields]:
    """Decode the records of a sealed batch."""
    frame = batch.build()
    return decode_fields(frame, parse_header(frame))


class Sealer:
    """Replaces the network thread: takes announced batches, on demand or automatically."""

    def __init__(self, is_automatic: bool = True, *, is_patient: bool = True, **options: Any) -> None:
        settings: dict[str, Any] = {
            "batch_bytes": 4_000, "batch_records": 1_000, "buffer_bytes": 1 << 30, "max_block_ms": 50,
        }  # fmt: skip
        self.is_automatic = is_automatic
        self.now_ms = 0
        self.destinations = Partitions()
        self.announced: list[PartitionQueue] = []
        self.taken: list[Any] = []
        self.taken_alone: list[Any] = []
        self.wake = threading.Event()
        self.accumulator = Accumulator(
            **(settings | options),
            destinations=self.destinations,
            held=HeldPartitions(is_patient=is_patient),
            notify=self.notify,
            notify_identified=self.taken_alone.append,
            now_ms=lambda: self.now_ms,
        )

    def notify(self, lane: PartitionQueue) -> None:
        self.announced.append(lane)
        self.wake.set()

    def take(self, *, linger_ms: int = 0, is_idle: bool = True) -> list[Any]:
        batches: list[Any] = []
        for lane in self.accumulator.lanes():
            batches += self.accumulator.take(lane, self.now_ms, linger_ms, is_idle)[0]
        self.taken += batches
        return batches

    def publish_in_bulk(self) -> None:
        """Bring the producer to a pace at which batches wait for more records."""
        for _ in range(2):
            self.now_ms += WINDOW_MS
            for _ in range(BULK_RECORDS_PER_MS * WINDOW_MS):
                self.accumulator.publish("T", b"a")
            self.take()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run a thread that takes and finishes all announced batches, and the remaining ones at the end."""
        is_over = threading.Event()

        def seal() -> None:
            while not is_over.is_set():
                self.wake.wait(1)
                self.wake.clear()
                for batch in self.take():
                    self.accumulator.finish(batch, 0, None)

        network = threading.Thread(target=seal)
        network.start()
        try:
            yield
        finally:
            is_over.set()
            self.wake.set()
            network.join()
        self.take()
