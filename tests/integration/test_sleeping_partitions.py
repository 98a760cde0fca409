"""Partitions that sleep, in real processes: clients only see a slower answer, and no kill loses anything."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live_trees import until
from planaria import Broker, ProtocolError

pytestmark = pytest.mark.processes

IDLE_MS = 200
SETTINGS: dict[str, Any] = {
    "hang_timeout_ms": 20_000,
    "heartbeat_interval_ms": 100,
    "restart_intensity": 1_000_000,
    "backoff_reset_ms": 1,
    "partition_idle_ms": IDLE_MS,
    "coordinator_idle_ms": IDLE_MS,
}


@pytest.fixture
def broker(data_dir: Path) -> Iterator[Broker]:
    with Broker(data_dir, **SETTINGS) as broker:
        broker.client.create_topic("T", 2)
        yield broker


def states(broker: Broker) -> list[str]:
    return [actor.state for actor in broker.status().actors if actor.address.startswith("partition/T/")]


def incarnations(broker: Broker) -> list[int]:
    return [actor.incarnation for actor in broker.status().actors if actor.address.startswith("partition/T/")]


def all_asleep(broker: Broker) -> bool:
    return states(broker) == ["asleep", "asleep"]


def read_all(broker: Broker, count: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    with broker.consumer(None, "T", auto_offset_reset="earliest") as consumer:
        until(lambda: found.extend(each.value for each in consumer.poll(1)) or len(found) >= count, "records")
    return found


def test_it_sleeps_and_every_request_finds_it(broker: Broker) -> None:
    with broker.producer() as producer:
        producer.publish("T", b"1", partition=0).result()
        until(lambda: all_asleep(broker), "sleeping partitions")
        before = incarnations(broker)
        producer.publish("T", b"2", partition=0).result()
    assert incarnations(broker) == [before[0] + 1, before[1]]
    until(lambda: all_asleep(broker), "sleeping partitions")
    assert [each.high_watermark for each in broker.client.describe_topic("T").partitions] == [2, 0]
    until(lambda: all_asleep(broker), "sleeping partitions")
    assert read_all(broker, 2) == [b"1", b"2"]
    assert [actor for actor in broker.status().actors if actor.restarts] == []
    until(lambda: all_asleep(broker), "sleeping partitions")
    broker.client.delete_topic("T")
    assert states(broker) == []


def test_a_start_of_the_broker_starts_none_of_those_that_slept(data_dir: Path) -> None:
    with Broker(data_dir, **SETTINGS) as broker:
        broker.client.create_topic("T", 2)
        broker.client.publish("T", b"1", partition=0)
        until(lambda: all_asleep(broker), "sleeping partitions")
    with Broker(data_dir, **SETTINGS) as broker:
        until(lambda: all_asleep(broker), "sleeping partitions")
        assert {each.incarnation for each in broker.status().actors if "/T/" in each.address} == {0}
        assert read_all(broker, 1) == [b"1"]
    with Broker(data_dir, **SETTINGS | {"partition_idle_ms": 0}) as broker:
        until(lambda: states(broker) == ["ready", "ready"], "without the option nobody sleeps")


def test_delayed_messages_wake_it(broker: Broker) -> None:
    broker.client.publish("T", b"late", partition=0, delay=1.5)
    until(lambda: all_asleep(broker), "sleeping partitions")
    assert read_all(broker, 1) == [b"late"]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.chaos)])
def test_killed_at_any_moment_nothing_acknowledged_is_lost_or_doubled(broker: Broker, seed: int) -> None:
    pause = random.Random(seed)
    is_over = threading.Event()

    def kill() -> None:
        while not is_over.wait(pause.uniform(0, 0.4)):
            living = [each.address for each in broker.status().actors if each.pid and "/T/" in each.address]
            try:
                if living:
                    broker.client.kill(pause.choice(living))
            except ProtocolError:
                pass  # it has fallen asleep, or died, meanwhile

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with broker.producer() as producer:
            for number in range(30):
                producer.publish("T", str(number).encode(), partition=number % 2).result()
                # Around the moment at which it falls asleep.
                time.sleep(pause.uniform(0, 2 * IDLE_MS / 1000))
    finally:
        is_over.set()
        killer.join()
    found = read_all(broker, 30)
    assert sorted(int(value or b"") for value in found) == list(range(30))
