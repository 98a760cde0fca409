"""Work queues through real processes: the two ops as any language would send them."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from live_trees import actor, read_topic, until, until_reborn
from patience import TIMEOUT_MS, TIMEOUT_S
from planaria import Broker

pytestmark = pytest.mark.processes


class RawWorker:
    """A client made only of a ZeroMQ socket and a JSON parser."""

    def __init__(self, socket: "zmq.Socket[bytes]", name: str, group: str = "resize") -> None:
        self._socket = socket
        self._name, self._group = name, group

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        return self.ask_broker({"op": op, "group": self._group, **fields})

    def ask_broker(self, header: dict[str, Any]) -> dict[str, Any]:
        self._socket.send(json.dumps(header).encode())
        assert self._socket.poll(TIMEOUT_MS), f"no reply to {header}"
        reply: dict[str, Any] = json.loads(self._socket.recv())
        return reply

    def acquire(self, **fields: Any) -> list[dict[str, Any]]:
        reply = self.ask("acquire", member_id=self._name, topics=["T"], **fields)
        assert "error" not in reply, reply
        records: list[dict[str, Any]] = reply["records"]
        return records

    def acknowledge(self, record: dict[str, Any], verdict: str, **fields: Any) -> str | None:
        said = {"topic": record["topic"], "partition": record["partition"], "first_offset": record["offset"]}
        reply = self.ask(
            "acknowledge", member_id=self._name, acknowledgements=[{**said, "verdict": verdict, **fields}]
        )
        (result,) = reply["results"]
        return result["error"]["code"] if result["error"] else None


@pytest.fixture
def sockets(broker: Broker) -> "Iterator[list[zmq.Socket[bytes]]]":
    with zmq.Context() as context:
        found = [context.socket(zmq.REQ) for _ in range(2)]
        for socket in found:
            socket.linger = 0
            socket.connect(broker.endpoint)
        yield found
        for socket in found:
            socket.close()


def test_two_workers_share_one_partition(broker: Broker, sockets: "list[zmq.Socket[bytes]]") -> None:
    broker.create_topic("T", 1)
    broker.create_topic("DLQ", 1)
    first, second = (RawWorker(socket, f"worker-{number}") for number, socket in enumerate(sockets))
    # A coordinator that has just started does not know the topics yet, and says so.
    settings = {"dead_letter": "DLQ", "max_deliveries": 2}
    until(lambda: "error" not in first.ask("configure_share_group", **settings), "the group is configured")
    for number in range(4):
        broker.publish("T", None, f"job {number}")
    ours = first.acquire(max_records=2)
    theirs = second.acquire(max_records=2, max_wait_ms=5_000)
    assert [record["value_text"] for record in ours + theirs] == [f'"job {number}"' for number in range(4)]
    assert first.acknowledge(theirs[0], "accept") == "NOT_ACQUIRED"
    assert first.acknowledge(ours[0], "accept") is None
    assert first.acknowledge(ours[1], "fail") is None
    assert second.acknowledge(theirs[0], "reject", reason="cannot be done") is None
    assert second.acknowledge(theirs[1], "accept") is None
    (again,) = second.acquire(max_wait_ms=5_000)
    assert (again["offset"], again["delivery_count"]) == (1, 2)
    assert second.acknowledge(again, "fail", reason="once more") is None
    letters = until(lambda: len(found := read_topic(broker.client, "DLQ")) == 2 and found, "two letters")
    assert {(each.headers or {})["dead-letter-reason"] for each in letters} == {"cannot be done", "once more"}
    assert first.acquire(max_wait_ms=50) == []


def test_a_new_coordinator_knows_what_was_accepted(
    broker: Broker, sockets: "list[zmq.Socket[bytes]]"
) -> None:
    broker.create_topic("T", 1)
    worker = RawWorker(sockets[0], "worker")
    for number in range(3):
        broker.publish("T", None, number)
    records = worker.acquire()
    assert worker.acknowledge(records[1], "accept") is None
    before = actor(broker.client, "coordinator/resize")
    broker.client.kill("coordinator/resize")
    until_reborn(broker.client, before)
    again = worker.acquire(max_wait_ms=5_000)
    assert [(record["offset"], record["delivery_count"]) for record in again] == [(0, 2), (2, 2)]
    assert all(worker.acknowledge(record, "accept") is None for record in again)


def test_a_group_is_of_one_type(broker: Broker, sockets: "list[zmq.Socket[bytes]]") -> None:
    broker.create_topic("T", 1)
    RawWorker(sockets[0], "worker").acquire()
    refused = RawWorker(sockets[1], "x").ask("group_heartbeat", topics=["T"], owned={})
    assert refused["error"]["code"] == "INVALID_GROUP"
    consumer = RawWorker(sockets[1], "x", "readers")
    consumer.ask("group_heartbeat", topics=["T"], owned={})
    clash = consumer.ask("acquire", member_id="x", topics=["T"])
    assert "consumer group" in clash["error"]["message"]


def coordinator_endpoint(worker: RawWorker) -> str:
    """Return the coordinator's own endpoint, as the gateway names it."""

    def endpoint() -> str | None:
        reply = worker.ask_broker({"op": "metadata", "topics": [], "groups": ["resize"]})
        found: str | None = reply["groups"][0]["endpoint"]
        return found

    return until(endpoint, "the coordinator is up")


def test_a_member_at_the_coordinators_own_endpoint_ends_with_its_connection(
    broker: Broker, sockets: "list[zmq.Socket[bytes]]"
) -> None:
    broker.create_topic("T", 1)
    broker.publish("T", None, "job")
    other = RawWorker(sockets[0], "other")
    (record,) = other.acquire(max_wait_ms=5_000)
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(coordinator_endpoint(other))
        near = RawWorker(socket, "near")
        assert other.acknowledge(record, "release") is None
        (record,) = near.acquire(max_wait_ms=5_000)
        assert other.acquire() == []
    (again,) = other.acquire(max_wait_ms=5_000)
    assert (again["offset"], again["delivery_count"]) == (record["offset"], record["delivery_count"])


def test_on_the_brokers_machine_groups_work_while_the_gateway_is_frozen(broker: Broker) -> None:
    broker.create_topic("T", 1)
    for number in range(20):
        broker.publish("T", None, number)
    with (
        broker.client.consumer("readers", "T", auto_offset_reset="earliest", auto_commit=False) as reader,
        broker.client.share_consumer("workers", "T") as worker,
    ):
        known = broker.client._network.topics.coordinator

        def work() -> bool:
            reader.commit(reader.poll(TIMEOUT_S, max_messages=1)[0])
            worker.acknowledge(worker.poll(TIMEOUT_S, max_messages=1))
            assert worker.flush() == []
            return known("readers") is not None and known("workers") is not None

        until(work, "the coordinators' endpoints are known")
        work()
        gateway = actor(broker.client, "gateway/0").pid
        assert gateway is not None
        os.kill(gateway, signal.SIGSTOP)
        try:
            work()
        finally:
            os.kill(gateway, signal.SIGCONT)
