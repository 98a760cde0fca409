"""Output topics of hosted handlers that are deleted and recreated, in real processes."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from live_trees import actor, read_topic, until
from planaria import Broker, Context, Message

pytestmark = pytest.mark.processes

ADDRESS = "subscriber/g/1"
COUNT = 60
ALARM = "output topic 'OUT' does not exist"


def values(broker: Broker, topic: str) -> list[Any]:
    return [message.data for message in read_topic(broker.client, topic)]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_output_topic_deleted_in_mid_flight_is_an_ordinary_failure(
    broker: Broker, tmp_path: Path, concurrency: int
) -> None:
    gone, waits = tmp_path / "gone", tmp_path / "waits"

    def handle(message: Message, context: Context) -> None:
        context.publish("OUT", message.data, key=message.key)
        if message.data == 60:
            waits.touch()
            while not gone.exists():  # it is deleted after the check, before the commit
                time.sleep(0.01)

    for topic in ("T", "OUT"):
        broker.create_topic(topic, 2)
    with broker.producer() as producer:
        for number in range(50):
            producer.publish("T", number, key=f"k{number % 7}")
    broker.subscribe(
        "g",
        "T",
        handler=handle,
        delivery="exactly-once",
        concurrency=concurrency,
        retries=1_000,
        backoff_ms=[200],
    )
    until(lambda: len(values(broker, "OUT")) == 50, "the first ones came through")
    with broker.producer() as producer:
        for number in range(50, 100):
            producer.publish("T", number, key=f"k{number % 7}")
    until(waits.exists, "the handler is at work")
    broker.client.delete_topic("OUT")
    gone.touch()
    until(lambda: ALARM in actor(broker.client, ADDRESS).alarms, "the alarm")
    until(lambda: actor(broker.client, ADDRESS).retrying.count, "records wait for their retry")
    reasons = {each.reason for each in actor(broker.client, ADDRESS).retrying.records}
    assert all("OUT" in (reason or "") for reason in reasons), reasons
    # Nothing is committed while its output has no topic, so this was published before the deletion.
    committed = broker.client.group_offsets("g")
    before = {
        message.data
        for message in read_topic(broker.client, "T")
        if message.offset < committed.get((message.topic, message.partition), 0)
    }
    broker.create_topic("OUT", 2)

    def outputs() -> list[Any]:
        return values(broker, "OUT")

    until(outputs, "the new topic is used")
    until(lambda: set(outputs()) | before >= set(range(100)), "nothing is lost")
    until(lambda: ALARM not in actor(broker.client, ADDRESS).alarms, "no alarm any more")
    after = Counter(outputs())
    assert set(after.values()) == {1}, "nothing is doubled"
    assert not before & after.keys()
    assert actor(broker.client, ADDRESS).restarts == 0, "no process has died of it"


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_records_for_a_missing_topic_are_dead_letters_without_a_wait_for_each(
    broker: Broker, delivery: str
) -> None:
    def handle(message: Message, context: Context) -> None:
        context.publish("OUT", message.data)

    broker.create_topic("T", 1)
    broker.create_topic("T.dlq", 1)
    with broker.producer() as producer:
        for number in range(COUNT):
            producer.publish("T", number, key=f"k{number}")
    began = time.monotonic()
    broker.subscribe(
        "g", "T", handler=handle, delivery=delivery, retries=0, dead_letter="T.dlq", breaker_window=0
    )
    letters = until(
        lambda: found if len(found := read_topic(broker.client, "T.dlq")) == COUNT else None,
        "all are letters",
    )
    assert time.monotonic() - began < COUNT, "a second for each is not waited"
    assert all("OUT" in message.headers["dead-letter-reason"] for message in letters)
    until(lambda: ALARM in actor(broker.client, ADDRESS).alarms, "the alarm")
    broker.create_topic("OUT", 1)

    def is_used() -> bool:
        broker.publish("T", None, "probe")
        return bool(read_topic(broker.client, "OUT"))

    until(is_used, "the new topic is used")
    until(lambda: not actor(broker.client, ADDRESS).alarms, "no alarm any more")
