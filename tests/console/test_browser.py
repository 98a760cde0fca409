"""The console in a real Chromium: a person's acts on each page, by mouse and by keyboard, wide and narrow."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from browser import chromium, running_browser, watched_page
from planaria import Broker

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = chromium()
pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with running_browser(CHROMIUM) as browser:
        yield browser


@pytest.fixture
def page(browser: "Browser", url: str) -> Iterator["Page"]:
    with watched_page(browser) as page:
        page.goto(url)
        yield page


def cell(address: str) -> str:
    return f'.cell[data-address="{address}"]'


def test_a_partition_is_killed_on_the_page_and_returns(page: "Page", broker: Broker) -> None:
    before = next(each for each in broker.status().actors if each.address == "partition/ORDERS/1")
    page.click(cell("partition/ORDERS/1"))
    page.click("#detail button:has-text('Kill')")
    page.click("dialog button:has-text('Kill')")
    page.wait_for_selector("#detail .watch:not(.open):has-text('from death to service')")
    assert page.inner_text("#events b") == "partition/ORDERS/1"
    assert re.fullmatch(r"back after [\d.,]+ (ms|s)", page.inner_text("#events .took"))
    assert page.get_attribute(cell("partition/ORDERS/1"), "data-state") == "ready"
    after = next(each for each in broker.status().actors if each.address == "partition/ORDERS/1")
    assert (after.incarnation, after.pid != before.pid) == (before.incarnation + 1, True)


def test_the_gateway_is_killed_by_keyboard_and_returns(page: "Page", broker: Broker) -> None:
    page.wait_for_selector(cell("gateway/0"))
    page.focus('.cell[tabindex="0"]')
    assert page.evaluate("document.activeElement.dataset.address") == "controller"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("k")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#events .took:has-text('back after')")
    assert page.inner_text("#events b") == "gateway/0"


def test_a_frozen_process_shows_as_silent_and_goes_on(page: "Page") -> None:
    page.click(cell("partition/ORDERS/2"))
    page.click("#detail button:has-text('Freeze')")
    page.click("dialog button:has-text('Freeze')")
    page.wait_for_selector(cell("partition/ORDERS/2") + ".silent")
    page.click("#detail button:has-text('Continue')")
    page.wait_for_selector(cell("partition/ORDERS/2") + ":not(.silent)")


def test_the_tree_as_a_table_sorts(page: "Page") -> None:
    page.click("#as-table")
    page.click("#table th button:has-text('pid')")
    numbers = [int(text) for text in page.locator("#table tbody td:nth-child(3)").all_inner_texts()]
    assert len(numbers) >= 5
    assert numbers == sorted(numbers, reverse=True)
    page.click("#table button:has-text('controller')")
    assert page.inner_text("#detail h2") == "controller"


def test_a_narrow_screen_has_no_sideways_scrolling(browser: "Browser", url: str) -> None:
    with watched_page(browser, 360, 740, "dark") as page:
        page.goto(url)
        page.wait_for_selector(cell("gateway/0"))
        assert page.evaluate("document.documentElement.scrollWidth") == 360
