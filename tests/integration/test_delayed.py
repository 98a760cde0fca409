"""Delayed messages through real processes: on time, once each, whichever actor is killed meanwhile."""

import random
import time
from pathlib import Path

import pytest

from live_trees import actor, read_topic, until, until_reborn
from planaria import Broker, ProtocolError
from planaria.transport.protocol.errors import ErrorCode

pytestmark = pytest.mark.processes

SETTLED_S = 2.0
"""Maximum lateness of a punctual message. On an undisturbed machine it is some milliseconds."""


def test_a_message_comes_when_it_is_due_and_not_before(broker: Broker) -> None:
    broker.create_topic("T", 1)
    broker.publish("T", None, "at once", delay=0)  # from here on there are schedulers
    with broker.consumer(partitions=[("T", 0)], auto_offset_reset="earliest") as consumer:
        until(lambda: consumer.poll(0.1), "the first message")
        delays = iter([0.3, 0.05, 0.5] * 30)

        def is_punctual() -> bool:
            delay = next(delays)
            asked_at = time.time()
            told = broker.publish("T", "k", {"delay": delay}, delay=delay)
            assert (told.partition, told.offset) == (None, None)
            assert told.scheduled_id
            (message,) = until(lambda: consumer.poll(0.1), "the message")
            late_s = time.time() - asked_at - delay
            assert message.data == {"delay": delay}
            assert message.key == b"k"
            assert late_s >= 0
            return late_s < SETTLED_S

        for _ in range(2):
            is_punctual()
        until(is_punctual, "one is punctual")


def test_what_is_held_back_is_listed_and_cancelled(broker: Broker) -> None:
    broker.create_topic("T", 1)
    client = broker.client
    for number in range(3):
        told = broker.publish("T", None, number, delay=3_600, scheduled_id=f"reminder-{number}")
        assert told.scheduled_id == f"reminder-{number}"
    assert broker.publish("T", None, 0, delay=3_600, scheduled_id="reminder-0").duplicate
    assert {each.scheduled_id for each in client.list_scheduled("T")} == {f"reminder-{n}" for n in range(3)}
    assert len(client.list_scheduled(limit=2)) == 2
    assert client.list_scheduled("OTHER") == []
    client.cancel_scheduled("reminder-1")
    assert {each.scheduled_id for each in client.list_scheduled()} == {"reminder-0", "reminder-2"}
    with pytest.raises(ProtocolError) as refused:
        client.cancel_scheduled("reminder-17")
    assert refused.value.code == ErrorCode.UNKNOWN_SCHEDULED_ID
    assert read_topic(client, "T") == []


def test_each_comes_once_whoever_is_killed(broker: Broker, seed: int) -> None:
    broker.create_topic("T", 2)
    chance = random.Random(seed)
    broker.publish("T", None, "first", delay=0)
    addresses = [
        each.address
        for each in broker.status().actors
        if each.address.startswith(("scheduler/", "partition/", "gateway/", "controller"))
    ]
    assert any(address.startswith("scheduler/") for address in addresses)
    values = []
    deliveries = []
    with broker.producer() as producer:
        for address in chance.sample(addresses, len(addresses)):
            for _ in range(100):
                values.append(f"{len(values)}")
                told = producer.publish(
                    "T", values[-1].encode(), key=values[-1], delay=chance.uniform(0, 1.5)
                )
                deliveries.append(told)
            before = actor(broker.client, address)
            broker.client.kill(address)
            until_reborn(broker.client, before)
    for delivery in deliveries:
        delivery.result(0)
    until(lambda: not broker.client.list_scheduled(), "nothing is held back any more")
    came = sorted(message.value.decode() for message in read_topic(broker.client, "T") if message.key)
    assert came == sorted(values)


def test_they_outlive_the_broker(data_dir: Path) -> None:
    with Broker(data_dir) as broker:
        broker.create_topic("T", 1)
        broker.publish("T", None, "kept", delay=0.5)
    with Broker(data_dir) as broker:
        (message,) = until(lambda: read_topic(broker.client, "T"), "the message")
        assert message.data == "kept"
