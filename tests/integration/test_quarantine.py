"""Actors that cannot start are given up visibly, and everything else continues; an operator revives them later."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from live_trees import TIMEOUT_S, actor, pid_of, read_topic, until, until_state
from planaria import Broker
from planaria.actors.log.lock import LOCK_NAME, DirectoryLock
from planaria.supervisor.broker import LOG_FILE
from planaria.supervisor.hosted import SubscriptionFailed
from planaria.transport.client.errors import DeliveryFailed

pytestmark = pytest.mark.processes

BROKEN = "partition/BROKEN/0"


@pytest.fixture
def strict(data_dir: Path) -> Iterator[Broker]:
    """A broker that gives up at the third death."""
    with Broker(data_dir, restart_intensity=2, hang_timeout_ms=60_000) as broker:
        broker.create_topic("BROKEN", 2)
        broker.create_topic("SOUND", 1)
        broker.publish("BROKEN", None, 0)
        yield broker


def partition_directory(broker: Broker) -> Path:
    return Path(broker.status().data_directory) / "topics" / "BROKEN" / "0"


def test_a_partition_whose_directory_is_a_file(strict: Broker) -> None:
    directory = partition_directory(strict)
    aside = directory.rename(directory.with_name("aside"))
    directory.write_text("not a directory")

    # Directly: a death requested of the supervisor is not counted.
    os.kill(pid_of(strict.client, BROKEN), signal.SIGKILL)
    down = until_state(strict.client, BROKEN, "quarantined")

    assert down.restarts == 2
    assert "Not a directory" in (down.reason or "")
    assert "Traceback (most recent call last)" in (down.traceback or "")
    described = strict.client.describe_topic("BROKEN").partitions
    assert [partition.online for partition in described] == [False, True]
    late = strict.client.producer(delivery_timeout_ms=300).publish("BROKEN", "late", partition=0)
    assert isinstance(late.exception(TIMEOUT_S), DeliveryFailed)
    strict.client.publish("BROKEN", 2, partition=1)
    strict.publish("SOUND", "k", 3)
    assert [message.data for message in read_topic(strict.client, "SOUND")] == [3]
    assert actor(strict.client, "gateway/0").incarnation == 1

    directory.unlink()
    aside.rename(directory)
    strict.client.revive(BROKEN)
    up = until_state(strict.client, BROKEN, "ready")

    assert up.incarnation > down.incarnation
    strict.client.publish("BROKEN", 1, partition=0)
    found = [message.data for message in read_topic(strict.client, "BROKEN")]
    # The outcome of "late" was unknown.
    assert sorted(value for value in found if value != "late") == [0, 1, 2]


def test_a_partition_that_was_deleted_behind_the_brokers_back(strict: Broker) -> None:
    """It is not silently recreated, since its offsets would be reused; the others continue."""
    shutil.rmtree(partition_directory(strict))
    strict.kill(BROKEN)
    down = until_state(strict.client, BROKEN, "quarantined")
    assert (down.restarts, down.incarnation) == (1, 2), "one attempt tells"
    assert "PartitionLost: topics/BROKEN/0 was created and is missing" in (down.reason or "")
    strict.client.publish("BROKEN", 1, partition=1)
    strict.publish("SOUND", "k", 2)


def test_a_handler_that_cannot_be_loaded(
    strict: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "handler_under_test.py"
    module.write_text("raise RuntimeError('half-written module')\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(SubscriptionFailed) as failed:
        strict.subscribe("g", "SOUND", handler="handler_under_test:handle")

    assert "subscriber/g/1 cannot start: " in str(failed.value)
    assert "half-written module" in str(failed.value)
    assert "\n" not in str(failed.value)
    assert not [each for each in strict.status().actors if each.address.startswith("subscriber/")]
    seen = tmp_path / "seen"
    module.write_text(f"def handle(message):\n    open({str(seen)!r}, 'a').write(f'{{message.data}}\\n')\n")
    subscription = strict.subscribe("g", "SOUND", handler="handler_under_test:handle")
    assert subscription is not None
    strict.publish("SOUND", "k", 7)
    until(lambda: seen.exists() and seen.read_text() == "7\n", "the handler has run")
    subscription.stop()
    assert not [each for each in strict.status().actors if each.address.startswith("subscriber/")]


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("raise RuntimeError('half-written')", "half-written"),
        ("", "has no attribute 'handle'"),
        ("async def handle(message): yield", "a generator function"),
        ("def handle(message: 'Order'): ...", "name 'Order' is not defined"),
        ("handle = 7", "is not callable"),
    ],
)
def test_what_no_restart_would_change_is_refused_at_the_first_attempt(
    own_broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, complaint: str
) -> None:
    (tmp_path / "one_attempt.py").write_text(code + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    own_broker.create_topic("SOUND", 1)
    with pytest.raises(SubscriptionFailed, match=complaint):
        own_broker.subscribe("g", "SOUND", handler="one_attempt:handle")
    log = (Path(own_broker.status().data_directory) / LOG_FILE).read_text()
    assert log.count("child=subscriber/g/1") > 0
    assert 'event="child died" child=subscriber/g/1 n=2' not in log


def test_the_door_opens_before_partitions_that_are_slow_or_cannot_start(data_dir: Path) -> None:
    """One directory is a file; the lock of one is held, so that its process waits as long as its timeout."""
    with Broker(data_dir) as broker:
        broker.create_topic("BROKEN", 1)
        broker.create_topic("LOCKED", 1)
        broker.create_topic("SOUND", 1)
        directory = partition_directory(broker)
    shutil.rmtree(directory)
    directory.write_text("not a directory")
    locked = data_dir / "topics" / "LOCKED" / "0"

    with DirectoryLock(locked / LOCK_NAME), Broker(data_dir, restart_intensity=1) as broker:
        state = actor(broker.client, "partition/LOCKED/0").state
        broker.publish("SOUND", "k", 3)
        assert [message.data for message in read_topic(broker.client, "SOUND")] == [3]
        # No time is measured: the broker served while LOCKED, whose attempts take seconds, was not given up.
        assert state in ("stopped", "starting", "backing_off")
        down = until_state(broker.client, BROKEN, "quarantined")
        assert down.reason
