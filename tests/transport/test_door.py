"""The door of an `ipc` socket: the kernel, not the speed of a loop, bounds the connections that libzmq may accept."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from patience import TIMEOUT_S
from planaria.transport.door import Door
from planaria.transport.server_connections import ServerConnections
from planaria.transport.sockets import calls_socket, connect_peer, new_context, server_socket

LIMIT = 16
BACKLOG = 2


class Entrance:
    """A server socket with its door, and raw clients. Without `serve` it is a process whose loop does not run."""

    def __init__(self, directory: Path, exits: ExitStack) -> None:
        self.path = directory / "socket"
        self.context = new_context()
        self.server = server_socket(self.context, None)
        self.connections = ServerConnections(self.context, self.server, f"ipc://{self.path}", limit=LIMIT)
        self.clients: list[socket.socket] = []
        self._exits = exits
        self._poller = zmq.Poller()
        for source in (self.connections.monitor, self.connections.queue):
            self._poller.register(source, zmq.POLLIN)

    def connect(self, times: int = 1) -> int:
        """Try to connect; return how often it succeeded."""
        before = len(self.clients)
        for _ in range(times):
            client = self._exits.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            try:
                client.connect(str(self.path))
            except OSError:
                client.close()
            else:
                self.clients.append(client)
        return len(self.clients) - before

    def disconnect(self, count: int) -> None:
        for client in self.clients[:count]:
            client.close()
        del self.clients[:count]

    def serve(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not until():
            assert time.monotonic() < deadline
            ready = dict(self._poller.poll(10))
            if self.connections.monitor in ready:
                self.connections.gone()
            if self.connections.queue in ready:
                self.connections.admit()

    @property
    def door(self) -> Door:
        assert self.connections._door is not None
        return self.connections._door

    @property
    def accepted(self) -> int:
        return len(self.door._by_connection)


@pytest.fixture
def entrance(run_dir: Path) -> Iterator[Entrance]:
    with ExitStack() as exits:
        made = Entrance(run_dir, exits)
        yield made
        made.connections.close()
        made.server.close()
        made.context.term()
        assert list(run_dir.iterdir()) == []


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def test_nothing_is_accepted_while_the_loop_does_not_run(entrance: Entrance) -> None:
    assert entrance.connect(100) == BACKLOG + 1
    assert not entrance.connections.monitor.poll(100), "libzmq has no socket to accept from"
    for _ in range(3):
        entrance.connections.admit()
        assert entrance.connect(100) <= BACKLOG + 1
    entrance.serve(lambda: entrance.accepted == len(entrance.clients))


def test_a_batch_is_admitted_when_the_one_before_has_been_accepted(entrance: Entrance) -> None:
    entrance.connect(100)
    entrance.connections.admit()
    entrance.connect(100)
    entrance.connections.admit()
    assert len(entrance.door._batches) == 1
    entrance.serve(lambda: entrance.accepted == 2 * (BACKLOG + 1))
    assert len(entrance.door._batches) == 2


def test_the_door_is_shut_at_the_limit_and_opens_again_when_a_quarter_is_gone(entrance: Entrance) -> None:
    while not entrance.door.is_shut:
        entrance.connect(100)
        waiting = len(entrance.clients)
        entrance.serve(lambda waiting=waiting: entrance.accepted == waiting or entrance.door.is_shut)
    assert not entrance.path.exists()
    assert entrance.accepted + len(entrance.door._batches) <= LIMIT + BACKLOG + 1
    assert entrance.connect() == 0
    while entrance.door.is_shut:
        entrance.disconnect(1)
        left = len(entrance.clients)
        entrance.serve(lambda left=left: entrance.accepted <= left)
    assert entrance.path.exists()
    assert LIMIT // 2 < entrance.accepted + len(entrance.door._batches) <= LIMIT * 3 // 4
    assert entrance.connect() == 1
    entrance.serve(lambda: entrance.accepted == len(entrance.clients))


def test_a_connection_that_ends_gives_back_its_descriptors(entrance: Entrance) -> None:
    first = open_descriptors()
    for _ in range(3 * LIMIT):
        assert entrance.connect() == 1
        entrance.serve(lambda: entrance.accepted == 1)
        entrance.disconnect(1)
        entrance.serve(lambda: not entrance.accepted)
    deadline = time.monotonic() + TIMEOUT_S
    while open_descriptors() > first + 1:
        assert time.monotonic() < deadline
    assert len(entrance.door._batches) == 1, "the last one stays until the next"


def test_a_client_that_left_before_it_was_admitted_holds_nothing_up(entrance: Entrance) -> None:
    entrance.connect()
    entrance.disconnect(1)
    entrance.serve(lambda: entrance.door._newest is not None)
    assert entrance.connect() == 1
    entrance.serve(lambda: entrance.accepted == 1)


def test_messages_pass_in_both_directions_whatever_the_batch(entrance: Entrance) -> None:
    client = calls_socket(entrance.context)
    for number in range(3):
        name = b"%d" % number
        client.setsockopt(zmq.ROUTER_MANDATORY, 0)
        connect_peer(client, name, f"ipc://{entrance.path}")
        client.send_multipart([name, b"hello"])
        entrance.serve(lambda: bool(entrance.server.poll(0)))
        entrance.server.send_multipart([entrance.server.recv_multipart()[0], name])
        assert client.poll(TIMEOUT_S * 1000)
        assert client.recv_multipart() == [name, name]
    client.close()
