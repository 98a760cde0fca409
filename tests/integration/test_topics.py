"""Topics that change while they are in use: deleted, recreated, grown, trimmed."""

import os
import signal
import threading
from pathlib import Path

import pytest
from msgspec import structs

from live_trees import TIMEOUT_S, actor, read_topic, until
from planaria import Broker, ProtocolError
from planaria.actors.controller.catalog import decode_catalog, encode_catalog
from planaria.actors.controller.storage import CATALOG_NAME
from planaria.transport.client.errors import DeliveryUncertain, OffsetOutOfRange

pytestmark = pytest.mark.processes


def consume(consumer: object, count: int) -> list[object]:
    found: list[object] = []
    while len(found) < count:
        messages = consumer.poll(TIMEOUT_S)  # type: ignore[attr-defined]
        assert messages, f"only {len(found)} of {count} came"
        found += [message.data for message in messages]
    return found


def test_a_deleted_topic_made_again_is_empty(broker: Broker) -> None:
    for life in range(3):
        broker.create_topic("T", 2)
        for number in range(10):
            broker.publish("T", f"k{number}", [life, number])
        assert sorted(message.data for message in read_topic(broker.client, "T")) == [
            [life, n] for n in range(10)
        ]
        broker.client.delete_topic("T")
        assert "T" not in [each.topic for each in broker.client.list_topics()]
    with pytest.raises(ProtocolError) as refused:
        broker.client.describe_topic("T")
    assert refused.value.code == "UNKNOWN_TOPIC"
    assert not [each for each in broker.status().actors if each.address.startswith("partition/T/")]


def test_a_producer_goes_on_over_deletion_and_creation(broker: Broker) -> None:
    """Its sequence numbers mean nothing to the new log."""
    broker.create_topic("T", 1)
    with broker.producer() as producer:
        assert producer.publish("T", "old").result(TIMEOUT_S).offset == 0
        broker.client.delete_topic("T")
        broker.create_topic("T", 1)
        deliveries = [producer.publish("T", n) for n in range(5)]
        assert [delivery.result(TIMEOUT_S).offset for delivery in deliveries] == list(range(5))
    assert [message.data for message in read_topic(broker.client, "T")] == list(range(5))


def test_a_topic_created_again_with_fewer_partitions_gets_what_is_published_at_once(broker: Broker) -> None:
    """The client that deletes and creates it forgets the partitions that it knew."""
    with broker.producer() as producer:
        for _ in range(3):
            broker.create_topic("T", 4)
            for number in range(8):
                producer.publish("T", b"", partition=number % 4)
            producer.flush(TIMEOUT_S)
            broker.client.delete_topic("T")
            broker.create_topic("T", 1)
            for number in range(40):
                producer.publish("T", b"", key=str(number) if number % 2 else None)
            producer.flush(TIMEOUT_S)
            assert broker.client.describe_topic("T").partitions[0].log_end_offset == 40
            broker.client.delete_topic("T")


def test_what_a_producer_had_in_flight_is_never_uncertain_when_its_topic_is_created_again(
    broker: Broker,
) -> None:
    """Batches sent to the old topic went with it; retries are refused by the new one before they are written."""
    broker.create_topic("T", 1)
    with broker.producer() as producer:
        deliveries = []
        for life in range(4):
            deliveries += [producer.publish("T", [life, n]) for n in range(200)]
            broker.client.delete_topic("T")
            broker.create_topic("T", 1)
        failures = [delivery.exception(TIMEOUT_S) for delivery in deliveries]
    assert not [failure for failure in failures if isinstance(failure, DeliveryUncertain)]


def test_a_topic_grows_under_a_group(broker: Broker) -> None:
    broker.create_topic("T", 1)
    published = 0
    with broker.consumer("g", ["T"], auto_offset_reset="earliest") as consumer:
        for partitions in (2, 4):
            for _ in range(10):
                broker.publish("T", f"k{published}", published)
                published += 1
            assert sorted(consume(consumer, 10)) == list(range(published - 10, published))  # type: ignore[type-var]
            broker.client.alter_topic("T", partitions)
            until(lambda: consumer.poll(0.01) or len(consumer.assignment()) == partitions, "all are assigned")  # noqa: B023
        for _ in range(40):
            broker.publish("T", f"k{published}", published)
            published += 1
        assert sorted(consume(consumer, 40)) == list(range(published - 40, published))  # type: ignore[type-var]
    assert all(end.offset for end in (broker.client.list_offsets("T", n) for n in range(4)))


