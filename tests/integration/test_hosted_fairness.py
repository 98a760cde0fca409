"""A hosted subscriber that is fetched far ahead serves one key at once behind a hundred thousand records of another."""

import time

import pytest

from planaria import Broker, Context, Message
from planaria.transport.addresses import TopicPartition

pytestmark = [pytest.mark.processes, pytest.mark.chaos]

RECORDS = 100_000


def handle(message: Message, context: Context) -> None:
    if message.key == b"quiet":
        context.publish("OUT", message.data)
    else:
        time.sleep(0.001)


def test_a_key_is_served_within_a_second_behind_a_noisy_one(own_broker: Broker) -> None:
    """On a quiet machine."""
    own_broker.create_topic("T", 1)
    own_broker.create_topic("OUT", 1)
    with own_broker.producer() as producer:
        for _ in range(RECORDS):
            producer.publish("T", b"job", key="noisy")
    own_broker.subscribe("g", "T", handler=handle, concurrency=4, max_records=200_000)
    with own_broker.consumer(partitions=[("OUT", 0)], auto_offset_reset="earliest") as consumer:
        own_broker.publish("T", "quiet", "first")
        assert len(consumer.poll(60)) == 1  # all records in front of it have been fetched
        for number in range(10):
            began = time.monotonic()
            own_broker.publish("T", "quiet", number)
            (served,) = consumer.poll(60)
            assert served.data == number
            assert time.monotonic() - began < 1
    done = own_broker.group_offsets("g").get(TopicPartition("T", 0), 0)
    assert done < RECORDS, "the noisy key still waits"
