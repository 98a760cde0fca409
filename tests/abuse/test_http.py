"""Hostile HTTP clients must not harm those of the broker: a victim's latencies without and with each of them in turn, and
the share of a processor that the process takes which serves them, or the console.

    pytest tests/abuse/test_http.py -m chaos -s      prints a line for each hostile client, in three minutes
"""

import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import http_abusers
from abuse_victim import FLOOR_MS, Seen, Victim, crowd, restarts
from abuse_victim import TOPIC as VICTIM_TOPIC
from http_abusers import ABUSERS, OF_THE_CONSOLE
from patience import TIMEOUT_S, wait_until
from planaria import Broker
from warm_start import WarmPopen

pytestmark = pytest.mark.processes
TIMES = 20
"""Maximum growth factor of its median, where a busy machine makes this the larger bound."""
SECONDS = 5.0
ROUNDS = 3
MAX_SHARE = 0.3
"""Share of a processor, for the work that hostile connections make."""
IS_WORK_OF_THE_BROKER = "publishes"
"""Requests that the bridge passes on: quotas are their limit."""
FILLS_THE_BACKLOG = "garbage"
"""It connects faster than any process accepts, and the system drops the connections of others as well."""
VISIT_S = 2.0


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
    broker: Broker,
    victim: Victim,
    name: str,
    seconds: float,
    rounds: int = 1,
    url: str = "",
    path: str = "/healthz",
    pid: int | None = None,
) -> None:
    """Measure the victim without and with the hostile client, in turn, and once more without; print one line.

    In turn, because a shared machine is now faster and now slower. `pid`: the process whose processor time is printed.
    """
    url = url or broker.http_endpoint or ""
    deaths = restarts(broker)
    pairs: list[tuple[Seen, Seen]] = []
    shares: list[float] = []
    pages = Seen()
    for _ in range(rounds):
        before = victim.live(seconds / 2)
        with attacked(name, url, seconds + 0.2):
            time.sleep(0.2)  # for its own start; its effects are counted
            with processor_share(pid, shares), visited(f"{url}{path}", pages):
                pairs.append((before, victim.live(seconds)))
            # A connection may be displaced by newcomers before its request arrives: the probe is repeated then.
            wait_until(lambda: serves(f"{url}{path}"))
    after = victim.live(seconds / 2)
    before, during = (together(phase) for phase in zip(*pairs, strict=True))
    ratios = [with_it.percentile(99) / without.percentile(99) for without, with_it in pairs]
    print(
        f"\n{name:10} {url} publish, metadata, fetch, p50/p99 ms: before {shown(before)}, during {shown(during)}, "
        f"after {shown(after)}; p99 during/before by pair {' '.join(f'{each:.1f}' for each in ratios)}"
        + (f"; the server takes {max(shares):.0%} of a processor" if shares else "")
        + f"; {len(pages.waits_ms)} pages of another client, p50/p99 ms {shown(pages)}"
    )
    assert not before.refused + during.refused + after.refused
    assert during.percentile(50) <= max(FLOOR_MS * max(1.0, crowd()), TIMES * before.percentile(50))
    assert name == IS_WORK_OF_THE_BROKER or max(shares, default=0.0) < MAX_SHARE
    assert name == FILLS_THE_BACKLOG or seconds < SECONDS or pages.waits_ms, "nobody else has seen a page"
    changed = {each: count for each, count in restarts(broker).items() if count != deaths.get(each, 0)}
    assert changed == {}


@contextmanager
def attacked(name: str, url: str, seconds: float) -> Iterator[None]:
    words = [sys.executable, http_abusers.__file__, name, url.removeprefix("http://"), str(seconds)]
    abuser = WarmPopen(words)
    try:
        yield
    finally:
        code = abuser.wait(TIMEOUT_S)
    assert code == 0, "the abuser has failed, not the broker"


def together(phases: Sequence[Seen]) -> Seen:
    """Return the observations of several phases as one."""
    return Seen(
        [each for seen in phases for each in seen.waits_ms],
        [each for seen in phases for each in seen.refused],
    )


def shown(seen: Seen) -> str:
    return f"{seen.percentile(50):.1f}/{seen.percentile(99):.1f}"


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
    suffer(broker, victim, name, SECONDS, ROUNDS, pid=pid)


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
        suffer(broker, victim, name, SECONDS, ROUNDS, url, "/", console.pid)
    finally:
        console.communicate(timeout=TIMEOUT_S)


def serves(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S):
            return True
    except OSError:
        return False


@contextmanager
def visited(url: str, pages: Seen) -> Iterator[None]:
    """Ask for a page again and again meanwhile, as another client from the same address."""
    is_over = threading.Event()

    def visit() -> None:
        while not is_over.wait(0.1):
            began = time.monotonic()
            try:
                with urllib.request.urlopen(url, timeout=VISIT_S):
                    pages.waits_ms.append((time.monotonic() - began) * 1000)
            except OSError:
                pages.refused.append("no page")

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        yield
    finally:
        is_over.set()
        visitor.join()


@contextmanager
def processor_share(pid: int | None, shares: list[float]) -> Iterator[None]:
    """Add the share of a processor that a process takes meanwhile; of hostile connections it is small."""
    if pid is None:
        yield
        return
    began, before_s = time.monotonic(), cpu_s(pid)
    yield
    shares.append((cpu_s(pid) - before_s) / (time.monotonic() - began))


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
