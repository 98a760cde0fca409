"""Sockets under events that crash libzmq without precautions."""

import socket
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import zmq
from zmq.utils.garbage import gc as kept_by_zmq

from patience import TIMEOUT_MS, TIMEOUT_S
from planaria.transport import sockets
from planaria.transport.sockets import (
    calls_socket,
    connect_peer,
    control_socket,
    disconnect_peer,
    has_message,
    new_context,
    receive_frames,
    send_frames,
    send_tracked,
    server_socket,
    unnamed_link,
)

LARGE = bytes(range(256)) * 4_000


def test_a_peer_is_disconnected_with_a_message_half_read(run_dir: Path) -> None:
    """Polling has taken the first part out of the pipe; without care the next receive aborts this process."""
    context = new_context()
    client = calls_socket(context)
    servers = {}
    for name in (b"one", b"two"):
        endpoint = f"ipc://{run_dir}/{name.decode()}"
        servers[name] = server_socket(context, endpoint)
        connect_peer(client, name, endpoint)
        client.send_multipart([name, b"hello"])
        assert servers[name].poll(TIMEOUT_MS)
        peer, _ = servers[name].recv_multipart()
        servers[name].send_multipart([peer, b"first", b"second", b"third"])
        assert client.poll(TIMEOUT_MS)
        if name == b"one":
            arrived = disconnect_peer(client, endpoint)
            assert arrived == [[b"one", b"first", b"second", b"third"]]

    assert client.recv_multipart(zmq.DONTWAIT) == [b"two", b"first", b"second", b"third"]
    assert disconnect_peer(client, "ipc:///never/connected") == []
    for each in (client, *servers.values()):
        each.close()
    context.term()


@pytest.mark.parametrize(
    "words", [b"HTTP/1.1 400 Bad Request\r\n" + b"x" * 200, b"\x01\0" * 5, b"\x03\0id\x02\0x" * 20]
)
def test_bytes_of_another_protocol_are_not_taken_for_an_old_version_of_zmtp(words: bytes) -> None:
    """A peer of ZMTP 1.0 has no handshake. If it is disconnected at its first message, libzmq aborts this process."""
    context = new_context()
    client = calls_socket(context)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT_S)
        endpoint = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        connect_peer(client, b"name", endpoint)
        connection, _ = server.accept()
        with connection, suppress(ConnectionResetError):
            connection.settimeout(TIMEOUT_S)
            connection.sendall(words)
            while connection.recv(100):
                pass  # until the client closes the connection
    assert disconnect_peer(client, endpoint) == []
    client.close()
    context.term()


@pytest.mark.parametrize("frames", [[b"small"], [LARGE, b"small"], [b"small", LARGE], [LARGE, LARGE]])
def test_a_tracked_message_has_left_when_its_last_frame_has(run_dir: Path, frames: list[bytes]) -> None:
    context = new_context()
    client, endpoint = calls_socket(context), f"ipc://{run_dir}/server"
    connect_peer(client, b"server", endpoint)
    tracker = send_tracked(client, [b"server", *frames])
    assert not tracker.done  # no server is bound yet
    server = server_socket(context, endpoint)
    tracker.wait(TIMEOUT_MS / 1000)
    assert server.poll(TIMEOUT_MS)
    assert receive_frames(server)[1:] == frames
    with pytest.raises(zmq.ZMQError):
        send_tracked(client, [b"nobody", *frames])
    for each in (client, server):
        each.close()
    context.term()


def test_small_frames_beside_a_large_one_are_copied(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame that is not copied wakes a thread of pyzmq when it has left."""
    kept: list[int] = []
    monkeypatch.setattr(kept_by_zmq, "store", _counting(kept, kept_by_zmq.store))
    context = new_context()
    client, endpoint = calls_socket(context), f"ipc://{run_dir}/server"
    server = server_socket(context, endpoint)
    connect_peer(client, b"server", endpoint)
    send_frames(client, [b"server", b"header", LARGE])
    send_frames(client, [b"server", b"header", b"small"])
    assert kept == [len(LARGE)]
    assert server.poll(TIMEOUT_MS)
    for each in (client, server):
        each.close()
    context.term()


def _counting(kept: list[int], store: Callable[..., int]) -> Callable[..., int]:
    def counted(frame: bytes, event: Any = None) -> int:
        kept.append(len(frame))
        return store(frame, event)

    return counted


def test_messages_go_and_come_whole(run_dir: Path) -> None:
    context = new_context()
    client, endpoint = calls_socket(context), f"ipc://{run_dir}/server"
    server = server_socket(context, endpoint)
    connect_peer(client, b"server", endpoint)
    messages = [
        [b"one"],
        [b"", b"two", memoryview(b"frames")],
        [b"large", LARGE, memoryview(LARGE)],
        [LARGE, b""],
    ]
    for message in messages:
        send_frames(client, [b"server", *message])
    for message in messages:
        assert server.poll(TIMEOUT_MS)
        assert has_message(server)
        assert receive_frames(server)[1:] == message
    assert not has_message(server)
    with pytest.raises(zmq.Again):
        receive_frames(server)
    with pytest.raises(zmq.ZMQError):
        send_frames(client, [b"nobody", b"lost", b"altogether"])
    send_frames(client, [b"server", b"not mixed up"])
    assert server.poll(TIMEOUT_MS)
    assert receive_frames(server)[1:] == [b"not mixed up"]
    for each in (client, server):
        each.close()
    context.term()


def test_a_context_that_does_not_end_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "END_S", 0.05)
    context = zmq.Context()
    left_open = context.socket(zmq.PAIR)
    sockets.end_context(context)
    until_ended = next(each for each in threading.enumerate() if each.name == "planaria-context-end")
    left_open.close(0)
    until_ended.join(TIMEOUT_S)
    assert not until_ended.is_alive(), "it ends once it can"


@pytest.mark.parametrize("open_at", [server_socket, control_socket, unnamed_link])
def test_a_socket_that_cannot_be_opened_leaves_nothing_behind(open_at: Callable[..., object]) -> None:
    context = new_context()
    with pytest.raises(zmq.ZMQError):
        open_at(context, "tcp://no such host:1")
    context.term()  # would wait for a socket that is open


@pytest.mark.parametrize(
    ("addresses", "bound"),
    [(["::1"], "tcp://[::1]"), (["::1", "127.0.0.1"], "tcp://127.0.0.1"), ([], None)],
)
def test_a_server_is_bound_at_a_name_with_addresses_of_either_family(
    addresses: list[str], bound: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lookup(*_: object, **__: object) -> list[Any]:
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0))
            for each in addresses
        ]

    monkeypatch.setattr(sockets, "getaddrinfo", lookup)
    context = new_context()
    with pytest.raises(zmq.ZMQError) if bound is None else nullcontext():
        server = server_socket(context, "tcp://broker.test:*")
        assert server.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[0] == bound
        server.close()
    context.term()
