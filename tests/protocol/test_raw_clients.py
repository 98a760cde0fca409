"""A whole session without the client library: only a ZeroMQ socket and a parser for JSON or MessagePack."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from header_vectors import MEMBER, REPLIES, SESSION_REQUESTS
from patience import TIMEOUT_S
from planaria.supervisor.launch import SupervisorHandle
from planaria.transport import batch
from raw_client import TIMEOUT_MS, RawClient

pytestmark = pytest.mark.processes

MEMBER_WAIT_MS = 2_000


KINDS = {
    "req": (zmq.REQ, []),
    "dealer": (zmq.DEALER, []),
    "dealer with a delimiter": (zmq.DEALER, [b""]),
    "dealer with a call's name": (zmq.DEALER, [b"call-1", b""]),
}


@pytest.fixture
def empty_broker(shared_broker: SupervisorHandle) -> Iterator[SupervisorHandle]:
    """The module's broker; its topics and groups are deleted after each test."""
    yield shared_broker
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(shared_broker.started.endpoint)
        client = RawClient(socket, True, [])
        for group in client.get("list_groups")["groups"]:
            client.get("delete_group", group=group)
        for topic in client.get("list_topics")["topics"]:
            client.get("delete_topic", topic=topic["topic"])


@pytest.fixture(params=[(kind, is_json) for kind in KINDS for is_json in (True, False)], ids=str)
def client(request: pytest.FixtureRequest, empty_broker: SupervisorHandle) -> Iterator[RawClient]:
    name, is_json = request.param
    kind, envelope = KINDS[name]
    with ExitStack() as exits:
        context = exits.enter_context(zmq.Context())
        socket = exits.enter_context(context.socket(kind))
        socket.linger = 0
        socket.connect(empty_broker.started.endpoint)
        yield RawClient(socket, is_json, envelope)


def test_a_whole_session(client: RawClient) -> None:
    greeting = client.get("hello", version=1, client_id="raw")
    assert greeting["version"] == 1
    assert greeting["server"].startswith("planaria/")
    assert client.get("create_topic", topic="ORDERS", partitions=2)["topic"] == "ORDERS"
    found = client.get("metadata", topics=["ORDERS", "NOPE"])
    assert [each["partition"] for each in found["topics"][0]["partitions"]] == [0, 1]
    assert found["unknown_topics"] == ["NOPE"]
    publish_and_fetch(client)
    be_a_member(client)


def publish_and_fetch(client: RawClient) -> None:
    records = [
        {"key_text": f"order-{n}", "value_text": f"värde {n}", "headers": {"n": str(n)}} for n in range(4)
    ]
    tps = client.get("publish", topic="ORDERS", records=records)["records"]
    assert [tp.get("error") for tp in tps] == [None] * 4
    produced = client.get("produce", produced_batch(), topic="ORDERS", partition=0)["batches"][0]
    assert produced["error"] is None
    for number, tp in enumerate(tps):
        where = {"topic": "ORDERS", "partition": tp["partition"], "offset": tp["offset"]}
        record = client.get("fetch", format="records", max_records=1, **where)["records"][0]
        assert (record["key_text"], record["value_text"]) == (f"order-{number}", f"värde {number}")
        assert record["headers"] == {"n": str(number)}
    where = {"topic": "ORDERS", "partition": 0, "offset": produced["base_offset"]}
    reply, payload = client.ask("fetch", format="batches", **where)
    assert reply["records"] is None
    header = batch.verify(payload[-1])
    assert batch.is_head_intact(payload[-1])
    assert header.base_offset == produced["base_offset"]
    assert batch.decode_records(payload[-1], header) == [
        (b"k", b"v", 0, {"h": "\u2713"}),
        (None, None, 5, None),
    ]
    assert (
        client.get("list_offsets", topic="ORDERS", partition=0, at="latest")["offset"] == header.next_offset
    )
    # By default the records come inline to JSON and as batches to MessagePack.
    reply, payload = client.ask("fetch", **where)
    assert (len(reply["records"] or []), len(payload)) == ((2, 0) if client.is_json else (0, 1))


def produced_batch() -> bytes:
    records = [(b"k", b"v", 0, {"h": "\u2713"}), (None, None, 5, None)]
    return batch.build(records, first_timestamp_ms=1_000, max_timestamp_ms=1_005)