def test_retention_moves_the_start_and_the_reset_decides(broker: Broker) -> None:
    broker.create_topic("T", 1, segment_bytes=4096, segment_ms=100, retention_bytes=8192)
    with (
        broker.consumer(partitions=[("T", 0)], auto_offset_reset="earliest") as lenient,
        broker.consumer(partitions=[("T", 0)], auto_offset_reset="error") as strict,
    ):
        lenient.seek("T", 0, 0)
        lenient.pause(("T", 0))
        with broker.producer(linger_ms=0) as producer:
            for _ in range(40):
                producer.publish("T", b"x" * 1024).result(TIMEOUT_S)
        start = until(lambda: broker.client.list_offsets("T", 0, "earliest").offset, "the start moves")
        strict.seek("T", 0, start - 1)
        with pytest.raises(OffsetOutOfRange):
            strict.poll(TIMEOUT_S)

        def first_at_the_start() -> tuple[int, int] | None:
            """Return the start, and the first offset read there; None when retention moved the start between the two."""
            start = broker.client.list_offsets("T", 0, "earliest").offset
            strict.seek("T", 0, start)
            try:
                return start, strict.poll(TIMEOUT_S)[0].offset
            except OffsetOutOfRange:
                return None

        start, first = until(first_at_the_start, "the start stays while it is read")
        assert 0 < start < 40
        assert first == start
        lenient.seek("T", 0, 0)
        lenient.resume(("T", 0))
        assert lenient.poll(TIMEOUT_S)[0].offset >= start
    assert broker.client.list_offsets("T", 0, "latest").offset == 40


def test_deleted_records_stay_deleted(broker: Broker) -> None:
    broker.create_topic("T", 1)
    for number in range(10):
        broker.publish("T", "k", number)
    assert broker.client.delete_records("T", 0, 4) == 4
    broker.kill("partition/T/0")
    assert [message.data for message in read_topic(broker.client, "T")] == [4, 5, 6, 7, 8, 9]
    assert broker.client.delete_records("T", 0) == 10
    with pytest.raises(ProtocolError) as refused:
        broker.client.delete_records("T", 0, 11)
    assert refused.value.code == "OFFSET_OUT_OF_RANGE"
    assert broker.publish("T", "k", 10).offset == 10
    assert [message.data for message in read_topic(broker.client, "T")] == [10]


def test_topics_are_made_and_deleted_while_the_controller_dies(broker: Broker) -> None:
    """Creation or deletion repeated by a client that saw no answer is done once; nothing is half done."""
    over = threading.Event()
    kills = 0

    def kill() -> None:
        nonlocal kills
        while not over.wait(0.05):
            try:
                if actor(broker.client, "controller").state == "ready":
                    broker.kill("controller")
                    kills += 1
            except ProtocolError:
                pass  # it has died meanwhile

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for number in range(8):
            broker.create_topic(f"T{number}", 2)
            if number % 2:
                broker.client.delete_topic(f"T{number}")
    finally:
        over.set()
        killer.join()
    assert kills
    assert [each.topic for each in broker.client.list_topics()] == [f"T{n}" for n in range(0, 8, 2)]
    for number in range(0, 8, 2):
        broker.publish(f"T{number}", "k", number)
        assert [message.data for message in read_topic(broker.client, f"T{number}")] == [number]


def test_a_named_message_is_there_once_over_kills(broker: Broker) -> None:
    """Through the client and through the gateway, with the partition killed in between."""
    broker.create_topic("T", 2)
    for number in range(30):
        first = broker.publish("T", f"k{number % 3}", number, dedup_id=f"order-{number}")
        if number % 10 == 0:
            broker.kill(f"partition/T/{first.partition}")
        again = broker.client.publish("T", number, key=f"k{number % 3}", dedup_id=f"order-{number}")
        assert again == first._replace(duplicate=True)
    with broker.producer(linger_ms=0) as producer:
        repeats = [producer.publish("T", n, key=f"k{n % 3}", dedup_id=f"order-{n}") for n in range(30)]
        assert all(repeat.result(TIMEOUT_S).duplicate for repeat in repeats)
    assert sorted(message.data for message in read_topic(broker.client, "T")) == list(range(30))


def test_a_change_whose_controller_dies_before_it_tells_the_partitions_is_in_force(
    own_broker: Broker,
) -> None:
    """The change is in the file of the catalog, as after a kill between its write and the messages that follow."""
    own_broker.create_topic("T", 1)
    own_broker.publish("T", "k", "x" * 500)
    controller, partition = actor(own_broker, "controller"), actor(own_broker, "partition/T/0")
    assert controller.pid is not None
    os.kill(controller.pid, signal.SIGSTOP)
    file = Path(own_broker.status().data_directory) / CATALOG_NAME
    catalog = decode_catalog(file.read_bytes(), str(file))
    entry = catalog.topics["T"]
    config = structs.replace(entry.config, max_message_bytes=100)
    file.write_bytes(encode_catalog(catalog.with_topic_changed("T", 1, config)))
    os.kill(controller.pid, signal.SIGKILL)

    def is_in_force() -> bool:
        with own_broker.client.producer() as producer:
            outcome = producer.publish("T", "x" * 500).exception(TIMEOUT_S)
        return isinstance(outcome, ProtocolError) and outcome.code == "MESSAGE_TOO_LARGE"

    until(is_in_force, "the change")
    assert actor(own_broker, "partition/T/0").pid == partition.pid
