"""Hosted handlers that publish, in real processes: under exactly-once one output per input, whatever is killed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from live_trees import actor, read_topic, until, until_reborn
from planaria import Broker, Consumer, Context, Message, Reject

pytestmark = pytest.mark.processes

KEYS = 7
VICTIMS = (
    "subscriber/g/1",
    "partition/OUT/0",
    "coordinator/g",
    "transactions/0",
    "transactions/1",
    "gateway/0",
    "partition/IN/1",
    "partition/__offsets/0",
    "partition/__transactions/0",
)


def double(message: Message, context: Context) -> None:
    context.publish("OUT", message.data * 2, key=message.key)


def publish(broker: Broker, numbers: range) -> None:
    with broker.producer() as producer:
        for number in numbers:
            producer.publish("IN", number, key=f"k{number % KEYS}")


def collect(reader: Consumer, found: list[int], count: int) -> None:
    """Collect until there are so many outputs."""

    def look() -> bool:
        found.extend(message.data for message in reader.poll(0.1))
        return len(found) >= count

    until(look, f"{count} outputs")


def is_in_order_by_key(outputs: list[int]) -> bool:
    by_key: dict[int, list[int]] = {}
    for output in outputs:
        by_key.setdefault(output // 2 % KEYS, []).append(output)
    return all(each == sorted(each) for each in by_key.values())


def test_one_output_for_each_input_whoever_is_killed(broker: Broker) -> None:
    broker.create_topic("IN", 2)
    broker.create_topic("OUT", 2)
    tps = [("OUT", 0), ("OUT", 1)]
    found: list[int] = []
    count = 0
    with broker.consumer(partitions=tps, auto_offset_reset="earliest") as reader:
        for victim in (None, *VICTIMS):
            publish(broker, range(count, count + 50))
            count += 50
            if victim is None:
                broker.subscribe("g", "IN", handler=double, delivery="exactly-once", concurrency=2)
                collect(reader, found, count)
                # Half of the partitions move to another member, with the records in flight.
                broker.subscribe("g", "IN", handler=double, delivery="exactly-once")
                continue
            before = actor(broker.client, victim)
            broker.kill(victim)
            until_reborn(broker.client, before)
        collect(reader, found, count)
    assert is_in_order_by_key(found)
    until(lambda: sum(broker.client.group_offsets("g").values()) == count, "all is committed")
    assert sorted(message.data for message in read_topic(broker.client, "OUT")) == list(
        range(0, 2 * count, 2)
    )


def troubled(notes: Path) -> Callable[[Message, Context], None]:
    """Return a handler that publishes for all but 3, which succeeds the second time, 5, and 6, which has no output."""

    def handle(message: Message, context: Context) -> None:
        number = message.data
        context.publish("OUT", number, key=message.key)
        if number == 3 and not (notes / "tried").exists():
            (notes / "tried").touch()
            raise ValueError("not now")
        if number == 5:
            raise Reject("never")
        if number == 6:
            context.publish("NOWHERE", number)

    return handle


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_nothing_of_a_failed_call_is_read(broker: Broker, tmp_path: Path, delivery: str) -> None:
    broker.create_topic("IN", 2)
    broker.create_topic("OUT", 2)
    broker.create_topic("IN.dlq", 1)
    publish(broker, range(20))
    options = {"delivery": delivery, "retries": 1, "backoff_ms": [10], "dead_letter": "IN.dlq"}
    broker.subscribe("g", "IN", handler=troubled(tmp_path), **options)
    until(lambda: sum(broker.client.group_offsets("g").values()) == 20, "all is committed")
    outputs = [message.data for message in read_topic(broker.client, "OUT")]
    assert sorted(outputs) == [number for number in range(20) if number not in (5, 6)]
    letters = {message.data: message.headers or {} for message in read_topic(broker.client, "IN.dlq")}
    assert letters.keys() == {5, 6}
    assert "unknown topic 'NOWHERE'" in letters[6]["dead-letter-reason"]
    assert letters[6]["dead-letter-failures"] == "2"
