"""The partition as a real process on a real directory: served, stopped, killed under load, locked out."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from partition_process import PartitionProcess
from planaria.transport.batch import build, split
from planaria.transport.protocol.data import (
    Fetch,
    FetchReply,
    ListOffsets,
    ListOffsetsReply,
    Produce,
    ProduceReply,
)

pytestmark = pytest.mark.processes


@pytest.fixture
def partition(data_dir: Path, run_dir: Path) -> Iterator[PartitionProcess]:
    with PartitionProcess(data_dir, run_dir) as process:
        yield process


def a_batch(*values: bytes, **sequencing: int) -> bytes:
    records = [(None, value, 0, None) for value in values]
    return build(records, first_timestamp_ms=1_000, max_timestamp_ms=1_000, **sequencing)


def produce(acks: object = "all", partition: int = 0) -> Produce:
    return Produce(id=1, topic="ORDERS", partition=partition, acks=acks)  # type: ignore[arg-type]


def fetch(offset: int, **options: object) -> Fetch:
    return Fetch(id=2, topic="ORDERS", partition=0, offset=offset, **options)  # type: ignore[arg-type]


def test_produce_fetch_stop_and_start_again(partition: PartitionProcess) -> None:
    partition.start()
    reply, _ = partition.ask(produce(), ProduceReply, [a_batch(b"a", b"b"), a_batch(b"c")])
    assert [result.base_offset for result in reply.batches] == [0, 2]
    assert reply.high_watermark == 3
    assert partition.stop() == 0

    partition.start()
    reply, payload = partition.ask(fetch(0), FetchReply)
    assert (reply.next_offset, reply.high_watermark) == (3, 3)
    assert [(header.base_offset, header.leader_epoch) for header, _ in split(payload[0])] == [(0, 0), (2, 0)]
    reply, _ = partition.ask(produce(), ProduceReply, [a_batch(b"d")])
    assert reply.batches[0].base_offset == 3
    _, payload = partition.ask(fetch(3), FetchReply)
    assert split(payload[0])[0][0].leader_epoch == 1, "each start is an epoch of its own"
    reply, _ = partition.ask(ListOffsets(topic="ORDERS", partition=0, at=999), ListOffsetsReply)
    assert (reply.offset, reply.timestamp_ms) == (0, 1_000)


def test_parked_fetch_hears_of_new_data(partition: PartitionProcess) -> None:
    partition.start()
    partition.send(fetch(0, max_wait_ms=10_000))
    partition.send(produce(), [a_batch(b"a")])
    replies = dict(reversed((partition.client.recv_multipart()[0], n)) for n in range(2))
    assert len(replies) == 2


def test_json_fetch_gets_records(partition: PartitionProcess) -> None:
    partition.start()
    partition.ask(produce(), ProduceReply, [a_batch(b"caf\xc3\xa9", b"\xff")])
    reply, payload = partition.ask(fetch(1), FetchReply, as_json=True)
    assert payload == []
    assert [(each.offset, each.value, each.value_text) for each in reply.records] == [(1, b"\xff", None)]
    assert reply.next_offset == 2
