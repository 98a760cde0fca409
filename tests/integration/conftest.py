"""Embedded brokers for the tests of whole trees."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from planaria import Broker

SETTINGS: dict[str, Any] = {"hang_timeout_ms": 1_000, "heartbeat_interval_ms": 200}


@pytest.fixture
def broker(data_dir: Path) -> Iterator[Broker]:
    with Broker(data_dir, **SETTINGS) as broker:
        yield broker


@pytest.fixture
def hardy(data_dir: Path) -> Iterator[Broker]:
    """Takes any number of deaths for bad luck, and starts the dead again at once."""
    with Broker(data_dir, restart_intensity=1_000_000, backoff_reset_ms=1, **SETTINGS) as broker:
        yield broker


@pytest.fixture
def tree_mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """Marks the environment of every process that this test starts; see live_trees.marked_processes."""
    mark = f"TREE_UNDER_TEST={uuid.uuid4().hex}"
    monkeypatch.setenv(*mark.split("=", 1))
    return mark
