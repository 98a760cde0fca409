"""Transactions in a partition: markers, the view of readers of committed records, late batches, open transactions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planaria.actors.journal.transaction_reports import REPORT_LATER_MS
from planaria.transport.batch import TRANSACTIONAL
from planaria.transport.machine import Answered, Call, Failed
from planaria.transport.producer_ids import transactional_producer_id
from planaria.transport.protocol.data import Fetch, ListOffsets, Produce
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.topics import DeleteRecords
from planaria.transport.protocol.transactions import (
    REPORT_AFTER_MS,
    AddToTransaction,
    Marker,
    WriteMarkers,
)
from simulated_partition import Crashed, SimulatedPartition, a_batch

A, B = transactional_producer_id(0, 7), transactional_producer_id(1, 8)
TP: dict[str, Any] = {"topic": "ORDERS", "partition": 0}


@pytest.fixture
def partition() -> SimulatedPartition:
    return SimulatedPartition()


def publish(
    partition: SimulatedPartition, *values: bytes, by: int = A, epoch: int = 0, sequence: int = 0
) -> Any:
    frame = a_batch(
        *values, attributes=TRANSACTIONAL, producer_id=by, producer_epoch=epoch, base_sequence=sequence
    )
    reply = partition.ask(Produce(**TP), [frame])
    assert reply is not None
    return reply.body.batches[0]  # type: ignore[union-attr]


def end(partition: SimulatedPartition, is_committed: bool, by: int = A, epoch: int = 0) -> None:
    reply = partition.ask(WriteMarkers(**TP, markers=[Marker(by, epoch, is_committed)]))
    assert reply is not None
    assert reply.body == Done()


def read(partition: SimulatedPartition, offset: int = 0, **fields: Any) -> Any:
    reply = partition.ask(Fetch(**TP, offset=offset, **fields), as_json=True)
    assert reply is not None
    return reply.body


def values(partition: SimulatedPartition, **fields: Any) -> list[bytes]:
    return [record.value for record in read(partition, **fields).records]


def test_committed_records_are_seen_when_the_marker_is_there(partition: SimulatedPartition) -> None:
    partition.ask(Produce(**TP), [a_batch(b"plain")])
    publish(partition, b"a", b"b")
    partition.ask(Produce(**TP), [a_batch(b"behind")])
    assert values(partition) == [b"plain"]
    assert values(partition, isolation="read_uncommitted") == [b"plain", b"a", b"b", b"behind"]
    found = read(partition)
    assert (found.last_stable_offset, found.high_watermark, found.next_offset) == (1, 4, 1)
    end(partition, True)
    assert values(partition) == [b"plain", b"a", b"b", b"behind"]
    assert read(partition).next_offset == 5


def test_aborted_records_are_never_seen(partition: SimulatedPartition) -> None:
    publish(partition, b"a")
    publish(partition, b"other", by=B)
    end(partition, False)
    end(partition, True, by=B)
    publish(partition, b"next", epoch=1)
    end(partition, True, epoch=1)
    assert values(partition) == [b"other", b"next"]
    reply = partition.ask(Fetch(**TP, offset=0, format="batches"))
    assert reply is not None
    named = [(each.producer_id, each.producer_epoch) for each in reply.body.aborted]  # type: ignore[union-attr]
    assert named == [(A, 0)]
    assert values(partition, isolation="read_uncommitted") == [b"a", b"other", b"next"]


def test_a_reader_waits_at_the_last_stable_offset_and_no_longer(partition: SimulatedPartition) -> None:
    publish(partition, b"a")
    asked = partition.received(Fetch(**TP, offset=0, max_wait_ms=5_000), as_json=True)
    assert partition.turn(asked) == []
    more = a_batch(b"b", attributes=TRANSACTIONAL, producer_id=A, producer_epoch=0, base_sequence=1)
    assert len(partition.turn(partition.received(Produce(**TP), [more]))) == 1
    replies = partition.turn(partition.received(WriteMarkers(**TP, markers=[Marker(A, 0, True)])))
    (answer,) = [reply for reply in replies if reply.to == asked.sender]
    assert [record.value for record in answer.body.records] == [b"a", b"b"]  # type: ignore[union-attr]


def test_what_comes_late_is_fenced(partition: SimulatedPartition) -> None:
    publish(partition, b"a")
    end(partition, False)
    assert publish(partition, b"late", sequence=1).error.code == ErrorCode.PRODUCER_FENCED
    end(partition, True, by=B)  # it never wrote here, and no longer can
    assert publish(partition, b"late", by=B).error.code == ErrorCode.PRODUCER_FENCED
    assert publish(partition, b"next", by=B, epoch=1).error is None


def test_a_marker_is_written_once(partition: SimulatedPartition) -> None:
    publish(partition, b"a")
    for _ in range(3):
        end(partition, True)
    publish(partition, b"next", epoch=1)
    end(partition, True)
    assert partition.log_end_offset == 3
    assert values(partition) == [b"a"]


def test_the_next_one_may_begin_before_the_marker(partition: SimulatedPartition) -> None:
    publish(partition, b"a")
    publish(partition, b"next", epoch=1)
    assert values(partition) == []
    end(partition, True)
    assert values(partition) == [b"a"]
    assert publish(partition, b"more", epoch=1, sequence=1).error is None
    end(partition, False, epoch=1)
    assert values(partition) == [b"a"]
    assert read(partition).last_stable_offset == partition.log_end_offset


@pytest.mark.parametrize(
    ("producer_id", "attributes", "wrong"), [(5, TRANSACTIONAL, "if and only if"), (A, 0, "if and only if")]
)
def test_producer_and_batch_must_agree(
    partition: SimulatedPartition, producer_id: int, attributes: int, wrong: str
) -> None:
    frame = a_batch(b"a", attributes=attributes, producer_id=producer_id, producer_epoch=0, base_sequence=0)
    reply = partition.ask(Produce(**TP), [frame])
    assert reply is not None
    assert wrong in reply.body.batches[0].error.message  # type: ignore[union-attr]


def test_latest_is_where_a_reader_of_committed_records_would_go_on(partition: SimulatedPartition) -> None:
    publish(partition, b"a")
    for isolation, expected in (("read_committed", 0), ("read_uncommitted", 1)):
        reply = partition.ask(ListOffsets(**TP, at="latest", isolation=isolation))  # type: ignore[arg-type]
        assert reply is not None
        assert reply.body.offset == expected  # type: ignore[union-attr]


def test_by_time_nothing_open_is_found(partition: SimulatedPartition) -> None:
    publish(partition, b"a")
    partition.ask(Produce(**TP), [a_batch(b"behind")])

    def found(isolation: Any) -> int:
        reply = partition.ask(ListOffsets(**TP, at=0, isolation=isolation))
        assert reply is not None
        return reply.body.offset  # type: ignore[union-attr]

    assert (found("read_committed"), found("read_uncommitted")) == (-1, 0)
    end(partition, False)
    assert found("read_committed") == 0


def test_readers_end_at_the_logs_start_at_least(partition: SimulatedPartition) -> None:
    publish(partition, b"a")
    partition.ask(Produce(**TP), [a_batch(b"behind")])
    partition.ask(DeleteRecords(**TP, before_offset=1))
    reply = partition.ask(ListOffsets(**TP, at="latest", isolation="read_committed"))
    assert reply is not None
    assert reply.body.offset == 1  # type: ignore[union-attr]
    found = read(partition, 1)
    assert (found.log_start_offset, found.last_stable_offset, found.records) == (1, 1, [])
    end(partition, True)
    assert values(partition, offset=1) == [b"behind"]


def reports(partition: SimulatedPartition) -> list[Call]:
    found = [effect for effect in partition.performed if isinstance(effect, Call)]
    partition.performed.clear()
    return found


def test_what_stays_open_is_reported_until_it_is_heard(partition: SimulatedPartition) -> None:
    publish(partition, b"a", by=B)
    partition.advance(REPORT_AFTER_MS - 1)
    assert reports(partition) == []
    partition.advance(1)
    (call,) = reports(partition)
    assert call.address == "transactions/1"
    assert call.request == AddToTransaction(producer_id=B, producer_epoch=0, partitions={"ORDERS": [0]})
    partition.turn(Failed(call.key, ErrorBody("ACTOR_UNAVAILABLE", "down", True)))
    partition.advance(5_000)
    (call,) = reports(partition)
    partition.turn(Answered(call.key, Done()))
    partition.advance(REPORT_LATER_MS - 1)
    assert reports(partition) == []
    partition.advance(1)
    assert len(reports(partition)) == 1


def test_what_ends_in_time_is_not_reported(partition: SimulatedPartition) -> None:
    publish(partition, b"a")
    end(partition, True)
    partition.advance(60_000)
    assert reports(partition) == []


def test_after_a_restart_it_is_reported_again(partition: SimulatedPartition) -> None:
    publish(partition, b"a")
    partition.advance(REPORT_AFTER_MS)
    reports(partition)
    with pytest.raises(Crashed):
        partition.turn(crash_at="before the write")
    partition.advance(REPORT_AFTER_MS)
    assert len(reports(partition)) == 1


@given(st.data())
def test_committed_readers_see_all_of_a_transaction_or_nothing(data: st.DataObject) -> None:
    """Random transactions, crashes and full disks; one reader follows, and never has to take anything back."""
    partition = SimulatedPartition()
    epochs, sequences = {A: 0, B: 0}, {A: 0, B: 0}
    written: dict[tuple[int, int], list[bytes]] = {}
    outcomes: dict[tuple[int, int], bool] = {}
    seen: list[bytes] = []
    position = stable = 0
    for number in range(data.draw(st.integers(1, 30))):
        producer = data.draw(st.sampled_from([A, B]))
        key = (producer, epochs[producer])
        kind = data.draw(st.sampled_from(["publish", "publish", "commit", "abort", "crash", "full", "read"]))
        if kind == "publish":
            value = b"%d" % number
            if (
                publish(partition, value, by=producer, epoch=key[1], sequence=sequences[producer]).error
                is None
            ):
                sequences[producer] += 1
                written.setdefault(key, []).append(value)
        elif kind in ("commit", "abort"):
            end(partition, kind == "commit", *key)
            outcomes[key] = kind == "commit"
            epochs[producer], sequences[producer] = key[1] + 1, 0
        elif kind == "crash":
            with pytest.raises(Crashed):
                partition.turn(crash_at="after the sync")
        elif kind == "full":
            partition.is_disk_full = True
            frame = a_batch(
                b"lost", attributes=TRANSACTIONAL, producer_id=key[0], producer_epoch=key[1],
                base_sequence=sequences[producer],
            )  # fmt: skip
            reply = partition.ask(Produce(**TP), [frame])
            assert reply is not None
            assert reply.body.code == ErrorCode.STORAGE_FULL  # type: ignore[union-attr]
            partition.is_disk_full = False
        found = read(partition, position)
        assert found.last_stable_offset >= stable
        stable = found.last_stable_offset
        assert found.next_offset <= stable
        position = found.next_offset
        seen += [record.value for record in found.records]
    committed = {value for key, some in written.items() if outcomes.get(key) for value in some}
    assert set(seen) <= committed
    for producer in (A, B):
        end(partition, False, producer, epochs[producer])
    seen += values(partition, offset=position)
    assert sorted(seen) == sorted(committed)
