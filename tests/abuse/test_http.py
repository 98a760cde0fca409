"""Hostile HTTP clients must not harm those of the broker: a victim's latencies before, during and after each.

As in test_abuse.py; `pytest tests/abuse/test_http.py -s` prints the table.
"""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

import http_abusers
from abuse_victim import FLOOR_MS, Victim, crowd, restarts
from abuse_victim import TOPIC as VICTIM_TOPIC
from http_abusers import ABUSERS
from patience import TIMEOUT_S
from planaria import Broker

pytestmark = pytest.mark.processes
TIMES = 20
"""Maximum growth factor of its median, where a busy machine makes this the larger bound."""


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


def suffer(broker: Broker, victim: Victim, name: str, seconds: float) -> None:
    assert broker.http_endpoint is not None
    address = broker.http_endpoint.removeprefix("http://")
    deaths = restarts(broker)
    before = victim.live(seconds / 4)
    abuser = subprocess.Popen([sys.executable, http_abusers.__file__, name, address, str(seconds + 0.2)])
    try:
        time.sleep(0.2)  # for its own start; its effects are counted
        during = victim.live(seconds)
        with urllib.request.urlopen(f"http://{address}/healthz", timeout=TIMEOUT_S) as reply:
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
    suffer(broker, victim, name, 12.0)
