"""Operators have a separate path: the supervisor answers whatever the gateway does."""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from live_trees import until
from patience import TIMEOUT_S
from planaria import Broker
from planaria.supervisor.admin_link import AdminLink, Undelivered
from planaria.supervisor.run_directory import same_endpoint, supervisors_at
from planaria.testing import TestBroker
from planaria.transport.client.errors import Closed
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from planaria.transport.protocol.operations import ActorStatus

pytestmark = pytest.mark.processes

ANSWERED_WITHIN_MS = 1_000
"""A supervisor that waits for a gateway, or for processes to start, takes seconds. `busy_ms` is added."""


@pytest.fixture(scope="module")
def broker_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestBroker]:
    with TestBroker(
        tmp_path_factory.mktemp("module"),
        hang_timeout_ms=60_000,
        heartbeat_interval_ms=200,
        restart_intensity=1_000_000,
        backoff_reset_ms=1,
        topic_defaults={},
    ) as broker:
        yield broker


def actor(broker: Broker, address: str) -> ActorStatus:
    (found,) = [each for each in broker.status().actors if each.address == address]
    return found


def await_gateway(broker: Broker, state: str, other_than: int | None) -> None:
    def is_so() -> bool:
        found = actor(broker, "gateway/0")
        return found.state == state and found.pid != other_than

    until(is_so, f"a gateway that is {state}")


def busy_ms() -> float:
    """Return the delay of a runnable process on this machine, the maximum of some attempts."""
    late = []
    for _ in range(20):
        began = time.monotonic()
        time.sleep(0.005)
        late.append((time.monotonic() - began - 0.005) * 1000)
    return max(late)


def timed(ask: Callable[[], object], times: int = 20) -> list[float]:
    waits = []
    for _ in range(times):
        began = time.monotonic()
        ask()
        waits.append((time.monotonic() - began) * 1000)
    return sorted(waits)


def show(what: str, waits: list[float]) -> None:
    print(f"{what:32} p50 {statistics.median(waits):6.1f} max {waits[-1]:6.1f} ms")


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "planaria", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_a_frozen_gateway_keeps_no_operator_waiting(broker: Broker) -> None:
    gateway = actor(broker, "gateway/0")
    assert gateway.pid is not None
    (control,) = supervisors_at(broker.endpoint)
    os.kill(gateway.pid, signal.SIGSTOP)
    with AdminLink(control, lambda: False) as link:
        waits = timed(link.status)
        show("status, gateway frozen", waits)
        assert statistics.median(waits) < ANSWERED_WITHIN_MS + busy_ms()
        assert link.kill("gateway/0", "SIGCONT").pid == gateway.pid
        assert link.revive("gateway/0") == "ready"
    os.kill(gateway.pid, signal.SIGSTOP)
    told = command("status", "--connect", broker.endpoint)
    assert (told.returncode, "gateway/0" in told.stdout) == (0, True), told.stderr
    told = command("kill", "gateway/0", "--connect", broker.endpoint)
    assert told.returncode == 0, told.stderr
    await_gateway(broker, "ready", gateway.pid)


def test_a_quarantined_gateway_is_revived(tmp_path: Path) -> None:
    with Broker(tmp_path / "data", restart_intensity=0, quarantine_retry_ms=3_600_000) as broker:
        pid = actor(broker, "gateway/0").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await_gateway(broker, "quarantined", pid)
        told = command("revive", "gateway/0", "--connect", broker.endpoint)
        assert told.returncode == 0, told.stderr
        await_gateway(broker, "ready", pid)


def test_the_gateway_that_kills_itself_says_so_first(broker: Broker) -> None:
    before = actor(broker, "gateway/0")
    for _ in range(3):
        reply = broker.client.kill("gateway/0")
        assert (reply.pid, reply.incarnation) == (before.pid, before.incarnation)
        await_gateway(broker, "ready", reply.pid)
        before = actor(broker, "gateway/0")


