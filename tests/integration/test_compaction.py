"""Compacted topics in a real broker: consumers at all positions, concurrent producers, kills in between."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from live_trees import TIMEOUT_S, actor, until, until_reborn
from planaria import Broker, Message
from planaria.transport.protocol.data import Fetch, FetchReply

pytestmark = pytest.mark.processes

POLL_S = 0.2
SETTINGS: dict[str, Any] = {
    "cleanup": "compact", "segment_bytes": 20_000, "segment_ms": 200, "min_cleanable_ratio": 0.01,
}  # fmt: skip


def publish(broker: Broker, count: int, keys: int, first: int = 0) -> None:
    with broker.producer() as producer:
        for number in range(first, first + count):
            producer.publish("T", b"%d" % number, key=f"k{number % keys}")
            if number % 500 == 0:
                producer.flush()


def consumed(broker: Broker, end: int, start: int | str = "earliest") -> Iterator[Message]:
    with broker.client.consumer(partitions=[("T", 0)], auto_offset_reset="earliest") as consumer:
        if isinstance(start, int):
            consumer.seek("T", 0, start)
        while consumer.position("T", 0) < end:
            yield from consumer.poll(POLL_S)


def size_of(broker: Broker) -> int:
    return broker.client.describe_topic("T").partitions[0].size_bytes


def compacted(broker: Broker, first: int) -> int:
    """Publish until the partition, which rolls by age, has shrunk; return its number of records then."""
    deadline = time.monotonic() + 2 * TIMEOUT_S
    before, number = size_of(broker), first
    while size_of(broker) > before / 3:
        assert time.monotonic() < deadline, "not compacted"
        publish(broker, 1, 10, number)
        number += 1
        time.sleep(0.05)
    return number


def test_consumers_pass_the_gaps_and_see_every_survivor_once(broker: Broker) -> None:
    broker.create_topic("T", 1, **SETTINGS)
    publish(broker, 5_000, 10)
    with broker.client.consumer(partitions=[("T", 0)], auto_offset_reset="earliest") as slow:
        early = slow.poll(POLL_S, max_messages=100)
        end = compacted(broker, 5_000)
        while slow.position("T", 0) < end:
            early += slow.poll(POLL_S, max_messages=100)
    offsets = [message.offset for message in early]
    assert offsets == sorted(set(offsets))
    newest = {f"k{number % 10}".encode(): number for number in range(end)}
    assert {message.key: message.offset for message in early} == newest
    for start in (0, 1, 17, 2_500, 4_989, end - 1, end):
        found = list(consumed(broker, end, start))
        offsets = [message.offset for message in found]
        assert offsets == sorted(set(offsets))
        assert {message.key: message.offset for message in found} == {
            key: offset for key, offset in newest.items() if offset >= start
        }
        assert all(message.value == b"%d" % message.offset for message in found)
    before = actor(broker.client, "partition/T/0")
    broker.client.kill("partition/T/0")
    until_reborn(broker.client, before)
    assert {message.key: message.offset for message in consumed(broker, end)} == newest


def test_json_clients_pass_the_gaps(broker: Broker) -> None:
    broker.create_topic("T", 1, **SETTINGS)
    publish(broker, 3_000, 10)
    end = compacted(broker, 3_000)
    offset, found = 0, []
    while offset < end:
        request = Fetch(topic="T", partition=0, offset=offset, format="records", max_records=7)
        reply = broker.client._ask(request, FetchReply)
        assert reply.next_offset > offset
        assert reply.records is not None
        found += [record.offset for record in reply.records]
        offset = reply.next_offset
    assert found == sorted(set(found))
    assert set(range(end - 10, end)) <= set(found)


def test_a_partition_killed_again_and_again_while_it_compacts_loses_nothing(broker: Broker) -> None:
    broker.create_topic("T", 1, **SETTINGS)
    for life in range(4):
        publish(broker, 3_000, 10, life * 3_000)
        time.sleep(0.15 * life)  # no event reports the progress of compaction; any moment will do
        before = actor(broker.client, "partition/T/0")
        broker.client.kill("partition/T/0")
        until_reborn(broker.client, before)
        assert {message.key: message.value for message in consumed(broker, (life + 1) * 3_000)} == {
            f"k{number % 10}".encode(): b"%d" % number for number in range((life + 1) * 3_000)
        }


def test_committed_offsets_survive_compaction_and_a_killed_coordinator(broker: Broker) -> None:
    broker.create_topic("T", 1)
    publish(broker, 300, 10)
    with broker.consumer("g", ["T"], auto_offset_reset="earliest") as consumer:
        seen = 0
        while seen < 300:
            seen += len(consumer.poll(POLL_S, max_messages=10))
            consumer.commit()
        before = actor(broker.client, "coordinator/g")
        broker.client.kill("coordinator/g")
        until_reborn(broker.client, before)
        assert until(consumer.committed, "the group has offsets") == {("T", 0): 300}
