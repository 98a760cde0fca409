"""The console and the HTTP actor are killed while a page is open: it says so, and goes on by itself."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from browser import chromium, running_browser, watched_page
from patience import wait_until
from planaria import Broker
from served_console import pid_of_console

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = chromium()
pytestmark = pytest.mark.processes
NOTE_STATES = """() => {
  window.states = [];
  const link = document.getElementById("link");
  new MutationObserver(() => states.push(link.dataset.state)).observe(link, {attributes: true});
}"""


@pytest.fixture
def browser() -> Iterator["Browser"]:
    with running_browser(CHROMIUM) as browser:
        yield browser


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_page_goes_on_after_its_console_was_killed(
    browser: "Browser", tmp_path: Path, free_port: int
) -> None:
    url = f"http://127.0.0.1:{free_port}"
    with Broker(tmp_path / "data", console=f"127.0.0.1:{free_port}", http_endpoint="127.0.0.1:*") as broker:
        broker.create_topic("ORDERS", 2)
        wait_until(lambda: answers(url))
        with watched_page(browser, loses_console=True) as page:
            page.goto(url)
            page.wait_for_selector("#link[data-state=live]")
            broker.kill("http")
            page.wait_for_selector("#events li:has-text('http') .took:has-text('back after')")
            page.evaluate(NOTE_STATES)
            for kills in (1, 2):
                os.kill(pid_of_console(broker), signal.SIGKILL)
                page.wait_for_function(
                    "kills => states.filter(each => each === 'lost').length >= kills && states.at(-1) === 'live'",
                    arg=kills,
                )
                page.wait_for_selector(f"#events li:has-text('console') >> nth={kills - 1}")
            assert page.locator("#events li:has-text('http')").count() == 1, (
                "the new console shows no death twice"
            )
            broker.kill("partition/ORDERS/0")
            page.wait_for_selector("#events li:has-text('ORDERS/0') .took:has-text('back after')")
