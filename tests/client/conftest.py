"""A fake broker and a client connected to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_broker import FakeBroker
from planaria.transport.client.client import Client


@pytest.fixture
def broker(endpoint: str, run_dir: Path) -> Iterator[FakeBroker]:
    """A broker on this machine: partitions have endpoints of their own."""
    with FakeBroker(endpoint, run_dir) as fake:
        fake.create_topic("T", 2)
        yield fake


@pytest.fixture
def remote_broker(endpoint: str) -> Iterator[FakeBroker]:
    """A broker on another machine: all requests go through the gateway."""
    with FakeBroker(endpoint) as fake:
        fake.create_topic("T", 2)
        yield fake


@pytest.fixture
def client(broker: FakeBroker) -> Iterator[Client]:
    with Client(broker.endpoint, request_timeout_ms=10_000, metadata_timeout_ms=200) as connected:
        yield connected
