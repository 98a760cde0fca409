"""The console over HTTP: every page and answer, and its door against other sites."""

import json
from typing import Any

import httpx
import pytest

from planaria import Broker
from planaria.supervisor.console import pages
from planaria.supervisor.console.guard import MAX_BODY_BYTES
from served_console import OWN

pytestmark = pytest.mark.processes


def answered(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize(
    "page", [page for page in pages.PAGES if "{" not in page.path], ids=lambda page: page.name
)
def test_every_page_is_served_under_the_policy(http: httpx.Client, page: pages.Page) -> None:
    found = http.get(page.path)
    assert found.status_code == 200
    assert "default-src 'self'" in found.headers["content-security-policy"]
    assert f"<title>{page.title} · Planaria</title>" in found.text
    for path in ("/static/frame.css", f"/static/{page.name}.js"):
        assert path in found.text
        assert http.get(path).status_code == 200


def test_the_tree_shows_a_kill_and_the_return(http: httpx.Client, broker: Broker) -> None:
    with http.stream("GET", "/api/tree") as stream:
        news = (json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))
        nodes = {node["address"]: node for node in next(news)["nodes"]}
        before = dict(nodes["partition/ORDERS/1"])
        reply = answered(
            http.post("/api/kill", json={"address": before["address"], "signal": "SIGKILL"}, headers=OWN)
        )
        assert reply == {"pid": before["pid"], "incarnation": before["incarnation"]}
        for found in news:
            for change in found["nodes"]:
                nodes[change["address"]] |= change
            after = nodes[before["address"]]
            if after["incarnation"] == before["incarnation"] + 1 and after["downtime_ms"] is not None:
                break
    assert after["reason"] == "killed by SIGKILL"
    assert after["pid"] != before["pid"]
    detail = answered(http.get("/api/actor", params={"address": before["address"]}))
    assert (detail["downtime_ms"], detail["incarnation"]) == (after["downtime_ms"], after["incarnation"])
    assert answered(http.post("/api/revive", json={"address": before["address"]}, headers=OWN)) == {
        "state": "ready"
    }


def test_errors_of_the_broker_are_answers(http: httpx.Client) -> None:
    kill = {"address": "partition/NONE/0", "signal": "SIGKILL"}
    assert refusal(http.post("/api/kill", json=kill, headers=OWN)) == (404, "UNKNOWN_ACTOR")
    assert refusal(http.get("/api/actor", params={"address": "x"})) == (404, "UNKNOWN_ACTOR")
    for body in ("", "[]", "{", '{"address": 1}', '{"address": "x", "signal": "SIGFPE"}'):
        assert refusal(http.post("/api/kill", content=body, headers=OWN)) == (400, "INVALID_REQUEST"), body
    assert http.get("/nowhere").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({**OWN, "origin": "http://evil.example"}, 403),
        ({**OWN, "sec-fetch-site": "cross-site"}, 403),
        ({**OWN, "host": "evil.example"}, 421),
    ],
)
def test_a_request_of_another_site_changes_nothing(
    http: httpx.Client, broker: Broker, headers: dict[str, str], status: int
) -> None:
    before = {actor.address: actor.pid for actor in broker.status().actors}
    answer = http.post("/api/kill", content=b'{"address":"gateway/0","signal":"SIGKILL"}', headers=headers)
    assert answer.status_code == status
    assert {actor.address: actor.pid for actor in broker.status().actors} == before


def test_a_body_beyond_the_limit_is_refused(http: httpx.Client) -> None:
    assert http.post("/api/kill", content=bytes(MAX_BODY_BYTES + 1), headers=OWN).status_code == 413
    chunks = (chunk for chunk in [b"{}"])
    assert http.post("/api/kill", content=chunks, headers=OWN).status_code == 413, "without a length"


def test_a_page_under_a_strangers_name_is_refused(http: httpx.Client) -> None:
    assert http.get("/", headers={"host": "evil.example:5573"}).status_code == 421
    assert http.get("/", headers={"host": "localhost:5573"}).status_code == 200
    assert http.put("/").status_code == 405
