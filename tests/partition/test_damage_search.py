"""A read in a long damaged stretch takes several turns, and other requests are answered between them."""

from pathlib import Path

import pytest

from partition_process import PROGRAM, PartitionProcess
from planaria.actors.partition.effects import Read, ReadDone, ReadUnfinished
from planaria.actors.partition.fetches import Fetches
from planaria.actors.partition.timers import SearchContinues
from planaria.transport.batch import build
from planaria.transport.machine import Received, Reply, Sender, SetTimer
from planaria.transport.protocol.data import (
    Fetch,
    FetchReply,
    ListOffsets,
    ListOffsetsReply,
    Produce,
    ProduceReply,
)
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from simulated_partition import SimulatedPartition, a_batch

BATCHES = 200
DAMAGED = 150
IN_SMALL_STEPS = (
    f"from planaria.actors.log import segment_reading\nsegment_reading.SEARCH_BYTES = 4096\n{PROGRAM}"
)


def fetch(offset: int, request_id: int = 1) -> Fetch:
    return Fetch(id=request_id, topic="ORDERS", partition=0, offset=offset)


@pytest.fixture
def fetches() -> Fetches:
    partition = SimulatedPartition()
    partition.ask(Produce(topic="ORDERS", partition=0), [a_batch(b"a"), a_batch(b"b")])
    found = partition.machine._role.fetches
    assert isinstance(found, Fetches)
    return found


def a_read(request_id: int) -> Read:
    return Read(Received(Sender((b"peer",), request_id, False), fetch(0, request_id), ()), 1_000, 2, True)


def test_searches_take_turns_one_in_each_and_end_with_an_answer(fetches: Fetches) -> None:
    first, second = a_read(1), a_read(2)
    assert fetches.on_read_unfinished(first, 5) == [SetTimer(SearchContinues(), 5)]
    fetches.on_read_unfinished(second, 5)
    assert fetches.on_search_timer(6) == [first, SetTimer(SearchContinues(), 6)]
    assert fetches.on_read_unfinished(first, 6) == [SetTimer(SearchContinues(), 6)]
    assert fetches.on_search_timer(7)[0] is second, "the one that waits longest"
    [reply] = fetches.on_read_done(ReadDone(second, b"", 0), 7)
    assert isinstance(reply, Reply)
    assert reply.to == second.received.sender
    assert fetches.on_search_timer(8) == [first]
    assert fetches.on_search_timer(9) == []


def test_a_search_is_answered_when_the_partition_stops(fetches: Fetches) -> None:
    read = a_read(1)
    fetches.on_read_unfinished(read, 5)
    error = ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, "it stops")
    assert fetches.fail_all(error) == [Reply(read.received.sender, error.body)]
    assert fetches.on_search_timer(6) == []


def test_the_machine_goes_on_with_a_search_when_its_timer_fires() -> None:
    partition = SimulatedPartition()
    partition.ask(Produce(topic="ORDERS", partition=0), [a_batch(b"a"), a_batch(b"b")])
    asked = partition.received(fetch(0))
    replies = partition.turn(ReadUnfinished(Read(asked, 1_000, 2, True)))
    [reply] = replies + partition.advance(1)
    assert reply.to == asked.sender
    assert isinstance(reply.body, FetchReply)
    assert reply.body.next_offset == 2


@pytest.mark.processes
def test_other_requests_are_answered_while_a_search_goes_on(data_dir: Path, run_dir: Path) -> None:
    with PartitionProcess(data_dir, run_dir) as partition:
        partition.start()
        records = [(None, bytes(2_000), 0, None)]
        batch = build(records, first_timestamp_ms=1_000, max_timestamp_ms=1_000)
        produce = Produce(id=1, topic="ORDERS", partition=0)
        partition.ask(produce, ProduceReply, [batch] * BATCHES)
        assert partition.stop() == 0
        (segment,) = (data_dir / "topics/ORDERS/0").glob("*.log")
        data = segment.read_bytes()
        damaged_bytes = DAMAGED * len(data) // BATCHES
        segment.write_bytes(b"\1" * damaged_bytes + data[damaged_bytes:])

        partition.start(IN_SMALL_STEPS)
        partition.send(fetch(0, 2))
        partition.send(ListOffsets(id=4, topic="ORDERS", partition=0, at="latest"))
        reply, _ = partition.receive(ListOffsetsReply)
        assert reply.offset == BATCHES
        error, _ = partition.receive(FetchReply)
        assert (error.code, error.next_offset) == ("CORRUPT_LOG", DAMAGED)
        reply, payload = partition.ask(fetch(DAMAGED), FetchReply)
        assert (reply.next_offset, len(payload)) == (BATCHES, 1)
