"""Connections between the nodes of a cluster: a lost one is noticed, and they carry the requests of nodes alone."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from loop_actor import SECRET, TIMEOUT_MS, LoopActor, LoopRun
from planaria.transport import sockets
from planaria.transport.actor import PeerDoor
from planaria.transport.addresses import link_address
from planaria.transport.calls.connections import Connections
from planaria.transport.protocol.control import PeerUp
from planaria.transport.request_context import ContextFrames
from relay import Relay

FAULTS: dict[str, Callable[[Relay], None]] = {"cut": Relay.cut, "silent": Relay.go_silent}


@pytest.fixture
def run(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopRun]:
    monkeypatch.setattr(LoopActor, "follows_connections", True)
    monkeypatch.setattr(LoopActor, "peer_door", lambda _: PeerDoor("tcp://127.0.0.1:*", None))
    monkeypatch.setattr(sockets, "NODE_PING_MS", 50)
    monkeypatch.setattr(sockets, "NODE_SILENCE_MS", 1_000)
    run = LoopRun(str(run_dir))
    run.start()
    yield run
    run.close()


def answered(client: "zmq.Socket[bytes]") -> dict[str, Any]:
    assert client.poll(TIMEOUT_MS)
    found: dict[str, Any] = json.loads(client.recv_multipart()[-1])
    return found


def sent(client: "zmq.Socket[bytes]", peer: "zmq.Socket[bytes]") -> list[bytes]:
    """Let the actor send a request to the peer, and return its route.

    On a busy machine a connection may be silent for so long that the call fails before it arrives.
    """
    ask = {"op": "ask", "address": "link/b", "timeout_ms": 10 * TIMEOUT_MS}
    poller = zmq.Poller()
    poller.register(client, zmq.POLLIN)
    poller.register(peer, zmq.POLLIN)
    while True:
        client.send(json.dumps(ask).encode())
        ready = dict(poller.poll(TIMEOUT_MS))
        if peer in ready:
            return peer.recv_multipart()[:3]
        assert answered(client)["error"]["code"] == "ACTOR_UNAVAILABLE"


@pytest.mark.parametrize("fault", ["cut", pytest.param("silent", marks=pytest.mark.chaos)])
def test_a_lost_connection_to_a_living_node_fails_its_calls_soon(run: LoopRun, fault: str) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as peer:
        peer.linger = 0
        port = peer.bind_to_random_port("tcp://127.0.0.1")
        with Relay(port) as relay:
            run.order(PeerUp(address=link_address("b"), incarnation=1, endpoint=relay.endpoint))
            run.wait_heard(PeerUp, 1)
            client = run.client()
            for is_lost in (True, False):
                route = sent(client, peer)
                if is_lost:
                    FAULTS[fault](relay)
                    assert answered(client)["error"]["code"] == "ACTOR_UNAVAILABLE"
                else:  # the next call makes a new connection
                    peer.send_multipart([*route, b'{"id":null,"text":"answer"}'])
                    assert answered(client)["text"] == "answer"


@pytest.mark.parametrize("op", ["echo", "secretly"])
@pytest.mark.parametrize("context", [[], [ContextFrames(b"of another node").own]])
def test_other_nodes_may_send_their_own_requests_alone(run: LoopRun, op: str, context: list[bytes]) -> None:
    with zmq.Context() as zmq_context, zmq_context.socket(zmq.DEALER) as node:
        node.linger = 0
        node.connect(run.loop.peer_endpoint)
        node.send_multipart([*context, json.dumps({"op": op}).encode()])
        assert answered(node)["error"]["code"] == "FORBIDDEN"
    local = run.client()
    local.send_multipart([ContextFrames(SECRET).own, json.dumps({"op": op}).encode()])
    assert "error" not in answered(local)


def test_a_host_that_the_monitor_names_by_its_address_is_found_by_the_port() -> None:
    connections = Connections()
    named, other = connections.new("tcp://host-b:5571"), connections.new("tcp://10.0.0.3:5571")
    connections.new("ipc:///run/host-b:5571")
    assert connections.reported_as("tcp://10.0.0.3:5571") == [other]
    assert connections.reported_as("tcp://10.0.0.2:5571") == [named]
    assert connections.reported_as("tcp://10.0.0.2:5572") == []
