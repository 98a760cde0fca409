"""Embedded brokers for the tests of whole trees."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from planaria import Broker
from planaria.testing import TestBroker

SETTINGS: dict[str, Any] = {"hang_timeout_ms": 20_000, "offsets_partitions": 2}
"""No actor is killed for its silence while a busy machine does not run it."""
HEARTBEAT_MS = 500
"""That of an ordinary broker: five percent of a processor for ten actors at 100 ms, that of test brokers, one at this."""


@pytest.fixture(scope="module")
def broker_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestBroker]:
    """A broker that tolerates any number of deaths, and restarts the dead at once."""
    settings = {**SETTINGS, "restart_intensity": 1_000_000, "backoff_reset_ms": 1, "topic_defaults": {}}
    with TestBroker(
        tmp_path_factory.mktemp("module"), heartbeat_interval_ms=HEARTBEAT_MS, **settings
    ) as broker:
        yield broker


@pytest.fixture
def broker(broker_of_the_module: TestBroker) -> Iterator[TestBroker]:
    """The broker of all tests of a module: it has no subscriptions, topics, groups and quotas again after each."""
    yield broker_of_the_module
    broker_of_the_module.clean()


@pytest.fixture
def data_of_the_module(broker_of_the_module: TestBroker) -> Path:
    """The data directory of `broker`."""
    return Path(broker_of_the_module.status().data_directory)


@pytest.fixture
def own_broker(data_dir: Path) -> Iterator[Broker]:
    """A broker for one test, which starts or kills its supervisor, looks at all of it, or relies on what it forgets."""
    with Broker(data_dir, **SETTINGS) as broker:
        yield broker


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker for the pages of the manual, whose blocks and commands run one after another."""
    data = tmp_path_factory.mktemp("manual") / "data"
    with Broker(data, endpoint="tcp://127.0.0.1:*", topic_defaults={"flush": "os"}) as broker:
        yield broker


@pytest.fixture
def tree_mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """Mark the environment of every process that this test starts; see live_trees.marked_processes."""
    mark = f"TREE_UNDER_TEST={uuid.uuid4().hex}"
    monkeypatch.setenv(*mark.split("=", 1))
    return mark
