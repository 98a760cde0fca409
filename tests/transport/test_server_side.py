"""The serving side of an actor with external clients: the ends of connections are delivered one by one."""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import zmq

from loop_actor import Echo
from patience import TIMEOUT_MS
from planaria.transport import sockets
from planaria.transport.actor import Actor, ActorContext
from planaria.transport.codec import encode_header
from planaria.transport.machine import Connected, Disconnected, Received
from planaria.transport.meters import Meters
from planaria.transport.protocol.message import Request
from planaria.transport.request_context import ContextFrames
from planaria.transport.server_side import ServerSide

CONTEXT = ActorContext(
    address="gateway/0",
    incarnation=1,
    arguments={},
    run_directory="",
    data_directory="",
    control_endpoint="",
    instance_id="",
)


class Front(Actor[Any, Any]):
    requests: ClassVar[tuple[type[Request], ...]] = (Echo,)
    follows_connections: ClassVar[bool] = True
    follows_hosts: ClassVar[bool] = True

    def endpoint(self) -> str:
        return "tcp://127.0.0.1:*"


class Table:
    """A serving side whose turns the test takes."""

    def __init__(self) -> None:
        self.zmq = sockets.new_context()
        self.events: list[Any] = []
        self.side = ServerSide(
            self.zmq, Front(CONTEXT), ContextFrames(b"secret"), self.events.append, pytest.fail, lambda: 0
        )

    def client(self, name: bytes) -> "zmq.Socket[bytes]":
        """Return a client that has sent a request, which was handled."""
        socket = self.zmq.socket(zmq.DEALER)
        socket.linger = 0
        socket.routing_id = name
        socket.connect(self.side.endpoint)
        socket.send(encode_header(Echo(text="hello")))
        assert self.side.socket.poll(TIMEOUT_MS)
        assert not self.side.read_first(Meters(lambda: 0))
        return socket

    def wait_for_ends(self, count: int) -> None:
        while len(self.side.ended) < count:
            assert self.side.connections.monitor.poll(TIMEOUT_MS)
            self.side.follow_connections([self.side.connections.monitor])

    def take(self) -> list[tuple[type, bytes]]:
        found = [
            (type(event), event.sender.route[0] if isinstance(event, Received) else event.connection)
            for event in self.events
        ]
        self.events.clear()
        return found


@pytest.fixture
def table() -> Iterator[Table]:
    table = Table()
    yield table
    table.side.close()
    table.zmq.destroy(linger=0)


def test_ends_of_connections_wait_until_there_is_time_for_each(table: Table) -> None:
    clients = [table.client(b"%d" % number) for number in range(5)]
    table.take()
    for client in clients:
        client.close()
    table.wait_for_ends(5)
    assert table.take() == []
    names = list(table.side.ended)
    for name in names:
        table.side.end_next()
        assert table.take() == [(Disconnected, name)]
    assert not table.side.ended
    assert sorted(names) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_connection_of_the_same_name_begins_after_the_end_of_the_first(table: Table) -> None:
    table.side.ended[b"mine"] = None  # its first connection is lost
    table.client(b"mine").close()
    assert table.take() == [(Disconnected, b"mine"), (Connected, b"mine"), (Received, b"mine")]
    assert not table.side.ended