def test_status_is_answered_while_many_actors_start(own_broker: Broker) -> None:
    broker = own_broker
    (control,) = supervisors_at(broker.endpoint)
    count = 24
    with AdminLink(control, lambda: False) as link:
        alone = timed(link.status)
        starting = subprocess.Popen(
            [sys.executable, "-m", "planaria", "topic", "create", "MANY", "--partitions", str(count),
             "--connect", broker.endpoint],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        waits: list[float] = []
        while starting.poll() is None:
            waits += timed(link.status, times=1)
            time.sleep(0.01)
        waits.sort()
        show("status, before", alone)
        show(f"status, {count} actors start", waits)
        assert starting.returncode == 0
        assert statistics.median(waits) < ANSWERED_WITHIN_MS + busy_ms()
        assert len(link.status().actors) == count + 2


@pytest.mark.parametrize("pause_s", [0, 0.05])
def test_a_program_that_asks_between_two_supervisors_is_answered_by_the_next(
    broker: Broker, pause_s: float
) -> None:
    before = broker.status()
    os.kill(before.supervisor_pid, signal.SIGKILL)
    time.sleep(pause_s)
    found = broker.status()
    assert found.supervisor_pid != before.supervisor_pid
    assert found.instance_id != before.instance_id


def test_a_kill_that_reached_no_supervisor_is_sent_to_the_next(broker: Broker) -> None:
    os.kill(broker.supervisor_pid, signal.SIGKILL)
    await_gateway(broker, "ready", broker.kill("gateway/0").pid)


def test_only_a_request_that_no_supervisor_has_is_known_as_undelivered(tmp_path: Path) -> None:
    control = f"ipc://{tmp_path}/supervisor"
    with AdminLink(control, lambda: True) as link, pytest.raises(Undelivered):
        link.kill("gateway/0")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as supervisor:
        supervisor.bind(control)
        # It receives the request and ends without an answer.
        with AdminLink(control, lambda: supervisor.poll(0) > 0) as link:
            with pytest.raises(ProtocolError) as raised:
                link.kill("gateway/0")
            assert (type(raised.value), raised.value.code) == (ProtocolError, ErrorCode.ACTOR_UNAVAILABLE)


def test_a_closed_broker_says_so(tmp_path: Path) -> None:
    with Broker(tmp_path / "data") as broker:
        pass
    for ask in (broker.status, lambda: broker.kill("gateway/0")):
        with pytest.raises(Closed):
            ask()


def test_a_probe_of_a_frozen_supervisor_is_answered_in_time(broker: Broker) -> None:
    os.kill(broker.supervisor_pid, signal.SIGSTOP)
    began = time.monotonic()
    told = command("status", "--check", "--connect", broker.endpoint)
    took_s = time.monotonic() - began
    os.kill(broker.supervisor_pid, signal.SIGCONT)
    assert told.returncode == 2, told
    assert took_s < TIMEOUT_S / 2


def test_only_a_broker_that_is_there_is_found(tmp_path: Path) -> None:
    with Broker(tmp_path / "data") as broker:
        endpoint, port = broker.endpoint, broker.endpoint.rpartition(":")[2]
        assert len(supervisors_at(endpoint)) == 1
        assert supervisors_at(f"tcp://localhost:{port}") == supervisors_at(endpoint)
        assert supervisors_at(f"tcp://192.0.2.1:{port}") == []
    assert supervisors_at(endpoint) == []


@pytest.mark.parametrize(
    ("served", "asked", "is_same"),
    [
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:1", True),
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:2", False),
        ("tcp://127.0.0.1:1", "tcp://localhost:1", True),
        ("tcp://localhost:1", "tcp://[::1]:1", True),
        ("tcp://*:1", "tcp://127.0.0.1:1", True),
        ("tcp://[::]:1", "tcp://localhost:1", True),
        ("tcp://127.0.0.1:1", "tcp://[::1]:1", False),
        ("tcp://10.0.0.1:1", "tcp://127.0.0.1:1", False),
        ("tcp://*:1", "tcp://10.0.0.1:1", False),
        ("tcp://*:*", "tcp://127.0.0.1:1", False),
    ],
)
def test_which_endpoints_are_the_same(served: str, asked: str, is_same: bool) -> None:
    assert same_endpoint(served, asked) == is_same
