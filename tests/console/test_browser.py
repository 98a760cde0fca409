"""The console in a real Chromium: a person's acts on each page, by mouse and by keyboard, wide and narrow."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from browser import chromium, watched_page
from planaria import Broker
from planaria.supervisor.console import pages

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

chromium()  # without it the module is skipped
pytestmark = pytest.mark.processes


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
    page.wait_for_selector("#detail .watch:not(.open):has-text('from death to ready')")
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


@pytest.mark.parametrize("width", [1280, 360])
def test_every_page_opens_without_an_error(browser: "Browser", url: str, width: int) -> None:
    with watched_page(browser, width) as page:
        for each in pages.PAGES:
            page.goto(f"{url}{each.path}?topic=ORDERS&group=billing")
            page.wait_for_selector("main h1", state="attached")
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") == width, each.name


def test_a_topic_is_created_changed_and_deleted(page: "Page", url: str, broker: Broker) -> None:
    page.goto(f"{url}/topics")
    page.click("#create")
    page.fill("dialog [name=topic]", "NEW")
    page.fill("dialog [name=partitions]", "2")
    page.fill("dialog [name=config]", "colour=blue")
    page.click("dialog button:has-text('Create')")
    page.wait_for_selector("dialog .failure:has-text('colour')")
    page.fill("dialog [name=config]", "retention_ms=3600000")
    page.click("dialog button:has-text('Create')")
    page.click("#list a:has-text('NEW') >> nth=0")
    page.wait_for_selector("#config:has-text('3600000')")
    page.click("#grow")
    page.click("dialog button:has-text('Add')")
    page.wait_for_selector("#f-online:has-text('3 of 3')")
    page.click("#delete")
    page.fill("dialog input", "NEW")
    page.click("dialog button:has-text('Delete')")
    page.wait_for_url("**/topics")
    assert "NEW" not in {each.topic for each in broker.list_topics()}


def test_a_message_is_published_found_and_followed(page: "Page", url: str) -> None:
    page.goto(f"{url}/messages?topic=ORDERS&key=by-hand")
    page.click("#tail")
    page.wait_for_selector("#told:has-text('Waiting')")
    page.click("#publish")
    page.fill("dialog [name=key]", "by-hand")
    page.fill("dialog [name=value]", '{"amount": 17}')
    page.fill("dialog [name=headers]", "source=page")
    page.click("dialog button:has-text('Publish')")
    page.wait_for_selector("dialog", state="detached")
    page.click("#tail")
    page.click("#form button:has-text('Show')")
    page.click("#list tbody tr:has-text('by-hand') button")
    assert '"amount": 17' in page.inner_text("dialog pre")
    page.click("dialog .choice button:has-text('hex')")
    assert page.inner_text("dialog pre").startswith("7b 22")
    assert "page" in page.inner_text("dialog")


def test_a_quota_is_set_and_removed(page: "Page", url: str, broker: Broker) -> None:
    page.goto(f"{url}/quotas")
    page.click("#create")
    page.fill("dialog [name=client_id]", "reports")
    page.fill("dialog [name=fetch_bytes]", "1000")
    page.click("dialog button:has-text('Set')")
    page.wait_for_selector("#list td:has-text('reports')")
    assert broker.list_quotas()["reports"].fetch_bytes == 1_000
    page.click("#list button:has-text('Remove')")
    page.click("dialog button:has-text('Remove')")
    page.wait_for_selector("#list:has-text('No client has a quota')")


def test_a_delayed_message_is_cancelled(page: "Page", url: str, broker: Broker) -> None:
    broker.publish("ORDERS", "later", {"n": 1}, delay=3_600, scheduled_id="later")
    page.goto(f"{url}/delayed")
    page.click("#list tr:has-text('later') button:has-text('Cancel')")
    page.click("dialog button:has-text('Cancel the message')")
    page.wait_for_selector("#list:has-text('No delayed messages')")


def test_offsets_are_reset_after_a_preview(page: "Page", url: str, broker: Broker) -> None:
    with broker.client.consumer(
        "billing", partitions=[("ORDERS", number) for number in range(3)], auto_offset_reset="earliest"
    ) as consumer:
        while not consumer.poll(1.0):
            pass
        consumer.commit()
    page.goto(f"{url}/group?group=billing")
    page.click("#reset")
    page.click("dialog button:has-text('Continue')")
    page.wait_for_selector("dialog table:has-text('again')")
    page.check("dialog [name=sure]")
    page.click("dialog button:has-text('Continue')")
    page.wait_for_selector("dialog", state="detached")
    assert set(broker.client.group_offsets("billing").values()) == {0}
    page.click("#pause")
    page.click("dialog button:has-text('Pause')")
    page.click("#pause:has-text('Resume')")
    page.wait_for_selector("#pause:has-text('Pause')")


def test_letters_are_tried_dry_and_redriven(page: "Page", url: str, broker: Broker) -> None:
    broker.create_topic("LETTERS.dlq", 1)
    headers = {
        "dead-letter-topic": "ORDERS",
        "dead-letter-reason": "ValueError: no",
        "dead-letter-traceback": "Trace",
    }
    for number in range(2):
        broker.publish("LETTERS.dlq", f"k{number}", {"n": number}, headers=headers)
    other = {**headers, "dead-letter-reason": "KeyError: amount"}
    broker.publish("LETTERS.dlq", "k2", {"n": 2}, headers=other)
    page.goto(f"{url}/dead-letters")
    page.wait_for_selector("#told:has-text('3 letters pending')")
    rows = page.locator("#reasons tbody tr")
    assert [text.split() for text in rows.all_inner_texts()] == [
        ["2", "ValueError:", "no"],
        ["1", "KeyError:", "amount"],
    ]
    widths = [box["width"] for each in rows.locator(".bar").all() if (box := each.bounding_box())]
    assert widths[0] == pytest.approx(2 * widths[1])
    page.click("#list tbody button >> nth=-1")
    page.wait_for_selector("dialog pre:has-text('Trace')")
    assert "ValueError: no" in page.inner_text("dialog")
    page.click("dialog button:has-text('Close')")
    page.check("#list tbody input >> nth=0")
    page.click("#dry")
    page.wait_for_selector("dialog h2:has-text('1 letter would be sent')")
    page.click("dialog button:has-text('Close')")
    page.click("#redrive")
    page.click("dialog button:has-text('Redrive')")
    page.wait_for_selector("#told:has-text('2 letters pending, 1 redriven')")
