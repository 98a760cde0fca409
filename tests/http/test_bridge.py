"""The HTTP bridge on a live broker: publishing, reading, following, groups, refusals, credentials."""

import base64
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patience import TIMEOUT_S
from planaria import Broker
from planaria.actors.http.window import MAX_BEGUN
from planaria.supervisor.security import initialise
from planaria.transport.client.security_admin import SecurityAdmin
from planaria.transport.security.rights import Rule

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("bridged"), http_endpoint="127.0.0.1:*", http_bridge=True) as broker:
        broker.create_topic("T", 1)
        broker.create_topic("JOBS", 1)
        yield broker


def connect(broker: Broker) -> http.client.HTTPConnection:
    assert broker.http_endpoint is not None
    return http.client.HTTPConnection(broker.http_endpoint.removeprefix("http://"), timeout=TIMEOUT_S)


def ask(
    broker: Broker, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    connection = connect(broker)
    sent = None if body is None else json.dumps(body)
    typed = {"Content-Type": "application/json"} if method == "POST" else {}
    connection.request(method, path, sent, typed | (headers or {}))
    reply = connection.getresponse()
    data = reply.read()
    connection.close()
    assert reply.headers["content-type"].startswith("application/")
    return reply.status, json.loads(data)


def test_records_are_published_read_and_followed_from_the_last_event(broker: Broker) -> None:
    given = [{"key_text": "a", "json": {"number": 1}}, {"value_text": "two"}, {"value": "AAE="}]
    status, found = ask(broker, "POST", "/topics/T/records", {"records": given})
    assert (status, [each["offset"] for each in found["records"]]) == (200, [0, 1, 2])
    status, found = ask(broker, "GET", "/topics/T/partitions/0/records?offset=0")
    values = [base64.b64decode(each["value"]) for each in found["records"]]
    assert (status, values) == (200, [b'{"number":1}', b"two", b"\x00\x01"])
    assert ask(broker, "GET", "/topics/T/partitions/0/offsets?at=latest")[1]["offset"] == 3
    connection = connect(broker)
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "1"}
    connection.request("GET", "/topics/T/partitions/0/records?offset=0", headers=headers)
    events = connection.getresponse()
    assert next_event(events) == (2, "AAE=")
    broker.publish("T", None, b"later")
    assert next_event(events) == (3, base64.b64encode(b"later").decode())
    connection.close()


def next_event(events: http.client.HTTPResponse) -> tuple[int, str]:
    lines: list[bytes] = []
    while True:
        line = events.readline()
        assert line, "the stream has ended"
        if line.startswith(b":"):
            lines = []
        elif line.strip():
            lines.append(line)
        elif lines:
            return int(lines[0].removeprefix(b"id:")), json.loads(lines[1].removeprefix(b"data:"))["value"]


