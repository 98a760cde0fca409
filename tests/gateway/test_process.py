"""The gateway and the controller as real processes, with the test as their supervisor: bytes in, bytes out."""

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

from patience import TIMEOUT_MS, TIMEOUT_S
from planaria.transport.actor import ActorContext
from planaria.transport.addresses import Address, as_text, from_text
from planaria.transport.codec import encode_header, split_envelope
from planaria.transport.endpoints import control_endpoint, peer_id
from planaria.transport.protocol.control import Heartbeat, PeerUp, Ready, Stop
from planaria.transport.protocol.operations import Status
from warm_start import WarmPopen

pytestmark = pytest.mark.processes

PROGRAM = """
import sys, msgspec, importlib
from planaria.transport.actor import ActorContext
from planaria.transport.addresses import from_text
module = importlib.import_module(sys.argv[1])
module.main(msgspec.json.decode(sys.argv[2], type=ActorContext, dec_hook=from_text))
"""
GARBAGE = [
    [b""],
    [b"", b"", b""],
    [b"\xff" * 100],
    [b"{"],
    [b"{}"],
    [b'{"op":"produce","id":1}'],
    [b'{"op":"fetch","id":1,"topic":7,"partition":0,"offset":0}'],
    [b"\x81\xa2op"],
    [b'{"op":' + b"[" * 50_000],
    [b'{"op":"hello"}'] + [b""] * 300,
]


class Actors:
    """Starts the two actors and introduces them."""

    def __init__(self, data_directory: Path, run_directory: Path) -> None:
        data_directory.mkdir()
        self._directories = (str(data_directory), str(run_directory))
        self._exits = ExitStack()
        self._zmq = self._exits.enter_context(zmq.Context())
        self._control = self.socket(zmq.ROUTER)
        self._control.bind(control_endpoint(str(run_directory)))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def socket(self, kind: int) -> "zmq.Socket[bytes]":
        socket = self._exits.enter_context(self._zmq.socket(kind))
        socket.linger = 0
        return socket

    def start(self, address: str, module: str, **arguments: Any) -> str:
        """Start an actor and return its endpoint, once it is ready."""
        data_directory, run_directory = self._directories
        context = ActorContext(
            address=Address.parse(address),
            incarnation=1,
            arguments=arguments,
            run_directory=run_directory,
            data_directory=data_directory,
            control_endpoint=control_endpoint(run_directory),
            instance_id="i1",
        )
        command = [
            sys.executable,
            "-c",
            PROGRAM,
            module,
            msgspec.json.encode(context, enc_hook=as_text).decode(),
        ]
        self._processes[address] = WarmPopen(command)
        decode = msgspec.msgpack.Decoder(Ready | Heartbeat | Status, dec_hook=from_text).decode
        while self._control.poll(TIMEOUT_MS):
            message = decode(split_envelope(self._control.recv_multipart()[1:])[1])
            if isinstance(message, Ready) and message.address == address:
                assert message.endpoint is not None
                return message.endpoint
        raise AssertionError(f"{address} did not become ready")

    def tell(self, address: str, order: Any) -> None:
        self._control.send_multipart([peer_id(address, 1), encode_header(order)])

    def stop(self, address: str) -> int:
        self.tell(address, Stop(deadline_ms=2**50))
        return self._processes[address].wait(TIMEOUT_S)

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(TIMEOUT_S)
        self._exits.close()


@pytest.fixture
def actors(data_dir: Path, run_dir: Path) -> Iterator[Actors]:
    started = Actors(data_dir, run_dir)
    yield started
    started.close()


def ask(client: "zmq.Socket[bytes]", **request: Any) -> Any:
    client.send(json.dumps(request).encode())
    assert client.poll(TIMEOUT_MS), "no reply"
    return json.loads(client.recv())


def test_a_socket_and_a_json_parser_are_enough(actors: Actors) -> None:
    endpoint = actors.start("gateway/0", "planaria.actors.gateway.process", endpoint="tcp://127.0.0.1:*")
    assert endpoint.startswith("tcp://127.0.0.1:")
    assert not endpoint.endswith("*")
    client = actors.socket(zmq.REQ)
    client.connect(endpoint)
    assert ask(client, op="hello", id="mine")["id"] == "mine"
    assert ask(client, op="list_topics", id=1)["error"]["code"] == "ACTOR_UNAVAILABLE"
    controller = actors.start("controller", "planaria.actors.controller.process")
    actors.tell("gateway/0", PeerUp(address=Address.parse("controller"), incarnation=1, endpoint=controller))
    reply = ask(client, op="list_topics", id=2)
    while "error" in reply:
        # The update arrives by another socket.
        reply = ask(client, op="list_topics", id=2)
    assert reply == {"id": 2, "topics": []}
    first, second = (ask(client, op="init_producer", id=3)["producer_id"] for _ in range(2))
    assert 0 <= first < second < 2**53
    refusal = ask(client, op="produce", id=2**70, topic="NOPE", partition=0)
    assert (refusal["id"], refusal["error"]["code"]) == (2**70, "UNKNOWN_TOPIC")
    assert actors.stop("gateway/0") == 0
    assert actors.stop("controller") == 0


def test_garbage_is_refused_and_nothing_falls(actors: Actors) -> None:
    endpoint = actors.start("gateway/0", "planaria.actors.gateway.process", endpoint="tcp://127.0.0.1:*")
    client = actors.socket(zmq.DEALER)
    client.connect(endpoint)
    for frames in GARBAGE:
        client.send_multipart(frames)
    for _ in GARBAGE:
        assert client.poll(TIMEOUT_MS), "no reply"
        assert b"error" in client.recv_multipart()[-1]
    client.send_multipart([b"", b'{"op":"hello","id":1}'])
    assert json.loads(client.recv_multipart()[-1])["server"].startswith("planaria/")
    assert actors.stop("gateway/0") == 0
