"""`planaria serve --console`: an actor keeps the console running, and ends it."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from patience import wait_until
from planaria import Broker
from planaria.supervisor.console.server import NICENESS
from served_console import client_of, pid_of_console

pytestmark = pytest.mark.processes


@pytest.fixture
def address(free_port: int) -> str:
    return f"127.0.0.1:{free_port}"


@pytest.fixture
def broker(tmp_path: Path, address: str) -> Iterator[Broker]:
    with Broker(tmp_path / "data", console=address) as broker:
        yield broker


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/").status_code == 200
    except httpx.TransportError:
        return False


def test_a_console_gives_way_to_its_broker(broker: Broker, address: str) -> None:
    with client_of(f"http://{address}") as http:
        wait_until(lambda: answers(http))
    pid = pid_of_console(broker)
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
    group = Path(f"/proc/{pid}/autogroup")
    if group.exists():
        assert group.read_text().split()[-1] == str(NICENESS), "it is in a session of its own"


def test_a_console_that_dies_is_restarted_and_ends_with_its_broker(broker: Broker, address: str) -> None:
    with client_of(f"http://{address}") as http:
        wait_until(lambda: answers(http))
        assert "ORDERS" not in http.get("/api/topics").text
        broker.kill("console")
        wait_until(
            lambda: next(each for each in broker.status().actors if each.address == "console").restarts >= 1
        )
        wait_until(lambda: answers(http))
        broker.close()
        wait_until(lambda: not answers(http))
