"""Frozen processes: only the missing heartbeat shows it. Each is replaced, and its service continues."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from live_trees import TIMEOUT_S, actor, pid_of, until, until_reborn, until_state, wait_gone
from planaria import Broker
from planaria.supervisor.broker import LOG_FILE
from planaria.testing import TestBroker

pytestmark = pytest.mark.processes

MARGIN_S = 60.0
"""Time beyond the hang timeout: two heartbeats, writing a stack, the restart, a busy machine."""
HANG_S = 1.0


@pytest.fixture(scope="module")
def broker_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestBroker]:
    with TestBroker(
        tmp_path_factory.mktemp("module"),
        hang_timeout_ms=int(HANG_S * 1_000),
        heartbeat_interval_ms=200,
        restart_intensity=1_000_000,
        backoff_reset_ms=1,
        topic_defaults={},
    ) as broker:
        yield broker


@pytest.mark.parametrize("address", ["partition/T/0", "coordinator/g", "gateway/0", "controller"])
def test_a_frozen_actor_is_replaced(broker: Broker, address: str) -> None:
    broker.create_topic("T", 1)
    broker.publish("T", "k", 0)
    with broker.consumer("g", ["T"], auto_offset_reset="earliest") as consumer:
        assert [message.data for message in consumer.poll(TIMEOUT_S)] == [0]
        before = until_state(broker.client, address, "ready")
        assert before.pid is not None
        os.kill(before.pid, signal.SIGSTOP)
        frozen_at = time.monotonic()

        # Sent to the supervisor's own endpoint: the gateway may be the frozen actor.
        broker.publish("T", "k", 1)
        assert [message.data for message in consumer.poll(TIMEOUT_S)] == [1]
        consumer.commit()
        after = until_reborn(broker.client, before)

        assert time.monotonic() - frozen_at < HANG_S + MARGIN_S
        assert wait_gone(before.pid, 0)
        assert after.reason is not None
        assert "no progress for" in after.reason
    assert broker.client.group_offsets("g") == {("T", 0): 2}


def test_a_frozen_actor_writes_its_stack_when_it_can(broker: Broker, data_of_the_module: Path) -> None:
    """A stopped process cannot; one that is aborted while it runs can."""
    before = actor(broker.client, "controller")
    broker.kill("controller", "SIGABRT")
    until_reborn(broker.client, before)
    text = (data_of_the_module / LOG_FILE).read_text()
    assert "Fatal Python error: Aborted" in text
    assert "transport/loop.py" in text


@pytest.mark.parametrize("address", ["partition/T/0", "controller", "gateway/0"])
def test_an_actor_frozen_under_a_killed_supervisor_is_in_nobodys_way(broker: Broker, address: str) -> None:
    """It cannot notice the supervisor's death, and holds its partition's lock: the next supervisor ends it."""
    broker.create_topic("T", 1)
    broker.publish("T", "k", 0)
    victim = pid_of(broker.client, address)
    before = broker.status().instance_id
    os.kill(victim, signal.SIGSTOP)
    os.kill(broker.supervisor_pid, signal.SIGKILL)

    until(lambda: broker.status().instance_id != before, "another supervisor answers")
    broker.publish("T", "k", 1)

    assert wait_gone(victim, 0)
    until(lambda: {each.state for each in broker.status().actors} == {"ready"}, "all serve")
