"""The network and the comparison of a chaos run on a cluster: they do what they say, before a run trusts them."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from patience import TIMEOUT_S
from planaria.supervisor.chaos.cluster.network import Network
from planaria.supervisor.chaos.cluster.replicas import differences
from planaria.supervisor.chaos.cluster.rules import Rule
from planaria.supervisor.free_ports import free_ports
from planaria.supervisor.local_cluster import Route
from planaria.transport.addresses import TopicPartition
from planaria.transport.batch import build, stamp

SHORT_S = 0.3


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it receives."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    accepted, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=send_back, args=(accepted,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def send_back(accepted: socket.socket) -> None:
    with accepted, suppress(ConnectionError):
        while data := accepted.recv(4_096):
            accepted.sendall(data)


@pytest.mark.processes
def test_a_cut_holds_one_direction_and_what_it_holds_arrives_afterwards(echo: int) -> None:
    (port,) = free_ports(1)
    with (
        Network([Route(port, "b", echo, "a")]) as network,
        socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as client,
    ):
        client.sendall(b"1")
        assert client.recv(10) == b"1"
        for cut in (("a", "b"), ("b", "a")):
            network.apply([cut], Rule(is_cut=True))
            client.sendall(b"2")
            client.settimeout(SHORT_S)
            with pytest.raises(TimeoutError):
                client.recv(10)
            network.free([cut])
            client.settimeout(TIMEOUT_S)
            assert client.recv(10) == b"2"
        network.apply([("a", "b")], Rule(delay_ms=300))
        began = time.monotonic()
        client.sendall(b"3")
        assert client.recv(10) == b"3"
        assert time.monotonic() - began >= 0.3
        network.reset([("b", "a")])
        with pytest.raises(ConnectionError):
            client.recv(10)


@pytest.mark.processes
def test_the_sender_of_a_connection_is_the_machine_of_its_process(echo: int) -> None:
    (port,) = free_ports(1)

    class Machine:
        name, pid = "a", os.getsid(0)

    with Network([Route(port, "b", echo)]) as network:
        network.know(Machine())  # type: ignore[arg-type]
        network.apply([("x", "b"), ("b", "x")], Rule(is_cut=True))
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as client:
            client.sendall(b"1")
            assert client.recv(10) == b"1"
            network.apply([("a", "b")], Rule(is_cut=True))
            client.sendall(b"2")
            client.settimeout(SHORT_S)
            with pytest.raises(TimeoutError):
                client.recv(10)


def write(data: Path, tp: TopicPartition, records: list[tuple[bytes, bytes | None]], room: int = 0) -> None:
    """Write a replica of one batch for each record."""
    folder = data / "topics" / tp.topic / str(tp.partition)
    folder.mkdir(parents=True)
    batches = (
        stamp(build([(*record, 0, None)], first_timestamp_ms=1, max_timestamp_ms=1), offset, 1)
        for offset, record in enumerate(records)
    )
    (folder / "0.log").write_bytes(b"".join(map(bytes, batches)) + bytes(room))


@pytest.mark.parametrize(
    ("topic", "first", "second", "is_equal"),
    [
        ("T", [(b"a", b"1"), (b"b", b"2")], [(b"a", b"1"), (b"b", b"2")], True),
        ("T", [(b"a", b"1"), (b"b", b"2")], [(b"a", b"1"), (b"b", b"3")], False),
        ("T", [(b"a", b"1"), (b"b", b"2")], [(b"a", b"1")], False),
        ("__offsets", [(b"a", b"1"), (b"a", b"2")], [(b"b", None), (b"a", b"2")], True),
        ("__offsets", [(b"a", b"1"), (b"a", b"2")], [(b"a", b"2"), (b"a", b"1")], False),
    ],
)
def test_replicas_are_compared_byte_by_byte_or_by_key(
    tmp_path: Path,
    topic: str,
    first: list[tuple[bytes, bytes | None]],
    second: list[tuple[bytes, bytes | None]],
    is_equal: bool,
) -> None:
    tp = TopicPartition(topic, 0)
    write(tmp_path / "n1", tp, first, room=100)
    write(tmp_path / "n2", tp, second)
    found = differences([tmp_path / "n1", tmp_path / "n2"], {tp: 2})
    assert (found == []) == is_equal, found
