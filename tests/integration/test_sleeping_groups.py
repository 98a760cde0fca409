"""Groups that sleep, in real processes: the effect of a request, and the state after kills of all actors."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live_trees import until
from patience import TIMEOUT_S
from planaria import Broker, ProtocolError
from planaria.transport.protocol.groups import CommitOffsets, CommitOffsetsReply, PartitionOffset

pytestmark = pytest.mark.processes

IDLE_MS = 150
SETTINGS: dict[str, Any] = {
    "hang_timeout_ms": 20_000,
    "heartbeat_interval_ms": 100,
    "restart_intensity": 1_000_000,
    "backoff_reset_ms": 1,
    "coordinator_idle_ms": IDLE_MS,
}
TP = ("T", 0)


@pytest.fixture
def broker(data_dir: Path) -> Iterator[Broker]:
    with Broker(data_dir, **SETTINGS) as broker:
        broker.client.create_topic("T", 1)
        yield broker


def state(broker: Broker, group: str) -> str:
    states = {actor.address: actor.state for actor in broker.status().actors}
    return states.get(f"coordinator/{group}", "unknown")


def restarts(broker: Broker) -> int:
    return sum(actor.restarts for actor in broker.status().actors)


def set_offset(broker: Broker, group: str, offset: int) -> None:
    """Commit as a consumer without membership does."""
    offsets = [PartitionOffset(*TP, offset)]
    broker.client._ask(CommitOffsets(group=group, offsets=offsets), CommitOffsetsReply)


def offset_of(broker: Broker, group: str) -> int | None:
    return broker.client.group_offsets(group).get(TP)  # type: ignore[call-overload,no-any-return]


def test_a_group_sleeps_and_a_request_finds_all_of_it(broker: Broker) -> None:
    set_offset(broker, "g", 7)
    until(lambda: state(broker, "g") == "asleep", "a sleeping group")
    assert broker.client.list_groups() == ["g"]
    slept = incarnation(broker, "g")
    found = broker.client.describe_group("g")
    assert (found.state, found.offsets[0].offset) == ("empty", 7)
    assert incarnation(broker, "g") == slept + 1
    until(lambda: state(broker, "g") == "asleep", "a sleeping group")
    assert offset_of(broker, "g") == 7
    assert restarts(broker) == 0


def test_who_slept_is_asleep_after_a_restart_of_the_broker(data_dir: Path) -> None:
    with Broker(data_dir, **SETTINGS) as broker:
        broker.client.create_topic("T", 1)
        set_offset(broker, "g", 7)
        until(lambda: state(broker, "g") == "asleep", "a sleeping group")
    with Broker(data_dir, **SETTINGS) as broker:
        until(lambda: state(broker, "g") == "asleep", "a sleeping group")
        assert [
            actor.incarnation for actor in broker.status().actors if actor.address == "coordinator/g"
        ] == [0]
        assert offset_of(broker, "g") == 7


def test_a_sleeping_group_can_be_deleted_and_made_anew(broker: Broker) -> None:
    set_offset(broker, "g", 7)
    until(lambda: state(broker, "g") == "asleep", "a sleeping group")
    broker.client.delete_group("g")
    assert state(broker, "g") == "unknown"
    assert broker.client.list_groups() == []
    assert not list(Path(broker.status().data_directory).glob("groups/*"))


def test_members_of_both_kinds_come_back_to_a_sleeping_group(broker: Broker) -> None:
    with broker.producer() as producer:
        producer.publish("T", b"1")
    with broker.consumer("g", "T", auto_offset_reset="earliest") as consumer:
        assert len(consumer.poll(TIMEOUT_S)) == 1
    with broker.client.share_consumer("s", "T") as consumer:
        consumer.acknowledge(consumer.poll(TIMEOUT_S))
    until(lambda: (state(broker, "g"), state(broker, "s")) == ("asleep", "asleep"), "a sleeping group")
    with broker.producer() as producer:
        producer.publish("T", b"2")
    with broker.consumer("g", "T") as consumer:
        assert [each.value for each in consumer.poll(TIMEOUT_S)] == [b"2"]
    with broker.client.share_consumer("s", "T") as consumer:
        assert [each.value for each in consumer.poll(TIMEOUT_S)] == [b"2"]


class Killer:
    """Kills coordinators, now and then the partition of their records or the gateway, until the end of the block."""

    def __init__(self, broker: Broker, seed: int) -> None:
        self._broker = broker
        self._random = random.Random(seed)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kills = 0

    def _run(self) -> None:
        while not self._is_over.wait(self._random.uniform(0, 0.4)):
            living = [actor.address for actor in self._broker.status().actors if actor.pid is not None]
            targets = [address for address in living if address.startswith("coordinator/")]
            if self._random.random() < 0.1:
                targets = [address for address in living if "__offsets" in address]
            if not targets:
                continue
            try:
                self._broker.client.kill(self._random.choice(targets))
                self.kills += 1
            except ProtocolError:
                pass  # it has fallen asleep, or died, meanwhile

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


@pytest.mark.parametrize(("seed", "rounds"), [(1, 12), pytest.param(2, 60, marks=pytest.mark.chaos)])
def test_killed_at_any_moment_of_falling_asleep_and_waking_nothing_is_lost(
    broker: Broker, seed: int, rounds: int
) -> None:
    pause = random.Random(seed)
    slept = 0
    with Killer(broker, seed) as killer:
        for offset in range(1, rounds + 1):
            group = f"g{offset % 3}"
            set_offset(broker, group, offset)
            # Around the moment at which it falls asleep.
            time.sleep(pause.uniform(0, 2 * IDLE_MS / 1000))
            slept += state(broker, group) == "asleep"
            assert offset_of(broker, group) == offset
    print(f"{killer.kills} kills, asleep {slept} times")
    for offset in range(rounds - 2, rounds + 1):
        assert offset_of(broker, f"g{offset % 3}") == offset
    until(lambda: all(state(broker, f"g{number}") == "asleep" for number in range(3)), "a sleeping group")


def test_a_crowd_at_the_moment_of_sleep_is_answered_without_one_error(broker: Broker) -> None:
    """Without kills every request is answered at its first try: held or retried internally."""
    set_offset(broker, "g", 1)
    errors: list[Exception] = []

    def ask(number: int) -> None:
        pause = random.Random(number)
        for _ in range(15):
            time.sleep(pause.uniform(0.8, 1.2) * IDLE_MS / 1000)
            try:
                assert offset_of(broker, "g") == 1
            except Exception as error:  # noqa: BLE001 - each is a failure of the test
                errors.append(error)

    first = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in first:
        thread.start()
    for thread in first:
        thread.join()
    assert errors == []
    assert restarts(broker) == 0


def test_offsets_of_a_sleeping_group_expire(data_dir: Path) -> None:
    """Once while it sleeps, and once while the broker is stopped."""
    with Broker(data_dir, offsets_retention_ms=1_500, **SETTINGS) as broker:
        broker.client.create_topic("T", 1)
        set_offset(broker, "g", 7)
        until(lambda: state(broker, "g") == "asleep", "a sleeping group")
        until(lambda: incarnation(broker, "g") >= 2, "it is woken though nobody asks")
        until(lambda: offset_of(broker, "g") is None, "it has expired")
        set_offset(broker, "h", 8)
        until(lambda: state(broker, "h") == "asleep", "a sleeping group")
    time.sleep(1.5)
    with Broker(data_dir, offsets_retention_ms=1_500, **SETTINGS) as broker:
        until(lambda: offset_of(broker, "h") is None, "it has expired")
        assert broker.client.list_groups() == ["g", "h"]


def incarnation(broker: Broker, group: str) -> int:
    return next(each.incarnation for each in broker.status().actors if each.address == f"coordinator/{group}")
