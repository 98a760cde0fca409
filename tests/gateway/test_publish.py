"""Publishing single records: partitions, batches, and answers in the records' order."""

from typing import Any
from zlib import crc32

import pytest

from gateway_driver import GatewayDriver
from planaria.transport.batch import DEDUP, decode_records, verify
from planaria.transport.machine import Call
from planaria.transport.protocol.data import (
    ProducedBatch,
    ProduceReply,
    Publish,
    PublishRecord,
)
from planaria.transport.protocol.errors import ErrorBody


@pytest.fixture
def gateway() -> GatewayDriver:
    return GatewayDriver().start(ORDERS=3)


def publish(*records: dict[str, Any], **options: Any) -> Publish:
    return Publish(topic="ORDERS", records=[PublishRecord(**record) for record in records], **options)


def partition_of(call: Call) -> int:
    return int(call.address.rpartition("/")[2])


def rows_of(call: Call) -> list[list[Any]]:
    return [decode_records(frame, verify(frame)) for frame in call.payload]  # type: ignore[misc]


def produced(*bases: int) -> ProduceReply:
    return ProduceReply(batches=[ProducedBatch(base) for base in bases], high_watermark=0)


def test_keys_decide(gateway: GatewayDriver) -> None:
    keys = [b"a", b"b", b"c", b"d", b"a"]
    number = gateway.ask(publish(*({"key": key, "value": b"v"} for key in keys)))
    for call in list(gateway.calls):
        gateway.answer(produced(partition_of(call) * 100), call=call)
    results = gateway.replies[number].records
    assert [each.partition for each in results] == [crc32(key) % 3 for key in keys]
    same = [each.offset for each, key in zip(results, keys, strict=True) if key == b"a"]
    assert same[1] > same[0]


def test_text_is_utf8_and_headers_travel(gateway: GatewayDriver) -> None:
    gateway.ask(publish({"key_text": "ä", "value_text": "é", "headers": {"a": "b"}}))
    (call,) = gateway.calls
    assert partition_of(call) == crc32("ä".encode()) % 3
    assert rows_of(call) == [[("ä".encode(), "é".encode(), 0, {"a": "b"})]]


def test_empty_keys_and_values_are_not_missing_ones(gateway: GatewayDriver) -> None:
    gateway.ask(publish({"key": b"", "value": b""}, {"key_text": "", "value": None}))
    (call,) = gateway.calls
    assert partition_of(call) == crc32(b"") % 3
    assert rows_of(call) == [[(b"", b"", 0, None), (b"", None, 0, None)]]


def test_keyless_records_of_a_request_stay_together_and_requests_take_turns(gateway: GatewayDriver) -> None:
    for _ in range(4):
        gateway.ask(publish({"value": b"1"}, {"value": b"2"}))
    assert [partition_of(call) for call in gateway.calls] == [0, 1, 2, 0]
    assert [len(rows_of(call)[0]) for call in gateway.calls] == [2, 2, 2, 2]


def test_keyless_records_avoid_partitions_that_are_down(gateway: GatewayDriver) -> None:
    gateway.down("partition/ORDERS/1")
    for _ in range(4):
        gateway.ask(publish({"value": b"1"}))
    assert [partition_of(call) for call in gateway.calls] == [0, 2, 0, 2]


def test_a_partition_asked_for(gateway: GatewayDriver) -> None:
    gateway.ask(publish({"key": b"a"}, {"value": b"1"}, partition=2, acks=1))
    (call,) = gateway.calls
    assert (partition_of(call), call.request.acks) == (2, 1)  # type: ignore[union-attr]
    assert gateway.reply(publish({"value": b"1"}, partition=3)).code == "UNKNOWN_PARTITION"


def test_timestamps(gateway: GatewayDriver) -> None:
    gateway.ask(publish({"timestamp_ms": 500}, {"timestamp_ms": 200}, {}))
    frame = gateway.calls[0].payload[0]
    header = verify(frame)
    assert (header.first_timestamp_ms, header.max_timestamp_ms) == (500, gateway.now)
    assert [500 + row[2] for row in decode_records(frame, header)] == [500, 200, gateway.now]


@pytest.mark.parametrize("field", ["key", "value"])
def test_saying_two_things_is_refused_by_name(gateway: GatewayDriver, field: str) -> None:
    reply = gateway.reply(publish({}, {field: b"a", f"{field}_text": "a"}))
    assert reply.code == "INVALID_REQUEST"
    assert reply.message.startswith(f"records[1]: {field} and {field}_text")
    assert gateway.calls == []


def test_a_record_that_is_too_large_is_refused_alone(gateway: GatewayDriver) -> None:
    number = gateway.ask(publish({"value": b"a"}, {"value": bytes(1_001)}, {"value": b"b"}, partition=0))
    gateway.answer(produced(7))
    first, second, third = gateway.replies[number].records
    assert (first.offset, third.offset) == (7, 8)
    assert second.error.code == "MESSAGE_TOO_LARGE"
    assert "records[1]" in second.error.message


def test_the_limit_is_exact(gateway: GatewayDriver) -> None:
    largest = 0
    for size in range(900, 1_001):
        number = gateway.ask(publish({"value": bytes(size)}, partition=0))
        if number in gateway.replies:
            break
        largest = len(gateway.calls[-1].payload[0])
    assert largest == 1_000


def test_many_records_make_batches_within_the_limit(gateway: GatewayDriver) -> None:
    number = gateway.ask(publish(*({"value": bytes([n]) * 400} for n in range(9)), partition=0))
    (call,) = gateway.calls
    assert all(len(frame) <= 1_000 for frame in call.payload)
    assert [row[1][0] for rows in rows_of(call) for row in rows] == list(range(9))
    bases = [0]
    for rows in rows_of(call)[:-1]:
        bases.append(bases[-1] + len(rows))
    gateway.answer(produced(*bases))
    assert [each.offset for each in gateway.replies[number].records] == list(range(9))


