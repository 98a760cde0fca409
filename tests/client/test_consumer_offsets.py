"""The offsets of a consumer: by time, with metadata, and of topics that are missing."""

from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest

from client_reading import fill, read
from fake_broker import FakeBroker
from patience import TIMEOUT_S
from planaria.transport.client.client import Client
from planaria.transport.protocol.data import ListOffsets
from planaria.transport.protocol.errors import PlanariaError


def test_offsets_for_times_and_whole_batches(client: Client, broker: FakeBroker) -> None:
    fill(client, 20)
    consumer = client.consumer(partitions=[("T", 0)], auto_offset_reset="earliest")
    assert consumer.offsets_for_times({("T", 0): 0, ("T", 1): 0}) == {("T", 0): 0, ("T", 1): -1}
    assert consumer.end_offsets([("T", 0), ("T", 1)]) == {("T", 0): 20, ("T", 1): 0}
    asked = [request for request in broker.seen if isinstance(request, ListOffsets)]
    assert {request.isolation for request in asked} == {"read_committed"}
    count = 0
    while count < 20:
        count += sum(item.header.record_count for item in consumer.poll_batches(10))
    assert consumer.position("T", 0) == 20


@pytest.mark.parametrize("kind", ["member", "free-standing", "without a group"])
def test_while_the_broker_is_away_a_poll_is_empty_and_no_longer_than_told(
    client: Client, broker: FakeBroker, kind: str
) -> None:
    fill(client, 3)
    options: dict[str, Any] = {"auto_offset_reset": "earliest"}
    consumer = {
        "member": lambda: client.consumer("g", ["T"], **options),
        "free-standing": lambda: client.consumer("g", partitions=[("T", 0)], **options),
        "without a group": lambda: client.consumer(None, ["T"], **options),
    }[kind]()
    read(consumer, 3)
    for partition in (0, 1):
        broker.kill_partition("T", partition)
    broker.kill_gateway()
    for _ in range(3):
        began = monotonic()
        assert consumer.poll(0.1) == []
        assert monotonic() - began < TIMEOUT_S / 2


def test_reading_continues_at_a_time(client: Client, broker: FakeBroker) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with client.producer() as producer:
        for minute in range(10):
            time = start + timedelta(minutes=minute)
            producer.publish("T", b"%d" % minute, partition=0, timestamp_ms=time).result(10)
    with client.consumer(partitions=[("T", 0), ("T", 1)], auto_offset_reset="earliest") as consumer:
        assert [message.time for message in read(consumer, 10)][:1] == [start]
        consumer.seek_to_time(start + timedelta(minutes=7))
        assert [message.value for message in read(consumer, 3)] == [b"7", b"8", b"9"]
        assert consumer.position("T", 1) == 0
        consumer.seek_to_time(start + timedelta(days=1), [("T", 0)])
        assert consumer.position("T", 0) == 10


def test_no_message_is_skipped_that_is_appended_while_its_time_is_sought(
    client: Client, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client, 3)
    with client.consumer(partitions=[("T", 0)], auto_offset_reset="earliest") as consumer:
        answered = consumer.end_offsets
        monkeypatch.setattr(consumer, "end_offsets", lambda tps: (answered(tps), fill(client, 3))[0])
        consumer.seek_to_time(2**53)
        assert consumer.position("T", 0) == 3


def test_a_time_needs_an_assignment(client: Client, broker: FakeBroker) -> None:
    with (
        client.consumer("g", ["T"]) as consumer,
        pytest.raises(PlanariaError, match="no partition is assigned"),
    ):
        consumer.seek_to_time(0)


def test_the_metadata_of_commits_is_read_again(client: Client, broker: FakeBroker) -> None:
    with client.consumer("g", partitions=[("T", 0)]) as consumer:
        consumer.commit({("T", 0): 3, ("T", 1): 4})
        assert consumer.committed([("T", 0)]) == {("T", 0): 3}
        assert consumer.committed_metadata() == {("T", 0): "", ("T", 1): ""}


def test_a_timeout_may_be_a_timedelta(client: Client, broker: FakeBroker) -> None:
    fill(client, 1)
    with client.consumer(partitions=[("T", 0)]) as consumer:
        began = monotonic()
        assert consumer.poll(timedelta(milliseconds=200)) == []
        assert monotonic() - began > 0.15
    with client.producer() as producer:
        producer.publish("T", b"x", partition=0).result(timedelta(seconds=10))
        producer.flush(timedelta(seconds=10))
    client.wait_for_broker(timedelta(seconds=10))


def test_a_group_that_waits_for_a_missing_topic_says_so_once(
    client: Client, broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    fill(client, 1)
    with client.consumer("g", ["T", "MISSING"], auto_offset_reset="earliest") as consumer:
        read(consumer, 1)
        for _ in range(2):
            assert consumer.poll(1.2) == []
    warnings = [each.message for each in caplog.records if "does not exist" in each.message]
    assert warnings == [
        "topic 'MISSING' does not exist: the consumer waits for it, and polls return no messages of it"
    ]
