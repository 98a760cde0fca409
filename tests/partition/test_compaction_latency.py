"""Latency of appends during compaction, on a real process. Prints its numbers: pytest -m chaos -s."""

import time
from pathlib import Path

import pytest

from partition_process import PartitionProcess
from planaria.transport.batch import build
from planaria.transport.protocol.data import Produce, ProduceReply
from planaria.transport.protocol.topics import DescribePartition, DescribePartitionReply, TopicConfig

pytestmark = [pytest.mark.processes, pytest.mark.chaos]

PREPARED_BATCHES = 1_000
PROBES = 1_500
PAUSE_S = 0.001
LONGEST_P99_MS = 50


def a_batch(first: int, count: int = 1_000, keys: int = 10_000) -> bytes:
    records = [(b"key-%d" % (number % keys), b"v" * 100, 0, None) for number in range(first, first + count)]
    return build(records, first_timestamp_ms=1_000, max_timestamp_ms=1_000)


def produce(partition: PartitionProcess, frame: bytes) -> None:
    reply, _ = partition.ask(Produce(id=1, topic="ORDERS", partition=0), ProduceReply, [frame])
    assert reply.batches[0].error is None


def size_of(partition: PartitionProcess) -> int:
    reply, _ = partition.ask(DescribePartition(), DescribePartitionReply)
    size_bytes: int = reply.description.size_bytes
    return size_bytes


def waits_ms(partition: PartitionProcess, count: int) -> list[float]:
    """Send one small append after the other, waiting for each."""
    frame = build([(None, b"v" * 100, 0, None)] * 10, first_timestamp_ms=1_000, max_timestamp_ms=1_000)
    waits = []
    for _ in range(count):
        start = time.perf_counter()
        produce(partition, frame)
        waits.append((time.perf_counter() - start) * 1_000)
        time.sleep(PAUSE_S)  # not a wait: the rate of the load
    return sorted(waits)


def test_appends_hardly_wait_for_compaction(data_dir: Path, run_dir: Path) -> None:
    config = TopicConfig(
        cleanup="compact", segment_bytes=8 << 20, delete_retention_ms=10_000, min_cleanable_ratio=0.9
    )
    with PartitionProcess(data_dir, run_dir, TopicConfig(segment_bytes=8 << 20)) as partition:
        partition.start()
        for number in range(PREPARED_BATCHES):
            produce(partition, a_batch(number * 1_000))
        before = waits_ms(partition, PROBES)
        size_bytes = size_of(partition)
        partition.stop()
        partition.config = config
        partition.start()
        during: list[float] = []
        first_change = None
        start = time.monotonic()
        while time.monotonic() - start < 120:
            part = waits_ms(partition, 100)
            size_now = size_of(partition)
            if size_now < size_bytes and first_change is None:
                first_change = time.monotonic() - start
            if time.monotonic() - start > 5:  # it looks for work 5 s after its start
                during += part
            if size_now < size_bytes / 4:
                break
            size_bytes = max(size_bytes, size_now)
        else:
            raise AssertionError(f"not compacted in 120 s: {size_of(partition)} of {size_bytes} bytes")
        took_s = time.monotonic() - start - 5
    during.sort()

    def shown(waits: list[float]) -> str:
        p50, p99 = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
        return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, longest {waits[-1]:.2f} ms of {len(waits)}"

    print(
        f"\nbefore: {shown(before)}\nduring: {shown(during)}\n{size_bytes >> 20} MiB compacted in {took_s:.1f} s"
    )
    p99_before, p99_during = (waits[len(waits) * 99 // 100] for waits in (before, during))
    assert p99_during <= 3 * p99_before
    assert p99_during <= LONGEST_P99_MS, "a slow machine excuses no long wait"