def test_no_call_has_too_many_frames(gateway: GatewayDriver) -> None:
    number = gateway.ask(publish(*({"value": bytes(900)} for _ in range(300)), partition=0))
    assert [len(call.payload) for call in gateway.calls] == [128, 128, 44]
    base = 0
    for call in list(gateway.calls):
        gateway.answer(produced(*range(base, base + len(call.payload))), call=call)
        base += 128
    assert [each.offset for each in gateway.replies[number].records] == list(range(300))


def test_partial_failures_stand_beside_their_records(gateway: GatewayDriver) -> None:
    gateway.ask(publish({"value": b"turn"}))
    gateway.answer(produced(0))
    number = gateway.ask(publish({"key": b"a"}, {"key": b"b"}, {"key": b"a"}))
    good, bad = sorted(gateway.calls, key=lambda call: partition_of(call) != crc32(b"a") % 3)
    gateway.fail("PARTITION_OFFLINE", call=bad)
    assert number not in gateway.replies
    gateway.answer(produced(4), call=good)
    first, second, third = gateway.replies[number].records
    assert (first.offset, third.offset, second.offset) == (4, 5, -1)
    assert second.error.retriable


def test_one_plain_error_when_all_failed_alike(gateway: GatewayDriver) -> None:
    number = gateway.ask(publish({"key": b"a"}, {"key": b"b"}, {"key": b"c"}))
    while gateway.calls:
        gateway.fail("STORAGE_FULL")
    assert isinstance(gateway.replies[number], ErrorBody)
    assert gateway.replies[number].code == "STORAGE_FULL"


def test_a_batch_refused_by_the_partition(gateway: GatewayDriver) -> None:
    number = gateway.ask(publish(*({"value": bytes(900)} for _ in range(2)), partition=0))
    full = ProducedBatch(-1, error=ErrorBody("STORAGE_FULL", "no room", True))
    gateway.answer(ProduceReply(batches=[ProducedBatch(3), full], high_watermark=4))
    first, second = gateway.replies[number].records
    assert (first.offset, first.error, second.error.code) == (3, None, "STORAGE_FULL")


def test_unknown_topics_are_asked_for_once(gateway: GatewayDriver) -> None:
    reply = gateway.reply(Publish(topic="NOPE", records=[PublishRecord(value=b"x")]))
    assert (reply.code, gateway.asked) == ("UNKNOWN_TOPIC", 1)


def test_a_topic_that_is_starting_is_waited_for(gateway: GatewayDriver) -> None:
    gateway.set_topics(ORDERS=3, NEW=2)
    number = gateway.ask(Publish(topic="NEW", records=[PublishRecord(value=b"x")]))
    assert gateway.calls == []
    gateway.up("partition/NEW/0")
    gateway.answer(produced(0))
    assert gateway.replies[number].records[0].offset == 0


def test_a_partition_that_is_slow_to_start_holds_up_only_what_must_go_there(gateway: GatewayDriver) -> None:
    gateway.set_topics(ORDERS=3, NEW=2)
    gateway.up("partition/NEW/1")
    keys = {crc32(key) % 2: key for key in (b"a", b"b", b"c", b"d")}
    gateway.ask(Publish(topic="NEW", records=[PublishRecord(value=b"x")]))
    gateway.ask(Publish(topic="NEW", records=[PublishRecord(value=b"x", key=keys[1])]))
    gateway.ask(Publish(topic="NEW", records=[PublishRecord(value=b"x", key=keys[0])]))
    assert [call.address for call in gateway.calls] == ["partition/NEW/1", "partition/NEW/1"]
    gateway.up("partition/NEW/0")
    assert [call.address for call in gateway.calls][2:] == ["partition/NEW/0"]


def test_the_wait_ends(gateway: GatewayDriver) -> None:
    gateway.set_topics(ORDERS=3, NEW=2)
    gateway.ask(Publish(topic="NEW", records=[PublishRecord(value=b"x")]))
    gateway.advance(2_500)
    gateway.up("partition/NEW/0")
    gateway.advance(2_500)
    assert [call.address for call in gateway.calls] == ["partition/NEW/0"], "what is up is used"


def test_records_with_an_identity_are_alone_in_marked_batches(gateway: GatewayDriver) -> None:
    records = [{"value": b"1"}, {"value": b"2", "dedup_id": "a"}, {"value": b"3"}, {"value": b"4"}]
    number = gateway.ask(publish(*records, partition=1))
    (call,) = gateway.calls
    assert [verify(frame).attributes for frame in call.payload] == [0, DEDUP, 0]
    assert rows_of(call)[1] == [(None, b"2", 0, {"dedup-id": "a"})]
    reply = ProduceReply(
        batches=[ProducedBatch(5), ProducedBatch(2, duplicate=True), ProducedBatch(6)], high_watermark=0
    )
    gateway.answer(reply, call=call)
    found = [(each.offset, each.duplicate) for each in gateway.replies[number].records]
    assert found == [(5, False), (2, True), (6, False), (7, False)]


def test_an_identity_decides_where_a_record_without_a_key_goes(gateway: GatewayDriver) -> None:
    for _ in range(3):
        gateway.ask(publish({"value": b"1", "dedup_id": "order-17"}))
    gateway.ask(publish({"key": b"k", "value": b"1", "dedup_id": "order-17"}))
    assert [partition_of(call) for call in gateway.calls] == [crc32(b"order-17") % 3] * 3 + [crc32(b"k") % 3]
