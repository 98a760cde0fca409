"""Hostile HTTP clients must not harm those of the broker: a victim's latencies before, during and after each, and the
share of a processor that the process takes which serves them, or the console.

As in test_abuse.py; `pytest tests/abuse/test_http.py -s` prints the table.
"""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import http_abusers
from abuse_victim import FLOOR_MS, Victim, crowd, restarts
from abuse_victim import TOPIC as VICTIM_TOPIC
from http_abusers import ABUSERS, OF_THE_CONSOLE
from patience import TIMEOUT_S, wait_until
from planaria import Broker

pytestmark = pytest.mark.processes
TIMES = 20
"""Maximum growth factor of its median, where a busy machine makes this the larger bound."""
MAX_SHARE = 0.3
"""Share of a processor, for the work that hostile connections make."""
IS_WORK_OF_THE_BROKER = "publishes"
"""Requests that the bridge passes on: quotas are their limit."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("abused")
    with Broker(folder, http_endpoint="127.0.0.1:*", http_bridge=True, hang_timeout_ms=30_000) as broker:
        for topic in ("ABUSED", VICTIM_TOPIC, "EMPTY"):
            broker.create_topic(topic, 1)
        yield broker


@pytest.fixture(scope="module")
def victim(broker: Broker) -> Iterator[Victim]:
    victim = Victim(broker.endpoint)
    victim.live(0.3)
    yield victim
    victim.close()


def suffer(
    broker: Broker, victim: Victim, name: str, seconds: float, url: str = "", path: str = "/healthz"
) -> None:
    url = url or broker.http_endpoint or ""
    address = url.removeprefix("http://")
    deaths = restarts(broker)
    before = victim.live(seconds / 4)
    abuser = subprocess.Popen([sys.executable, http_abusers.__file__, name, address, str(seconds + 0.2)])
    try:
        time.sleep(0.2)  # for its own start; its effects are counted
        during = victim.live(seconds)
        with urllib.request.urlopen(f"{url}{path}", timeout=TIMEOUT_S) as reply:
            assert reply.status == 200
    finally:
        code = abuser.wait(TIMEOUT_S)
    after = victim.live(seconds / 4)
    print(f"\n{name:12} before {before}\n{'':12} during {during}\n{'':12} after  {after}")
    assert code == 0, "the abuser has failed, not the broker"
    assert not during.refused + after.refused
    assert during.percentile(50) <= max(FLOOR_MS * max(1.0, crowd()), TIMES * before.percentile(50))
    changed = {each: count for each, count in restarts(broker).items() if count != deaths.get(each, 0)}
    assert changed == {}


@pytest.mark.parametrize("name", ABUSERS)
def test_no_hostile_http_client_keeps_a_client_of_the_broker_waiting(
    broker: Broker, victim: Victim, name: str
) -> None:
    suffer(broker, victim, name, 0.6)


@pytest.mark.chaos
@pytest.mark.parametrize("name", ABUSERS)
def test_ten_thousand_connections_delay_nothing(broker: Broker, victim: Victim, name: str) -> None:
    pid = next(actor.pid for actor in broker.status().actors if actor.address == "http")
    assert pid is not None
    with processor_share(pid, name):
        suffer(broker, victim, name, 12.0)


@pytest.mark.chaos
@pytest.mark.parametrize("name", OF_THE_CONSOLE)
def test_ten_thousand_connections_to_the_console_delay_nothing(
    broker: Broker, victim: Victim, name: str, free_port: int
) -> None:
    url = f"http://127.0.0.1:{free_port}"
    command = [sys.executable, "-m", "planaria", "console", "--listen", url.removeprefix("http://")]
    console = subprocess.Popen(
        [*command, "--connect", broker.endpoint, "--until-stdin-ends"], stdin=subprocess.PIPE
    )
    try:
        wait_until(lambda: serves(url))
        with processor_share(console.pid, name):
            suffer(broker, victim, name, 12.0, url, "/")
    finally:
        console.communicate(timeout=TIMEOUT_S)


def serves(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S):
            return True
    except OSError:
        return False


@contextmanager
def processor_share(pid: int, name: str) -> Iterator[None]:
    """Print the share of a processor that a process takes meanwhile; of hostile connections it is small."""
    began, before_s = time.monotonic(), cpu_s(pid)
    yield
    share = (cpu_s(pid) - before_s) / (time.monotonic() - began)
    print(f"{'':12} the process that serves it took {share:.0%} of a processor")
    assert name == IS_WORK_OF_THE_BROKER or share < MAX_SHARE


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
