"""The hot path: every record in exactly one sealed batch, whatever the threads do; bounds; waiting."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import pytest

from accumulator_driver import LARGEST_BYTES, Partitions, Sealer, records_of
from live_trees import until
from patience import TIMEOUT_S
from planaria.transport.client import batches as batches_module
from planaria.transport.client import gate as gate_module
from planaria.transport.client import placement as placement_module
from planaria.transport.client.delivery import Delivery, RecordMetadata
from planaria.transport.client.errors import Backpressure, BufferFull, Closed, TimedOut
from planaria.transport.client.gate import Gate
from planaria.transport.client.options import InvalidOption
from planaria.transport.client.pace import SILENCE_MS
from planaria.transport.protocol.errors import ErrorBody

HELD = ErrorBody("BACKPRESSURE", "a group is behind", True, 50)


def test_a_record_is_announced_once_and_sealed_when_taken() -> None:
    sealer = Sealer()
    first = sealer.accumulator.publish("T", b"a")
    second = sealer.accumulator.publish("T", b"b")
    assert len(sealer.announced) == 1
    (batch,) = sealer.take()
    assert [record.value for record in records_of(batch)] == [b"a", b"b"]
    sealer.accumulator.finish(batch, 40, None)
    assert first.result(0) == RecordMetadata("T", 0, 40)
    assert second.result(0) == RecordMetadata("T", 0, 41)
    assert sealer.accumulator.buffered_bytes == 0


def test_a_record_with_an_identity_is_alone_and_sealed_at_birth() -> None:
    sealer = Sealer()
    sealer.accumulator.publish("T", b"other", partition=2)
    delivery = sealer.accumulator.publish("T", b"a", key="k", headers={"h": "1"}, partition=2, dedup_id="id")
    (batch,) = sealer.taken_alone
    [entry] = records_of(batch)
    assert (entry.key, entry.value, entry.headers) == (b"k", b"a", {"h": "1", "dedup-id": "id"})
    assert not batch.is_open
    assert batch in sealer.accumulator.unfinished()
    sealer.accumulator.finish(batch, 7, None, True)
    assert delivery.result(0) == RecordMetadata("T", 2, 7, True)
    assert sealer.accumulator.buffered_bytes == 0


def test_an_identity_decides_where_a_record_without_a_key_goes() -> None:
    sealer = Sealer()
    for _ in range(3):
        sealer.accumulator.publish("T", b"a", dedup_id="order-17")
    assert {batch.partition for batch in sealer.taken_alone} == {crc32(b"order-17") % 4}


@pytest.mark.parametrize("dedup_id", ["", "x" * 257, "\u00e9" * 129])
def test_an_identity_has_a_length(dedup_id: str) -> None:
    with pytest.raises(InvalidOption, match="dedup_id: must have 1 to 256 bytes"):
        Sealer().accumulator.publish("T", b"a", dedup_id=dedup_id)


def test_lingering_ends_when_somebody_waits() -> None:
    sealer = Sealer()
    sealer.publish_in_bulk()
    sealer.announced.clear()
    delivery = sealer.accumulator.publish("T", b"a")
    assert sealer.take(linger_ms=5_000) == []
    with pytest.raises(TimedOut):
        delivery.result(0)
    assert len(sealer.announced) == 2
    assert len(sealer.take(linger_ms=5_000)) == 1


def test_a_lone_message_is_sent_at_once_and_others_gather_while_it_is_in_flight() -> None:
    sealer = Sealer()
    sealer.accumulator.publish("T", b"a")
    assert len(sealer.take(linger_ms=5_000)) == 1
    for _ in range(3):
        sealer.accumulator.publish("T", b"a")
        assert sealer.take(linger_ms=5_000, is_idle=False) == []
    (batch,) = sealer.take(linger_ms=5_000)
    assert batch.record_count == 3


def test_a_producer_that_publishes_in_bulk_lets_batches_fill_up_until_it_slows_down() -> None:
    sealer = Sealer()
    sealer.publish_in_bulk()
    sealer.accumulator.publish("T", b"a")
    assert sealer.take(linger_ms=5) == []
    sealer.now_ms += 5
    assert len(sealer.take(linger_ms=5)) == 1
    sealer.now_ms += 2 * SILENCE_MS
    sealer.accumulator.publish("T", b"a")
    assert len(sealer.take(linger_ms=5_000)) == 1


def test_who_waits_for_a_batch_that_never_lingers_announces_nothing() -> None:
    sealer = Sealer(lingers="not at all")
    delivery = sealer.accumulator.publish("T", b"a")
    with pytest.raises(TimedOut):
        delivery.result(0)
    assert len(sealer.announced) == 1
    assert sealer.take(is_idle=False) == []
    assert len(sealer.take()) == 1


def test_a_batch_that_is_not_full_waits_for_its_lane_to_be_idle() -> None:
    sealer = Sealer()
    sealer.accumulator.publish("T", b"a")
    assert sealer.take(is_idle=False) == []
    assert len(sealer.take()) == 1


@pytest.mark.parametrize("size_bytes", [900, 1_000, 5_000, 15_000])
def test_what_is_acceptable_alone_is_never_made_too_large_by_its_neighbours(size_bytes: int) -> None:
    sealer = Sealer(batch_bytes=100_000)
    values = [bytes([number]) * (size_bytes if number % 3 else 100) for number in range(40)]
    with sealer.running():
        for value in values:
            sealer.accumulator.publish("T", value, partition=0)
    assert [record.value for batch in sealer.taken for record in records_of(batch)] == values
    for batch in sealer.taken:
        frame = batch.build()
        assert len(frame) <= LARGEST_BYTES


def test_keys_choose_the_partition_and_values_travel_as_json() -> None:
    sealer = Sealer()
    sealer.accumulator.publish("T", {"n": 1}, key="key")
    sealer.accumulator.publish("T", "text", key="key", headers={"a": "b"}, timestamp_ms=5)
    (batch,) = sealer.take()
    assert batch.partition == 1, "crc32(b'key') % 4"
    assert [(record.key, record.value) for record in records_of(batch)] == [
        (b"key", b'{"n":1}'),
        (b"key", b'"text"'),
    ]
    assert records_of(batch)[1].headers == {"a": "b", "content-type": "application/json"}
    assert batch.first_ms + records_of(batch)[1].delta_ms == 5
    assert batch.records.latest_delta_ms == 0


def test_a_topic_that_has_grown_places_keys_among_all_partitions_from_the_next_batch_on() -> None:
    sealer = Sealer()
    keys = [f"k{number}" for number in range(64)]
    for key in keys:
        sealer.accumulator.publish("T", b"v", key=key)
    sealer.take()
    sealer.destinations.count = 8
    for key in keys * 2:
        sealer.accumulator.publish("T", b"v", key=key)
    grown = sealer.take()
    assert {batch.partition for batch in grown} == set(range(8))
    for batch in grown:
        assert {crc32(record.key or b"") % 8 for record in records_of(batch)} == {batch.partition}


@pytest.mark.parametrize("key", [b"k", "k", bytearray(b"k"), memoryview(b"k")])
def test_a_key_of_any_kind_is_bytes_in_its_batch_and_chooses_one_partition(key: Any) -> None:
    sealer = Sealer()
    for _ in range(3):  # the first opens the batch, the others find it open
        sealer.accumulator.publish("T", b"v", key=key)
    (batch,) = sealer.take()
    assert [record.key for record in records_of(batch)] == [b"k"] * 3
    assert batch.partition == crc32(b"k") % 4


@pytest.mark.parametrize("key", ["\ud800", 7, ["k"]])
def test_a_key_that_cannot_be_sent_is_refused_also_while_its_batch_is_open(key: Any) -> None:
    sealer = Sealer()
    for number in range(16):
        sealer.accumulator.publish("T", b"v", key=f"k{number}")
    for _ in range(2):
        with pytest.raises(InvalidOption):
            sealer.accumulator.publish("T", b"v", key=key)


def test_a_full_buffer_refuses_after_a_while() -> None:
    sealer = Sealer(buffer_bytes=1)
    sealer.accumulator.publish("T", b"a")
    (batch,) = sealer.take()
    with pytest.raises(BufferFull):
        sealer.accumulator.publish("T", b"b")
    sealer.accumulator.finish(batch, 0, None)
    sealer.accumulator.publish("T", b"b")


@contextmanager
def in_the_network_thread() -> Iterator[None]:
    """Run as a delivery callback, which must not wait for its own thread."""
    try:
        gate_module._here.is_opener = True
        yield
    finally:
        gate_module._here.is_opener = False


def test_a_callback_that_fills_its_own_batch_goes_on() -> None:
    sealer = Sealer(is_automatic=False, batch_bytes=1_000)
    finished: list[bool] = []

    def publish_three() -> None:
        with in_the_network_thread():
            for number in range(3):
                sealer.accumulator.publish("T", b"%d" % number * 900)
            finished.append(True)

    thread = threading.Thread(target=publish_three, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    assert finished == [True]
    batches = sealer.take()
    assert [[record.value[:1] for record in records_of(batch)] for batch in batches] == [[b"0", b"1"], [b"2"]]


def test_a_callback_is_refused_at_once_when_the_buffer_is_full() -> None:
    sealer = Sealer(is_automatic=False, buffer_bytes=1, max_block_ms=60_000, batch_records=1)
    with in_the_network_thread():
        sealer.accumulator.publish("T", b"1")
        with pytest.raises(BufferFull):
            sealer.accumulator.publish("T", b"2")


def test_who_waits_for_room_is_refused_at_once_when_the_producer_ends() -> None:
    sealer = Sealer(buffer_bytes=1, max_block_ms=120_000)
    sealer.accumulator.publish("T", b"a")
    sealer.take()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(sealer.accumulator.publish, "T", b"b")
        until(waiting.running, "the second publisher to begin")
        sealer.accumulator.stop(Closed("closed"))
        with pytest.raises(Closed):
            waiting.result(30)


def test_who_filled_a_batch_waits_for_its_sealing_and_not_for_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sealer = Sealer(batch_records=1)
    condition = sealer.accumulator._changed
    is_waiting, wait_for = threading.Event(), condition.wait_for

    def noticed(predicate: Callable[[], bool]) -> bool:
        is_waiting.set()
        return wait_for(predicate, 60)

    monkeypatch.setattr(condition, "wait_for", noticed)
    with ThreadPoolExecutor(1) as threads:
        publishing = threads.submit(sealer.accumulator.publish, "T", b"a")
        assert is_waiting.wait(TIMEOUT_S)
        assert len(sealer.take()) == 1
        assert not publishing.result(30).done()


def test_a_record_takes_as_much_of_the_buffer_alone_as_among_others() -> None:
    sealer = Sealer()
    sealer.accumulator.publish("T", b"a" * 100, key="key", headers={"h": "1", "dedup-id": "id"}, partition=0)
    [among] = sealer.take()
    sealer.accumulator.publish("T", b"a" * 100, key="key", headers={"h": "1"}, dedup_id="id")
    [alone] = sealer.taken_alone
    assert alone.size_bytes == among.size_bytes == sealer.accumulator.buffered_bytes // 2


def test_after_the_end_nothing_is_taken() -> None:
    sealer = Sealer()
    sealer.accumulator.publish("T", b"a")
    sealer.accumulator.stop(Closed("over"))
    with pytest.raises(Closed):
        sealer.accumulator.publish("T", b"b")
    assert len(sealer.take()) == 1, "what was taken before is still delivered"


def test_callbacks_run_when_done_and_a_faulty_one_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    sealer = Sealer()
    delivery = sealer.accumulator.publish("T", b"a")
    seen: list[Delivery] = []
    delivery.add_callback(lambda _: seen.append(1 / 0))  # type: ignore[arg-type]
    delivery.add_callback(seen.append)
    (batch,) = sealer.take()
    sealer.accumulator.finish(batch, -1, ValueError("no"))
    delivery.add_callback(seen.append)
    assert seen == [delivery, delivery]
    assert "callback" in caplog.text
    assert isinstance(delivery.exception(0), ValueError)
    with pytest.raises(ValueError, match="no"):
        delivery.result(0)


def test_everybody_who_waits_for_a_batch_is_let_pass() -> None:
    sealer = Sealer()
    delivery = sealer.accumulator.publish("T", b"a")
    results: list[Any] = []
    waiting = [threading.Thread(target=lambda: results.append(delivery.result(5))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    while len(delivery._batch.gates) < 3:
        assert sealer.wake.wait(TIMEOUT_S)
    (batch,) = sealer.take()
    sealer.accumulator.finish(batch, 7, None)
    for thread in waiting:
        thread.join(TIMEOUT_S)
    assert results == [RecordMetadata("T", 0, 7)] * 3


def test_whoever_gives_up_waiting_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    sealer = Sealer()
    delivery = sealer.accumulator.publish("T", b"a")
    for timeout in (0, -1, 0.001):
        with pytest.raises(TimedOut):
            delivery.result(timeout)

    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Gate, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            delivery.result()
    assert delivery._batch.gates == []
    (batch,) = sealer.take()
    sealer.accumulator.finish(batch, 7, None)
    assert delivery.result() == RecordMetadata("T", 0, 7)


def test_a_straggler_goes_into_the_next_batch() -> None:
    """A publisher found the open batch, and it was sealed before the append."""
    sealer = Sealer()
    sealer.accumulator.publish("T", b"a")
    open_batch = sealer.accumulator._sticky["T"]
    sealer.take()
    sealer.accumulator._sticky["T"] = open_batch  # the batch that the late publisher holds
    original = open_batch.append
    open_batch.append = lambda record: (original(record), sealer.accumulator._sticky.pop("T", None))[0]
    late = sealer.accumulator.publish("T", b"late")
    (batch,) = sealer.take()
    assert [record.value for record in records_of(batch)] == [b"late"]
    assert late._batch is batch
    assert [record.value for record in records_of(sealer.taken[0])] == [b"a"]


@pytest.mark.parametrize("key", [None, "k"])
def test_threads_lose_and_repeat_nothing(key: str | None) -> None:
    sealer = Sealer(batch_bytes=700)
    threads, each = 4, 3_000
    partition = 0 if key is None else crc32(key.encode()) % 4

    def publish(thread: int) -> None:
        for number in range(each):
            value = b"%d %d" % (thread, number)
            if number % 3:
                sealer.accumulator.publish("T", value, key=key)
            else:
                sealer.accumulator.publish("T", value, partition=partition)

    publishers = [threading.Thread(target=publish, args=(number,)) for number in range(threads)]
    with sealer.running():
        for thread in publishers:
            thread.start()
        for thread in publishers:
            thread.join()
    values = [record.value for batch in sealer.taken for record in records_of(batch)]
    assert len(values) == threads * each
    for thread_number in range(threads):
        prefix = b"%d " % thread_number
        mine = [value for value in values if value.startswith(prefix)]
        assert mine == [b"%d %d" % (thread_number, number) for number in range(each)]
    assert all(batch.size_bytes < 700 + 4 * 40 for batch in sealer.taken)


def test_an_impatient_publisher_is_refused_while_its_partition_is_held() -> None:
    sealer = Sealer(is_patient=False)
    taken = sealer.accumulator.publish("T", b"before")
    sealer.accumulator.hold(("T", 0), HELD)
    for given in ({}, {"partition": 0}, {"partition": 0, "dedup_id": "x"}):
        with pytest.raises(Backpressure) as refused:
            sealer.accumulator.publish("T", b"a", **given)
        assert refused.value.retry_after_ms == 50
    sealer.accumulator.publish("T", b"elsewhere", partition=1)
    sealer.accumulator.release(("T", 0))
    sealer.accumulator.publish("T", b"after")
    batches = sealer.take()
    assert sorted(record.value for batch in batches for record in records_of(batch)) == [
        b"after", b"before", b"elsewhere",
    ]  # fmt: skip
    assert not taken.done()


def test_a_held_partition_refuses_what_would_go_into_its_open_batch() -> None:
    sealer = Sealer(is_patient=False)
    batch = sealer.accumulator._find("T", None)  # open, and still empty
    sealer.accumulator.hold(("T", 0), HELD)
    with pytest.raises(Backpressure):
        sealer.accumulator.publish("T", b"a")
    assert not batch.is_open
    assert sealer.take() == []
    assert sealer.accumulator.unfinished() == []


def test_a_patient_publisher_waits_for_room_as_long_as_a_partition_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sealer = Sealer(buffer_bytes=100, max_block_ms=20)
    sealer.accumulator.publish("T", b"v" * 200)
    (batch,) = sealer.take()
    time_s, looks_late = 0.0, threading.Event()

    def monotonic() -> float:
        if time_s == 0.03:
            looks_late.set()
        return time_s

    monkeypatch.setattr(batches_module, "monotonic", monotonic)
    publisher = threading.Thread(target=lambda: sealer.accumulator.publish("T", b"waits"))
    publisher.start()
    time_s = 0.015
    sealer.accumulator.hold(("T", 0), HELD)
    looks_late.clear()
    time_s = 0.03
    assert looks_late.wait(TIMEOUT_S), "it has waited for longer than max_block_ms, and waits on"
    sealer.accumulator.finish(batch, 0, None)
    publisher.join()
    assert [record.value for batch in sealer.take() for record in records_of(batch)] == [b"waits"]


def test_a_patient_publisher_is_not_refused_by_a_held_partition() -> None:
    sealer = Sealer()
    sealer.accumulator.hold(("T", 0), HELD)
    sealer.accumulator.publish("T", b"a")
    assert ("T", 0) in sealer.accumulator._held


@pytest.mark.parametrize("size_bytes", [10, 100, 1_000])
def test_the_clock_is_read_once_in_so_many_records_of_any_size(
    monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    sealer = Sealer(batch_bytes=1 << 20, is_patient=True)
    monkeypatch.setattr(Partitions, "largest_batch_of", lambda *_: 1 << 22)
    readings = []

    def clock() -> float:
        readings.append(len(readings))
        return 1_000.0 + len(readings)

    monkeypatch.setattr(placement_module, "time", clock)
    for _ in range(640):
        sealer.accumulator.publish("T", b"v" * size_bytes)
    assert 2 <= len(readings) <= 640 // placement_module.CLOCK_RECORDS + 2
