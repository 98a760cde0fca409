"""One broker and one console of it for the tests of a module."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from browser import chromium, running_browser
from planaria import Broker
from served_console import client_of, served_console

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with running_browser(chromium()) as browser:
        yield browser


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    data: Path = tmp_path_factory.mktemp("console")
    with Broker(data, topic_defaults={"flush": "os"}) as broker:
        broker.create_topic("ORDERS", 3)
        for number in range(6):
            broker.publish("ORDERS", f"order-{number}", {"amount": number})
        yield broker


@pytest.fixture(scope="module")
def url(broker: Broker) -> Iterator[str]:
    with served_console(broker.endpoint) as url:
        yield url


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with client_of(url) as client:
        yield client
