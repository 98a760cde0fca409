"""Every test of the asynchronous client runs under each kind of event loop, on a real broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from event_loops import LOOPS, Run
from planaria import Broker


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine function to its end on each kind of loop."""
    return LOOPS[request.param]


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(data=str(tmp_path_factory.mktemp("data")), endpoint="tcp://127.0.0.1:*") as found:
        yield found


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(data=str(tmp_path / "data"), endpoint="tcp://127.0.0.1:*") as found:
        yield found
