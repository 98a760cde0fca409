"""One client must not harm another: a victim's latencies before, during and after each abuse, printed and bounded.

Each abuser is a process of its own that does one hostile thing as hard as it can. The victim is a modest client with a
topic of its own. On a busy machine the bound is relative to the latency of the same victim just before; on a quiet one
the long form (`-m chaos`) holds it to QUIET_P99_MS. `pytest tests/abuse -s` prints the table.
"""

import sys
import time
from collections.abc import Iterator

import pytest

import abusers
from abuse_victim import FLOOR_MS, Seen, Victim, crowd, restarts
from abuse_victim import TOPIC as VICTIM_TOPIC
from abusers import ABUSERS, TOPIC
from patience import TIMEOUT_S
from planaria import Broker
from warm_start import WarmPopen

pytestmark = pytest.mark.processes

TIMES = 20
"""Maximum growth factor of its median, where a busy machine makes this the larger bound."""
QUIET_P99_MS = 50
QUIET_LOAD = 1.0
"""Load per processor above which the long form does not judge single milliseconds either."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("abused"), hang_timeout_ms=30_000) as broker:
        for topic in (TOPIC, VICTIM_TOPIC, "EMPTY"):
            broker.create_topic(topic, 1)
        yield broker


@pytest.fixture(scope="module")
def victim(broker: Broker) -> Iterator[Victim]:
    victim = Victim(broker.endpoint)
    victim.live(0.3)
    yield victim
    victim.close()


def suffer(broker: Broker, victim: Victim, name: str, seconds: float) -> tuple[Seen, Seen, Seen]:
    before = victim.live(seconds / 4)
    abuser = WarmPopen([sys.executable, abusers.__file__, name, broker.endpoint, str(seconds + 0.2)])
    try:
        time.sleep(0.2)  # for its own start; its effects are counted
        during = victim.live(seconds)
    finally:
        code = abuser.wait(TIMEOUT_S)
    after = victim.live(seconds / 4)
    print(f"\n{name:20} before {before}\n{'':20} during {during}\n{'':20} after  {after}")
    assert code == 0, "the abuser has failed, not the broker"
    return before, during, after


@pytest.mark.parametrize("name", ABUSERS)
def test_no_abuser_keeps_another_client_waiting(broker: Broker, victim: Victim, name: str) -> None:
    deaths = restarts(broker)
    before, during, after = suffer(broker, victim, name, 0.4)
    bound_ms = max(FLOOR_MS * max(1.0, crowd()), TIMES * before.percentile(50))
    assert during.percentile(50) <= bound_ms
    assert not during.refused
    assert not after.refused
    assert {
        address: count for address, count in restarts(broker).items() if count != deaths.get(address, 0)
    } == {}


@pytest.mark.chaos
@pytest.mark.parametrize("name", ABUSERS)
def test_under_any_single_abuser_99_of_100_requests_take_50_ms(
    broker: Broker, victim: Victim, name: str
) -> None:
    quiet = crowd() <= QUIET_LOAD
    _, during, after = suffer(broker, victim, name, 6.0)
    assert not during.refused + after.refused
    if not quiet:
        pytest.skip("the machine has other work: the figures are printed, and prove nothing")
    assert during.percentile(99) <= QUIET_P99_MS
