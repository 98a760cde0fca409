"""A descriptor belongs to one connection at a time, whatever messages of ended ones are read late."""

import struct
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from patience import TIMEOUT_MS
from planaria.transport.server_connections import ServerConnections

DESCRIPTOR = 26
HOST = "10.0.0.1"
ATTEMPTS = 20


class Frame:
    """The first frame of a message, as ZeroMQ gives it."""

    def __init__(self, connection: str, descriptor: int) -> None:
        self.bytes = connection.encode()
        self._descriptor = descriptor

    def get(self, key: Any) -> Any:
        return HOST if key == "Peer-Address" else self._descriptor


class Monitor:
    """The monitor of a socket whose connections come and go by hand."""

    def __init__(self) -> None:
        self.events: list[int] = []

    def recv_multipart(self, flags: int) -> list[bytes]:
        if not self.events:
            raise zmq.Again
        return [struct.pack("=HI", zmq.EVENT_DISCONNECTED, self.events.pop(0)), b""]


class Scene:
    def __init__(self, connections: ServerConnections, known: list[str]) -> None:
        self._connections = connections
        connections.monitor = self._monitor = Monitor()  # type: ignore[assignment]
        self.known = known

    def reads(self, connection: str, descriptor: int = DESCRIPTOR) -> None:
        self._connections.note(Frame(connection, descriptor))  # type: ignore[arg-type]

    def ended(self, descriptor: int = DESCRIPTOR) -> None:
        self._monitor.events.append(descriptor)

    def gone(self) -> list[str]:
        return [each.decode() for each in self._connections.gone()]

    @property
    def entered(self) -> dict[int, str]:
        return {number: each.decode() for number, each in self._connections._by_descriptor.items()}


@pytest.fixture
def scene() -> Iterator[Scene]:
    known: list[str] = []
    with zmq.Context() as context, context.socket(zmq.ROUTER) as server:
        port = server.bind_to_random_port("tcp://127.0.0.1")
        connections = ServerConnections(
            context,
            server,
            f"tcp://127.0.0.1:{port}",
            lambda connection, _: known.append(connection.decode()),
        )
        monitor = connections.monitor
        yield Scene(connections, known)
        connections.monitor = monitor
        connections.close()


def test_a_connection_takes_over_the_descriptor_of_one_that_has_ended(scene: Scene) -> None:
    scene.reads("x")
    scene.ended()
    scene.reads("y")
    assert (scene.entered, scene.gone(), scene.known) == ({DESCRIPTOR: "y"}, ["x"], ["x", "y"])


def test_a_late_message_does_not_take_the_descriptor_back(scene: Scene) -> None:
    scene.reads("x")
    scene.ended()
    scene.reads("y")
    scene.reads("x")
    assert scene.entered == {DESCRIPTOR: "y"}


def test_a_late_message_keeps_no_descriptor_from_the_connection_that_has_it(scene: Scene) -> None:
    scene.reads("x")
    scene.ended()
    assert scene.gone() == ["x"]
    scene.reads("x")
    scene.reads("y")
    assert (scene.entered, scene.gone()) == ({DESCRIPTOR: "y"}, ["x"])
    scene.reads("x")
    assert scene.entered == {DESCRIPTOR: "y"}


def test_a_first_message_that_is_late_keeps_no_descriptor_either(scene: Scene) -> None:
    scene.ended()
    assert scene.gone() == []
    scene.reads("x")
    scene.reads("y")
    assert (scene.entered, scene.gone()) == ({DESCRIPTOR: "y"}, ["x"])


def test_a_connection_under_an_earlier_name_is_entered_and_ends(scene: Scene) -> None:
    scene.reads("x")
    scene.ended()
    assert scene.gone() == ["x"]
    scene.reads("x")
    assert scene.entered == {DESCRIPTOR: "x"}
    scene.ended()
    assert (scene.gone(), scene.entered) == (["x"], {})


def test_a_stranger_does_not_push_a_connection_out(scene: Scene) -> None:
    scene.reads("x")
    scene.reads("y")
    assert (scene.entered, scene.gone()) == ({DESCRIPTOR: "x"}, [])


def test_a_real_socket_of_a_process_that_was_frozen_enters_the_connection_that_is_open() -> None:
    """One connection ends with a message unread. The next one gets its descriptor, and sends after that was read."""
    known: list[bytes] = []
    with zmq.Context() as context, context.socket(zmq.ROUTER) as server:
        port = server.bind_to_random_port("tcp://127.0.0.1")
        endpoint = f"tcp://127.0.0.1:{port}"
        connections = ServerConnections(context, server, endpoint, lambda name, _: known.append(name))

        def read() -> tuple[bytes, int]:
            assert server.poll(TIMEOUT_MS)
            frame = server.recv_multipart(copy=False)[0]
            connections.note(frame)
            return frame.bytes, int(frame.get(zmq.SRCFD))

        def connected(name: str) -> "zmq.Socket[bytes]":
            client = context.socket(zmq.DEALER)
            client.setsockopt(zmq.LINGER, 0)
            client.setsockopt_string(zmq.IDENTITY, name)
            client.connect(endpoint)
            return client

        try:
            reused = False
            for turn in range(ATTEMPTS):
                with connected(f"ended-{turn}") as ended:
                    ended.send(b"first")
                    _, before = read()
                    ended.send(b"late")
                    assert server.poll(TIMEOUT_MS)
                gone: list[bytes] = []
                while not gone:
                    assert connections.monitor.poll(TIMEOUT_MS)
                    gone = connections.gone()
                with connected(f"open-{turn}") as opened:
                    read()  # the late message
                    opened.send(b"first")
                    name, after = read()
                    reused = reused or after == before
                    assert name in known
            assert reused, "no descriptor was given again"
        finally:
            connections.close()
