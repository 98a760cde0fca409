"""Requests that only actors may make of an actor are refused to clients, at its own socket as at the gateway."""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

import planaria.actors
from live_trees import until
from patience import TIMEOUT_MS
from planaria import Broker
from planaria.actors.gateway.machine import REQUESTS as PUBLIC
from planaria.transport.actor import Actor
from planaria.transport.addresses import TopicPartition
from planaria.transport.protocol.message import InternalRequest, Request

BETWEEN_NODES = {"forward", "ping"}
"""Requests of the links, which the actors of another broker send."""


def op_of(kind: type[Request]) -> str:
    return str(kind.__struct_config__.tag)


def actors(kind: type[Actor]) -> Iterator[type[Actor]]:
    for each in kind.__subclasses__():
        if each.__module__.startswith("planaria."):
            yield each
            yield from actors(each)


def test_a_request_that_the_gateway_does_not_route_is_internal() -> None:
    for module in pkgutil.iter_modules(planaria.actors.__path__):
        package = importlib.import_module(f"planaria.actors.{module.name}")
        if any(each.name == "process" for each in pkgutil.iter_modules(package.__path__)):
            importlib.import_module(f"{package.__name__}.process")
    served = {request for actor in actors(Actor) for request in actor.requests}
    assert len(served) > 30
    open_to_clients = {op_of(request) for request in served if not issubclass(request, InternalRequest)}
    assert open_to_clients == {op_of(request) for request in PUBLIC} | (BETWEEN_NODES & {*map(op_of, served)})


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    settings = {"transaction_coordinators": 1, "delayed_partitions": 1, "offsets_partitions": 1}
    with Broker(tmp_path_factory.mktemp("internal"), **settings) as broker:  # type: ignore[arg-type]
        broker.create_topic("T", 1)
        with broker.client.consumer("g", partitions=[TopicPartition("T", 0)]) as consumer:
            consumer.commit({TopicPartition("T", 0): 0})
        broker.client.configure_share_group("s")
        with broker.client.producer(transactional_id="t") as producer:
            producer.claim()
        broker.publish("T", None, b"later", delay=3_600)
        yield broker


def answer(endpoint: str, *frames: bytes) -> Any:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(endpoint)
        socket.send_multipart(frames)
        assert socket.poll(TIMEOUT_MS), "no answer"
        return json.loads(socket.recv_multipart()[-1])


REQUESTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("controller", {"op": "ensure_group", "group": "g", "create": False}),
    ("controller", {"op": "ensure_internal_actors", "topic": "__delayed"}),
    ("controller", {"op": "watch_catalog"}),
    ("partition/T/0", {"op": "configure_partition", "config": {}}),
    ("partition/T/0", {"op": "write_markers", "topic": "T", "partition": 0, "markers": []}),
    ("partition/T/0", {"op": "quotas_in_force"}),
    ("partition/T/0", {"op": "describe_partition"}),
    ("partition/T/0", {"op": "highest_era"}),
    ("partition/__offsets/0", {"op": "produce", "topic": "__offsets", "partition": 0}),
    (
        "partition/__offsets/0",
        {"op": "delete_records", "topic": "__offsets", "partition": 0, "before_offset": 1},
    ),
    ("coordinator/s", {"op": "member_gone", "group": "s", "member_id": "m", "connection": ""}),
    ("scheduler/0", {"op": "schedule", "records": []}),
)


@pytest.mark.processes
@pytest.mark.parametrize(("address", "request_"), REQUESTS, ids=str)
def test_no_client_makes_a_request_of_actors(broker: Broker, address: str, request_: dict[str, Any]) -> None:
    def find() -> str:
        return {each.address: each.endpoint or "" for each in broker.status().actors}.get(address, "")

    until(find, f"{address} has a socket")
    reply = answer(find(), json.dumps({**request_, "id": 1}).encode())
    assert (reply["id"], reply["error"]["code"]) == (1, "FORBIDDEN"), reply
    if request_["op"] not in ("produce", "delete_records"):
        assert answer(broker.endpoint, json.dumps(request_).encode())["error"]["code"] == "UNKNOWN_OP"
