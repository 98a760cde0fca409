"""Records are encoded once each, in the order of their appends, and found again as long as a Delivery refers to them."""

from sys import getrefcount

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planaria.transport.batch import (
    ARRAY_HEAD_BYTES,
    HEADER_BYTES,
    RecordFields,
    add_records,
    parse_header,
    verify,
)
from planaria.transport.client import gathered_records
from planaria.transport.client.gathered_records import GatheredRecords
from planaria.transport.client.messages import messages_of
from planaria.transport.client.producer_batch import ProducerBatch

STEPS = st.lists(st.sampled_from(["append", "append and keep", "encode"]), min_size=1, max_size=60)


def values_of(records: GatheredRecords) -> list[bytes | None]:
    batch = ProducerBatch("T", 0, 1 << 20, 1 << 16, 0, lock=None, hasten=lambda _: None)  # type: ignore[arg-type]
    batch.records = records
    frame = batch.build()
    return [message.value for message in messages_of("T", 0, parse_header(frame), frame, 0)]


@given(steps=STEPS)
def test_any_order_of_appends_and_encodings(steps: list[str]) -> None:
    records, kept, count = GatheredRecords(), [], 0
    for step in ["append", *steps]:
        if step == "encode":
            records.encode_previous()
            continue
        record = RecordFields(None, b"%d" % count, count, None)
        records.append(record)
        if step == "append and keep":
            kept.append((count, record))
        del record
        count += 1
        assert len(records) == count
    records.close()
    assert len(records) == count
    assert values_of(records) == [b"%d" % number for number in range(count)]
    assert records.latest_delta_ms == count - 1
    for position, record in kept:
        assert record in records
        assert records.position_of(record) == position


@pytest.mark.parametrize("is_kept", [False, True])
def test_records_stay_only_as_long_as_something_refers_to_them(is_kept: bool) -> None:
    records, value, kept = GatheredRecords(), bytes(1_000), []
    before = getrefcount(value)
    for _ in range(10):
        for _ in range(100):
            record = RecordFields(None, value, 0, None)
            records.append(record)
        if is_kept:
            kept.append(record)
        records.encode_previous()
        del record
    records.close()
    left = getrefcount(value) - before
    assert left >= 900 if is_kept else left <= 20


def test_an_interrupted_encoding_is_completed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler may raise between any two steps of the thread that publishes."""

    class Interrupted(list[RecordFields]):
        def __delitem__(self, index: object) -> None:
            raise KeyboardInterrupt

    records = GatheredRecords()
    for number in range(3):
        records.append(RecordFields(None, b"%d" % number, 0, None))
    newest = records._newest
    records._newest = Interrupted(newest)
    with pytest.raises(KeyboardInterrupt):
        records.encode_previous()
    records._newest = newest
    records.append(RecordFields(None, b"3", 0, None))
    records.close()
    assert values_of(records) == [b"0", b"1", b"2", b"3"]
    monkeypatch.setattr(gathered_records, "add_records", None)
    records.close()  # nothing is left


@pytest.mark.parametrize("count", [2, 40])
def test_an_encoding_that_is_interrupted_halfway_damages_nothing(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """The encoder writes over the last bytes of the part before, which are restored after it."""

    def interrupted(batch: bytearray, end: int, tail: bytes, records: list[RecordFields]) -> None:
        add_records(batch, end, tail, records)
        batch[end - ARRAY_HEAD_BYTES : end] = bytes(ARRAY_HEAD_BYTES)
        raise KeyboardInterrupt

    records = GatheredRecords()
    expected = [b"%d" % number for number in range(2 * count)]
    for value in expected[:count]:
        records.append(RecordFields(None, value, 0, None))
    records.encode_previous()
    for value in expected[count:]:
        records.append(RecordFields(None, value, 0, None))
    with monkeypatch.context() as patched:
        patched.setattr(gathered_records, "add_records", interrupted)
        with pytest.raises(KeyboardInterrupt):
            records.encode_previous()
    records.close()
    assert values_of(records) == expected


def test_a_batch_that_is_built_again_leaves_the_first_attempt_as_it_was() -> None:
    """ZeroMQ may not have sent it yet."""
    batch = ProducerBatch("T", 0, 1 << 20, 1 << 16, 0, lock=None, hasten=lambda _: None)  # type: ignore[arg-type]
    for number in range(40):
        batch.append(RecordFields(None, b"%d" % number, 0, None))
    batch.records.close()
    first = batch.build(1, 0, 0)
    as_it_was = bytes(first)
    second = batch.build(1, 1, 5)
    assert first == as_it_was
    assert verify(second).base_sequence == 5
    assert second[HEADER_BYTES:] == first[HEADER_BYTES:]


def test_own_times_may_go_back() -> None:
    records = GatheredRecords()
    records.has_own_times = True
    for delta_ms in (-5, 9, 3, -7):
        records.append(RecordFields(None, b"", delta_ms, None))
        records.encode_previous()
    records.close()
    assert records.latest_delta_ms == 9