def be_a_member(client: RawClient) -> None:
    member = client.get("group_heartbeat", group="billing", topics=["ORDERS"], owned={})
    while member["assignment"] != {"ORDERS": [0, 1]}:
        member = client.get(
            "group_heartbeat",
            group="billing",
            member_id=member["member_id"],
            generation=member["generation"],
            owned={},
            max_wait_ms=MEMBER_WAIT_MS,
        )
    who = {"group": "billing", "member_id": member["member_id"]}
    generation = member["generation"]
    client.get("group_heartbeat", generation=generation, owned={"ORDERS": [0, 1]}, **who)
    offsets = [{"topic": "ORDERS", "partition": 0, "offset": 2, "metadata": "two"}]
    client.get("commit_offsets", generation=generation, offsets=offsets, **who)
    assert client.get("fetch_offsets", group="billing")["offsets"] == offsets
    client.get("leave_group", **who)
    assert client.get("describe_group", group="billing")["members"] == []


def test_refusals_say_what_is_wrong(client: RawClient) -> None:
    assert client.refusal("nonsense")["code"] == "UNKNOWN_OP"
    assert client.refusal("hello", version=2)["code"] == "UNSUPPORTED_VERSION"
    ill_typed = client.refusal("fetch", topic="T", partition="zero", offset=0)
    assert (ill_typed["code"], ill_typed["retriable"]) == ("INVALID_REQUEST", False)
    assert "$.partition" in ill_typed["message"]
    assert "offset" in client.refusal("fetch", topic="T", partition=0)["message"]
    assert "offest" in client.refusal("fetch", topic="T", partition=0, offset=0, offest=1)["message"]
    assert client.refusal("fetch", topic="T", partition=0, offset=0)["code"] == "UNKNOWN_TOPIC"


@pytest.mark.parametrize("is_json", [True, False])
def test_every_request_id_of_a_correlating_socket_is_echoed(
    empty_broker: SupervisorHandle, is_json: bool
) -> None:
    """Some of them begin as a map does."""
    header = {"op": "list_topics", "id": 1}
    encoded = json.dumps(header).encode() if is_json else msgspec.msgpack.encode(header)
    names = {bytes([first, 2, 3, 4]) for first in range(256)}
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(empty_broker.started.endpoint)
        for name in names:
            socket.send_multipart([name, b"", encoded])
        for _ in range(len(names)):
            assert socket.poll(TIMEOUT_MS)
            name, delimiter, answer = socket.recv_multipart()
            names.remove(name)
            assert delimiter == b""
            assert "topics" in (json.loads(answer) if is_json else msgspec.msgpack.decode(answer))
    assert names == set()


def test_a_relaxed_socket_goes_on_after_a_deadline(empty_broker: SupervisorHandle) -> None:
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.setsockopt(zmq.REQ_RELAXED, 1)
        socket.setsockopt(zmq.REQ_CORRELATE, 1)
        socket.connect(empty_broker.started.endpoint)
        client = RawClient(socket, True, [])
        client.get("create_topic", topic="ORDERS")
        for number in range(20):
            late = {"op": "fetch", "id": "late", "topic": "ORDERS", "partition": 0, "offset": 0}
            socket.send(json.dumps({**late, "max_wait_ms": number}).encode())
            assert client.get("list_offsets", topic="ORDERS", partition=0, at="latest")["offset"] == 0


def test_the_limits_that_hello_tells(client: RawClient) -> None:
    limits = client.get("hello")
    client.get("create_topic", topic="T")
    client.get("publish", topic="T", records=[{"value_text": "v"}])
    where = {"topic": "T", "partition": 0, "offset": 0, "format": "batches"}
    _, payload = client.ask("fetch", max_bytes=10 * limits["max_fetch_bytes"], **where)
    assert len(payload) == 1
    assert "error" not in client.get("fetch", max_wait_ms=limits["max_wait_ms"], **where)
    too_long = client.refusal("fetch", max_wait_ms=limits["max_wait_ms"] + 1, **where)
    assert too_long["code"] == "INVALID_REQUEST"


def test_a_number_outside_its_limits_is_no_request_and_one_that_cannot_be_had_no_configuration(
    client: RawClient,
) -> None:
    for partitions in (0, 20_000):
        assert client.refusal("create_topic", topic="T", partitions=partitions)["code"] == "INVALID_REQUEST"
    client.get("create_topic", topic="T", partitions=2)
    assert client.refusal("alter_topic", topic="T", partitions=1)["code"] == "INVALID_CONFIG"
    for quota, code in ((0, "INVALID_CONFIG"), (-2, "INVALID_REQUEST")):
        assert client.refusal("set_quota", client_id="c", quota={"produce_bytes": quota})["code"] == code
    assert client.refusal("create_topic", topic="..")["code"] == "INVALID_TOPIC"
    assert client.refusal("create_topic", topic="__x")["code"] == "INVALID_TOPIC"
    assert client.refusal("publish", topic="__offsets", records=[{}])["code"] == "FORBIDDEN"
    assert client.get("revive", address="partition/T/0") == {"state": "ready"}
    assert client.refusal("revive", address="partition/T/7")["code"] == "UNKNOWN_ACTOR"


