"""The console over HTTP: every page and answer, and its door against other sites."""

import json
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from patience import TIMEOUT_S
from planaria import Broker
from planaria.supervisor.console import letter_answers, message_answers, pages, server
from planaria.supervisor.console.guard import MAX_BODY_BYTES
from served_console import OWN, client_of, served_console

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


def act(http: httpx.Client, path: str, **body: Any) -> Any:
    return answered(http.post(path, json=body, headers=OWN))


def test_a_topic_is_created_changed_and_deleted_by_its_typed_name(http: httpx.Client) -> None:
    act(http, "/api/topic/create", topic="T", partitions=1, config={"retention_ms": 3_600_000})
    act(http, "/api/topic/alter", topic="T", partitions=2, config={"cleanup": "compact"})
    found = answered(http.get("/api/topic", params={"topic": "T"}))
    assert (len(found["partitions"]), found["config"]["cleanup"], found["messages"]) == (2, "compact", 0)
    assert "T" in [each["topic"] for each in answered(http.get("/api/topics"))["topics"]]
    wrong = http.post("/api/topic/delete", json={"topic": "T", "typed": "t"}, headers=OWN)
    assert refusal(wrong) == (400, "INVALID_REQUEST")
    bad = http.post("/api/topic/create", json={"topic": "U", "config": {"colour": 1}}, headers=OWN)
    assert bad.status_code == 400
    assert "colour" in bad.json()["error"]["message"]
    act(http, "/api/topic/delete", topic="T", typed="T")
    assert refusal(http.get("/api/topic", params={"topic": "T"})) == (404, "UNKNOWN_TOPIC")