def test_a_job_is_taken_and_ended_and_a_group_has_its_offsets(broker: Broker) -> None:
    member = {"member_id": "w1"}
    assert ask(broker, "POST", "/groups/workers/acquire", {"topics": ["JOBS"], **member})[1]["records"] == []
    ask(broker, "POST", "/topics/JOBS/records", {"records": [{"json": 1}]})
    wanted = {"topics": ["JOBS"], **member, "max_wait_ms": 30_000}
    [job] = ask(broker, "POST", "/groups/workers/acquire", wanted)[1]["records"]
    verdict = {"topic": "JOBS", "partition": 0, "first_offset": job["offset"], "verdict": "accept"}
    end = {**member, "acknowledgements": [verdict]}
    assert ask(broker, "POST", "/groups/workers/acknowledge", end)[1] == {"results": [{"error": None}]}
    [again] = ask(broker, "POST", "/groups/workers/acknowledge", end)[1]["results"]
    assert again["error"]["code"] == "NOT_ACQUIRED"
    joined = ask(broker, "POST", "/groups/readers/heartbeat", {"topics": ["T"], "max_wait_ms": 10_000})[1]
    assert joined["member_id"]
    offsets = {"offsets": [{"topic": "T", "partition": 0, "offset": 1}]}
    assert ask(broker, "POST", "/groups/outside/offsets", offsets)[0] == 200
    assert ask(broker, "GET", "/groups/outside/offsets")[1]["offsets"][0]["offset"] == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "code"),
    [
        ("POST", "/topics/NO/records", {"records": [{"json": 1}]}, {}, 404, "UNKNOWN_TOPIC"),
        ("POST", "/topics/__offsets/records", {"records": [{"json": 1}]}, {}, 403, "FORBIDDEN"),
        ("POST", "/topics/T/records", {"records": []}, {}, 400, None),
        (
            "POST",
            "/topics/T/records",
            {"records": [{"json": 1, "value_text": "1"}]},
            {},
            400,
            "INVALID_REQUEST",
        ),
        ("POST", "/topics/T/records", {"records": [{"json": 1}], "id": 5}, {}, 400, "INVALID_REQUEST"),
        ("POST", "/topics/T/records", [1], {}, 400, None),
        ("POST", "/topics/T/records", {}, {"Content-Type": "text/plain"}, 415, None),
        ("GET", "/topics", None, {"Host": "evil.example"}, 421, None),
        ("GET", "/topics", None, {"Authorization": "Bearer x"}, 400, "INVALID_REQUEST"),
        ("GET", "/topics/T/partitions/0/records", None, {}, 400, None),
        ("GET", "/topics/T/partitions/0/records?offset=999", None, {}, 416, "OFFSET_OUT_OF_RANGE"),
        ("GET", "/topics/T/partitions/7/records?offset=0", None, {}, 404, "UNKNOWN_PARTITION"),
        ("GET", "/topics/T/partitions/x/records?offset=0", None, {}, 404, None),
        ("DELETE", "/topics", None, {}, 405, None),
    ],
)
def test_refusals_are_problems(
    broker: Broker,
    method: str,
    path: str,
    body: Any,
    headers: dict[str, str],
    status: int,
    code: str | None,
) -> None:
    found_status, found = ask(broker, method, path, body, headers)
    assert (found_status, found.get("code")) == (status, code), found
    assert found["status"] == status
    assert found["detail"]


def test_the_gateway_decides_what_a_credential_may_do(tmp_path: Path) -> None:
    data = tmp_path / "data"
    admin_key = tmp_path / "admin.key"
    initialise(data, admin_key)
    with Broker(data, http_endpoint="127.0.0.1:*", http_bridge=True) as broker:
        broker.create_topic("T", 1)
        broker.create_topic("U", 1)
        security = SecurityAdmin.over(broker.client)
        security.set_password("ann", "secret-of-ann")
        security.grant("ann", Rule(rights=("produce", "consume"), resource="topic:T"))
        basic = "Basic " + base64.b64encode(b"ann:secret-of-ann").decode()
        one = {"records": [{"json": 1}]}
        assert ask(broker, "GET", "/topics")[0] == 401
        assert ask(broker, "GET", "/topics", headers={"Authorization": "Bearer nonsense"})[0] == 401
        wrong = "Basic " + base64.b64encode(b"ann:guessed").decode()
        assert ask(broker, "POST", "/topics/T/records", one, {"Authorization": wrong})[0] == 401
        assert ask(broker, "POST", "/topics/T/records", one, {"Authorization": basic})[0] == 200
        assert ask(broker, "POST", "/topics/U/records", one, {"Authorization": basic})[0] == 403
        broker.kill("gateway/0")  # it forgets all sessions
        statuses = {
            ask(broker, "POST", "/topics/T/records", one, {"Authorization": basic})[0] for _ in range(5)
        }
        assert statuses <= {200, 503}


def test_more_requests_than_the_gateway_has_at_once_are_all_answered(broker: Broker) -> None:
    body = json.dumps({"records": [{"json": 1}]})
    connections = [connect(broker) for _ in range(2 * MAX_BEGUN)]
    before = broker.client.list_offsets("T", 0).offset
    for each in connections:
        each.request("POST", "/topics/T/records", body, {"Content-Type": "application/json"})
    for each in connections[::2]:
        each.close()
    assert [each.getresponse().status for each in connections[1::2]] == [200] * MAX_BEGUN
    for each in connections:
        each.close()
    assert MAX_BEGUN <= broker.client.list_offsets("T", 0).offset - before <= 2 * MAX_BEGUN