def as_a_poor_library(value: Any) -> Any:
    """Convert as a poor library would: all numbers are floats, all strings bytes, an empty map is an empty array."""
    match value:
        case bool() | None:
            return value
        case int():
            return float(value)
        case str():
            return value.encode()
        case dict():
            return {name.encode(): as_a_poor_library(item) for name, item in value.items()} or []
        case list():
            return [as_a_poor_library(item) for item in value]
    return value


def test_a_session_in_the_words_of_a_poor_library(empty_broker: SupervisorHandle) -> None:
    """Through the gateway to every kind of actor: forwarded requests must be understood there as well."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(empty_broker.started.endpoint)
        member: dict[str, Any] = {}
        for name, header in SESSION_REQUESTS.items():
            actual = {**header, **{field: value for field, value in member.items() if field in header}}
            if actual.get("max_wait_ms"):
                actual["max_wait_ms"] = 100
            socket.send(msgspec.msgpack.encode(as_a_poor_library(actual)))
            assert socket.poll(TIMEOUT_MS), f"no reply to {name}"
            reply = msgspec.msgpack.decode(socket.recv_multipart()[0])
            assert "error" not in reply, reply
            assert reply["id"] == header["id"]
            if "member_id" in reply:
                member = {field: reply[field] for field in ("member_id", "generation")}


def test_documented_session_is_what_happens(empty_broker: SupervisorHandle) -> None:
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(empty_broker.started.endpoint)
        member_id, generation = MEMBER, 1
        for name, request in SESSION_REQUESTS.items():
            own = {"member_id": member_id, "generation": generation}
            actual = {field: own.get(field, value) for field, value in request.items()}
            if name == "group_heartbeat, waiting":
                actual["max_wait_ms"] = 100  # in vain, when the assignment has come with the join
            socket.send(json.dumps(actual).encode())
            assert socket.poll(TIMEOUT_MS), f"no reply to {name}"
            reply = json.loads(socket.recv())
            assert shape(reply) == shape(msgspec.to_builtins(REPLIES[name])), reply
            member_id = reply.get("member_id", member_id)
            generation = reply.get("generation", generation)
            if name == "publish":
                assert reply["records"] == [{"partition": 1, "offset": 0, "error": None, "duplicate": False}]
            if name == "fetch":
                assert reply["records"][0]["value_text"] == '{"amount": 100}'


def shape(value: Any) -> Any:
    """Return the fields at every level; for lists, those of the first element."""
    if isinstance(value, dict) and not all(
        isinstance(item, list) and item[0] == 0 for item in value.values()
    ):
        return {name: shape(item) for name, item in value.items()}
    return shape(value[0]) if isinstance(value, list) and value else None


EXAMPLE = Path(__file__).parents[2] / "examples" / "raw_client.py"


def test_the_example_needs_nothing_but_zmq_and_json(empty_broker: SupervisorHandle) -> None:
    tree = ast.parse(EXAMPLE.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"zmq", "json", "sys"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
    for _ in range(2):  # its leftovers do not hinder the next run
        command = [sys.executable, str(EXAMPLE), empty_broker.started.endpoint]
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stderr == ""
        ops = [json.loads(line[3:])["op"] for line in result.stdout.splitlines() if line.startswith("->")]
        assert set(ops) == {
            *("hello", "metadata", "create_topic", "publish", "fetch"),
            *("group_heartbeat", "commit_offsets", "fetch_offsets", "leave_group"),
        }
        assert '"value_text":"{\\"amount\\": 100}"' in result.stdout


def test_the_example_says_that_nobody_is_there(endpoint: str) -> None:
    text = EXAMPLE.read_text()
    program = text.replace("TIMEOUT_MS = 10_000", "TIMEOUT_MS = 100")
    assert program != text
    command = [sys.executable, "-c", program, endpoint]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert result.returncode == 1
    assert result.stderr == f"no broker at {endpoint}: is `planaria serve` running?\n"