def test_a_search_goes_on_at_the_places_that_it_has_reached(
    http: httpx.Client, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.create_topic("MANY", 2)
    for number in range(6):
        broker.publish("MANY", f"key-{number % 3}", number)
    monkeypatch.setattr(message_answers, "SEARCH_S", 0.0)  # each answer has one message
    asked = {"topic": "MANY", "key": "key-1", "from": "beginning"}
    found, lefts, places = [], [], ""
    for _ in range(6):
        answer = answered(http.get("/api/messages", params={**asked, "places": places}))
        found += answer["messages"]
        lefts.append(answer["left"])
        places = answer["places"]
    assert lefts == [5, 4, 3, 2, 1, 0]
    assert places == ""
    assert [each["value"]["text"] for each in found] == ["1", "4"]
    assert refusal(http.get("/api/messages", params={**asked, "places": "0:1"}))[0] == 400


def test_messages_are_found_by_place_time_and_key(http: httpx.Client, broker: Broker) -> None:
    def look(**parameters: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = answered(
            http.get("/api/messages", params={"topic": "VALUES", **parameters})
        )["messages"]
        return found

    broker.create_topic("VALUES", 1)
    for key, value in (
        ("a", {"n": 1}),
        ("b", b"text"),
        ("c", b"\x81\xa1n\x02"),
        ("d", b"\xff\x00"),
        ("e", None),
    ):
        broker.publish("VALUES", key, value)
    found = look(**{"from": "beginning"})
    assert [each["value"] and each["value"]["format"] for each in found] == [
        "json",
        "text",
        "msgpack",
        "bytes",
        None,
    ]
    assert found[2]["value"]["text"] == '{\n  "n": 2\n}'
    assert found[3]["value"]["hex"] == "ff 00"
    assert [each["offset"] for each in look(limit=2)] == [4, 3], "the newest first"
    assert [each["offset"] for each in look(**{"from": "offset", "at": 2, "partition": 0, "limit": 1})] == [2]
    assert [each["offset"] for each in look(**{"from": "time", "at": found[0]["timestamp_ms"]})][:1] == [0]
    assert [each["offset"] for each in look(key="b")] == [1]
    assert refusal(http.get("/api/messages", params={"topic": "NONE"})) == (404, "UNKNOWN_TOPIC")
    assert refusal(http.get("/api/messages", params={"topic": "VALUES", "limit": "x"}))[0] == 400


def test_a_published_message_arrives_in_the_tail(http: httpx.Client, broker: Broker) -> None:
    broker.create_topic("TAIL", 2)
    with http.stream("GET", "/api/messages/tail", params={"topic": "TAIL"}) as stream:
        lines = stream.iter_lines()
        assert next(lines) == ": following"
        found: list[dict[str, Any]] = []
        for number, line in enumerate(lines):
            if number % 10 == 0:  # the tail begins at the end, whenever it has found that
                act(
                    http,
                    "/api/messages/publish",
                    topic="TAIL",
                    value='{"n": 1}',
                    format="json",
                    key="k",
                    headers={"h": "x"},
                )
            if line.startswith("data: "):
                found += json.loads(line[6:])["messages"]
                break
    assert (found[0]["key"]["text"], found[0]["headers"]["h"]) == ("k", "x")
    bad = {"topic": "TAIL", "value": "zz", "format": "hex"}
    assert refusal(http.post("/api/messages/publish", json=bad, headers=OWN)) == (400, "INVALID_REQUEST")


def test_a_group_shows_its_lag_and_is_reset_after_a_preview(http: httpx.Client, broker: Broker) -> None:
    broker.create_topic("READ", 2)
    for number in range(4):
        broker.client.publish("READ", b"x", partition=number % 2)
    with broker.client.consumer(
        "billing", partitions=[("READ", 0), ("READ", 1)], auto_offset_reset="earliest"
    ) as consumer:
        read = 0
        while read < 4:
            read += len(consumer.poll(1.0))
        consumer.commit()
    assert answered(http.get("/api/group", params={"group": "billing"}))["lag"] == 0
    preview = act(http, "/api/group/reset", group="billing", to="earliest")
    assert [(each["partition"], each["from"], each["to"]) for each in preview["offsets"]] == [
        (0, 2, 0),
        (1, 2, 0),
    ]
    assert set(broker.client.group_offsets("billing").values()) == {2}, "a preview sets nothing"
    chosen = {"topic": "READ", "partition": 1, "is_preview": False}
    act(http, "/api/group/reset", group="billing", to="offset", at=1, **chosen)
    found = answered(http.get("/api/group", params={"group": "billing"}))
    assert [each["lag"] for each in found["lags"]] == [0, 1]
    assert found["oldest_ms"] == found["lags"][1]["oldest_ms"] > 0
    assert "billing" in [each["group"] for each in answered(http.get("/api/groups"))["groups"]]
    act(http, "/api/group/pause", group="billing", reason="a test")
    assert answered(http.get("/api/group", params={"group": "billing"}))["paused"]["reason"] == "a test"
    act(http, "/api/group/resume", group="billing")
    act(http, "/api/group/delete", group="billing", typed="billing")
    assert refusal(http.get("/api/group", params={"group": "billing"})) == (404, "UNKNOWN_GROUP")


def test_dead_letters_are_shown_with_their_stack_and_redriven(
    http: httpx.Client, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.create_topic("LETTERS.dlq", 1)
    headers = {
        "dead-letter-topic": "ORDERS", "dead-letter-partition": "0", "dead-letter-offset": "0",
        "dead-letter-reason": "ValueError: no amount", "dead-letter-traceback": "Traceback ...",
    }  # fmt: skip
    for number in range(3):
        broker.publish("LETTERS.dlq", f"k{number}", {"n": number}, headers=headers)
    assert answered(http.get("/api/letter-topics"))["topics"] == ["LETTERS.dlq"]
    found = answered(http.get("/api/letters", params={"topic": "LETTERS.dlq"}))
    assert (found["pending"], found["reasons"]) == (3, [["ValueError: no amount", 3]])
    one = answered(http.get("/api/letter", params={"topic": "LETTERS.dlq", "partition": 0, "offset": 1}))
    assert (one["traceback"], one["message"]["value"]["format"]) == ("Traceback ...", "json")
    order = {"topic": "LETTERS.dlq", "positions": [[0, 1]]}
    assert act(http, "/api/redrive", **order)["count"] == 1
    assert act(http, "/api/redrive", **order, is_dry_run=False)["moved"] == 1
    assert answered(http.get("/api/letters", params={"topic": "LETTERS.dlq"}))["pending"] == 2
    monkeypatch.setattr(letter_answers, "MAX_READ", 1)
    found = answered(http.get("/api/letters", params={"topic": "LETTERS.dlq"}))
    assert (found["pending"], found["unread"], found["all"]) == (1, 2, 3)
    monkeypatch.undo()
    pending = letter_answers.Redrive.pending

    def late(self: letter_answers.Redrive, *given: Any) -> Any:
        broker.publish("LETTERS.dlq", "late", {"n": 3}, headers=headers)
        return pending(self, *given)

    monkeypatch.setattr(letter_answers.Redrive, "pending", late)
    found = answered(http.get("/api/letters", params={"topic": "LETTERS.dlq"}))
    assert (found["pending"], found["all"]) == (2, 3), "one that arrives meanwhile belongs to the next answer"


def test_work_in_progress_is_shown_and_ended(http: httpx.Client, broker: Broker) -> None:
    broker.publish("ORDERS", "later", {"n": 1}, delay=3_600, scheduled_id="later")
    assert [each["scheduled_id"] for each in answered(http.get("/api/delayed"))["messages"]] == ["later"]
    act(http, "/api/delayed/cancel", scheduled_id="later")
    assert answered(http.get("/api/delayed"))["messages"] == []
    act(http, "/api/quota", client_id="shop", quota={"produce_bytes": 1_000})
    assert answered(http.get("/api/quotas"))["quotas"][0]["produce_bytes"] == 1_000
    act(http, "/api/quota", client_id="shop", quota=None)
    assert answered(http.get("/api/quotas"))["quotas"] == []
    act(http, "/api/group/configure", group="queue", settings={"lock_ms": 60_000})
    with broker.client.share_consumer("queue", "ORDERS") as consumer:
        held = []
        while not held:
            held = consumer.poll(1.0)
        records = answered(http.get("/api/in-flight"))["records"]
        assert {(each["group"], each["topic"]) for each in records} == {("queue", "ORDERS")}
        for message in held:
            message.accept()
    with broker.client.producer(transactional_id="tx") as producer, producer.transaction() as transaction:
        transaction.publish("ORDERS", {"n": 2})
        states = answered(http.get("/api/transactions"))["transactions"]
    assert [each["transactional_id"] for each in states] == ["tx"]
    assert answered(http.get("/api/cluster"))["cluster"] is None
    assert answered(http.get("/api/security"))["principals"] in (None, [])
    assert "entries" in answered(http.get("/api/audit"))


def test_idle_connections_give_way(http: httpx.Client, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 20)
    host, _, port = url.removeprefix("http://").rpartition(":")
    with ExitStack() as idle:
        for number in range(60):
            connection = idle.enter_context(socket.create_connection((host, int(port))))
            connection.sendall(b"GET / HTTP/1.1\r\nhost: " if number % 2 else b"")
        for _ in range(3):
            with client_of(url) as other:
                assert other.get("/login").status_code == 303
    assert http.get("/").status_code == 200


def test_requests_that_arrive_together_take_the_process_no_more_than_its_share(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    share, burst_s = 0.2, 0.02
    monkeypatch.setattr(server, "LOOP_SHARE", share)
    monkeypatch.setattr(server, "LOOP_BURST_S", burst_s)
    before = {*threading.enumerate()}
    with served_console(broker.endpoint) as url, client_of(url) as other:
        [serving] = {*threading.enumerate()} - before
        assert serving.ident is not None
        clock = time.pthread_getcpuclockid(serving.ident)
        assert other.get("/").status_code == 200, "templates and imports are loaded"
        host, _, port = url.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), TIMEOUT_S) as crowd:
            began_s, used_s = time.monotonic(), time.clock_gettime(clock)
            crowd.sendall(1_000 * b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert other.get("/").status_code == 200, "it waits for one turn of the crowd, and not for all"
            answers = 0
            while answers < 800:
                answers += crowd.recv(1 << 16).count(b"HTTP/1.1 200")
            elapsed_s, took_s = time.monotonic() - began_s, time.clock_gettime(clock) - used_s
    assert took_s < burst_s + share * elapsed_s + 0.03, "one turn may be in progress"
    assert answers < 1_000
