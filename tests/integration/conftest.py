"""Embedded brokers for the tests of whole trees."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from planaria import Broker

SETTINGS: dict[str, Any] = {"hang_timeout_ms": 20_000, "heartbeat_interval_ms": 200}
"""Status is fresh, and no actor is killed for its silence while a busy machine does not run it."""


@pytest.fixture
def broker(data_dir: Path) -> Iterator[Broker]:
    with Broker(data_dir, **SETTINGS) as broker:
        yield broker


@pytest.fixture(scope="module")
def broker_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("module") / "data", **SETTINGS) as broker:
        yield broker


@pytest.fixture
def emptied_broker(broker_of_the_module: Broker) -> Iterator[Broker]:
    """The broker of all tests of a module, which leave no member behind: it has no topics and groups again after each."""
    client = broker_of_the_module.client
    yield broker_of_the_module
    for group in client.list_groups():
        client.delete_group(group)
    for topic in client.list_topics():
        client.delete_topic(topic.topic)


@pytest.fixture
def hardy(data_dir: Path) -> Iterator[Broker]:
    """A broker that tolerates any number of deaths, and restarts the dead at once."""
    with Broker(data_dir, restart_intensity=1_000_000, backoff_reset_ms=1, **SETTINGS) as broker:
        yield broker


@pytest.fixture
def tree_mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """Mark the environment of every process that this test starts; see live_trees.marked_processes."""
    mark = f"TREE_UNDER_TEST={uuid.uuid4().hex}"
    monkeypatch.setenv(*mark.split("=", 1))
    return mark
