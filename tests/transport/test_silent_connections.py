"""Connections whose other end has vanished silently: both ends detect it on their own."""

import os
import socket

import pytest
import zmq

from patience import TIMEOUT_MS, TIMEOUT_S
from planaria.transport import sockets
from planaria.transport.server_connections import ServerConnections
from planaria.transport.sockets import calls_socket, connect_peer, new_context, server_socket
from relay import Relay


def port_of(server: "zmq.Socket[bytes]") -> int:
    return int(server.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])


def greet(client: "zmq.Socket[bytes]", server: "zmq.Socket[bytes]", connections: ServerConnections) -> bytes:
    """Send a message through; return its connection."""
    client.send_multipart([b"server", b"hello"])
    assert server.poll(TIMEOUT_MS)
    frame = server.recv(copy=False)
    connections.note(frame)
    server.recv()
    return frame.bytes


def test_both_ends_end_a_connection_on_which_nothing_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "PING_MS", 50)
    monkeypatch.setattr(sockets, "PEER_SILENCE_MS", 300)
    context = new_context()
    server = server_socket(context, "tcp://127.0.0.1:*")
    connections = ServerConnections(context, server, "tcp://127.0.0.1:*")
    client = calls_socket(context)
    with Relay(port_of(server)) as relay:
        with client.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
            connect_peer(client, b"server", relay.endpoint)
            first = greet(client, server, connections)
            assert not monitor.poll(1_000), "pings keep an idle connection"
            assert connections.gone() == []
            relay.go_silent()
            assert connections.monitor.poll(TIMEOUT_MS)
            assert connections.gone() == [first]
            assert monitor.poll(TIMEOUT_MS)
            client.disable_monitor()
        assert greet(client, server, connections) != first
        connections.close()
        for each in (client, server):
            each.close()
        context.term()


def test_a_client_that_never_pings_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every library answers a ping, so a server sends none."""
    monkeypatch.setattr(sockets, "PING_MS", 20)
    monkeypatch.setattr(sockets, "PEER_SILENCE_MS", 60)
    context = new_context()
    server = server_socket(context, "tcp://127.0.0.1:*")
    with socket.create_connection(("127.0.0.1", port_of(server))) as plain:
        ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
        plain.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48) + bytes([4, len(ready)]) + ready)
        plain.settimeout(TIMEOUT_S)
        greeting = b""
        while not greeting.endswith(b"Identity\0\0\0\0"):
            greeting += plain.recv(4096)
        plain.sendall(b"\x00\x02{}")
        assert server.poll(TIMEOUT_MS)
        name, _ = server.recv_multipart()
        plain.settimeout(0.5)
        with pytest.raises(TimeoutError):
            plain.recv(1)
        server.send_multipart([name, b"{}"])
        plain.settimeout(TIMEOUT_S)
        assert plain.recv(100) == b"\x00\x02{}"
    server.close()
    context.term()


def test_the_kernel_watches_the_connections_of_a_server() -> None:
    """So a vanished host is disconnected, whatever library its clients use."""
    context = new_context()
    server, client = server_socket(context, "tcp://127.0.0.1:*"), calls_socket(context)
    connect_peer(client, b"server", f"tcp://127.0.0.1:{port_of(server)}")
    client.send_multipart([b"server", b"hello"])
    assert server.poll(TIMEOUT_MS)
    frame = server.recv(copy=False)
    with socket.socket(fileno=os.dup(int(frame.get(zmq.SRCFD)))) as accepted:
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == sockets.KEEPALIVE_IDLE_S
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == sockets.KEEPALIVE_INTERVAL_S
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == sockets.KEEPALIVE_PROBES
        user_timeout_ms = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert user_timeout_ms == sockets.UNACKNOWLEDGED_MS
    for each in (client, server):
        each.close()
    context.term()
