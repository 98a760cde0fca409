"""A client whose key is refused, or that does not encrypt where it has to, fails at once with the reason."""

import asyncio
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import zmq

import planaria.aio
from command_line import planaria as command
from patience import TIMEOUT_S
from planaria import AuthenticationFailed, Client
from planaria.transport import sockets
from planaria.transport.calls.events import GreetingRead
from planaria.transport.client.errors import TimedOut
from planaria.transport.client.probes import read_greeting
from planaria.transport.security.curve import Zap
from planaria.transport.security.key_files import new_key_pair, write_key_file
from planaria.transport.security.keys import KeyPair, ServerKeys

pytestmark = pytest.mark.processes

LONG_MS = 60_000
GREETING_BYTES = 64
BEGIN_BYTES = 11
"""A peer that has these bytes of a greeting sends the rest of its own."""
HELD_S = 0.5
ATTEMPTS: list[str] = []
"""The endpoint of each handshake."""


@contextmanager
def a_broker(keys: KeyPair | None, *, is_admitted: bool | None = False) -> Iterator[str]:
    """Listen as a broker that never answers: with keys, one that admits as `is_admitted` says."""
    context = sockets.new_context()

    def admits(_key: str, _host: str) -> bool | None:
        ATTEMPTS.append(endpoint)
        return is_admitted

    zap = Zap(context, admits)
    server = sockets.server_socket(context, "tcp://127.0.0.1:*", None if keys is None else ServerKeys(keys))
    endpoint = server.getsockopt_string(zmq.LAST_ENDPOINT)
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.is_set():
            if zap.socket.poll(20):
                zap.answer()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield endpoint
    finally:
        is_over.set()
        thread.join()
        server.close()
        zap.close()
        sockets.end_context(context)


SERVER = new_key_pair()
OURS = new_key_pair("ours", SERVER.public_key)


def test_a_refused_key_fails_calls_at_once_and_is_tried_again_at_a_modest_rate() -> None:
    with a_broker(SERVER) as endpoint, Client(endpoint, key=OURS, request_timeout_ms=LONG_MS) as client:
        started = time.monotonic()
        for call in (client.list_topics, lambda: client.publish("T", 1), lambda: client.wait_for_broker(30)):
            with pytest.raises(AuthenticationFailed, match=f"the broker at {endpoint} refuses this key"):
                call()
        assert time.monotonic() - started < LONG_MS / 1_000 / 2
        before, began = ATTEMPTS.count(endpoint), time.monotonic()
        time.sleep(0.5)
        attempts, took_s = ATTEMPTS.count(endpoint) - before, time.monotonic() - began
        assert attempts < 30 * took_s, "there is a pause between attempts"

    async def by_tasks(endpoint: str) -> None:
        async with planaria.aio.connect(endpoint, key=OURS, request_timeout_ms=LONG_MS) as client:
            await client.list_topics()

    with a_broker(SERVER) as endpoint, pytest.raises(AuthenticationFailed, match="refuses this key"):
        asyncio.run(by_tasks(endpoint))


def test_a_client_that_does_not_encrypt_where_it_has_to_learns_that() -> None:
    with (
        a_broker(SERVER) as endpoint,
        Client(endpoint, request_timeout_ms=LONG_MS) as client,
        pytest.raises(AuthenticationFailed, match="has authentication: a key, a token or a password"),
    ):
        client.list_topics()
    with (
        a_broker(None) as endpoint,
        Client(endpoint, key=OURS, request_timeout_ms=LONG_MS) as client,
        pytest.raises(AuthenticationFailed, match="has no authentication"),
    ):
        client.list_topics()


@contextmanager
def late_greetings(endpoint: str) -> Iterator[str]:
    """Relay the start of connections so that the broker reads the whole greeting of a client before that has its own."""
    host, port = endpoint.removeprefix("tcp://").split(":")
    listener = socket.create_server(("127.0.0.1", 0))

    def relay(client: socket.socket) -> None:
        # Each side may close at any moment, with data under way.
        with suppress(ConnectionError), client, socket.create_connection((host, int(port))) as broker:
            sent = received = 0
            while sent < GREETING_BYTES and select.select([client], [], [], HELD_S)[0]:
                data = client.recv(GREETING_BYTES - sent)
                if not data:
                    return
                broker.sendall(data)
                sent += len(data)
                if received < BEGIN_BYTES:
                    data = broker.recv(BEGIN_BYTES - received)
                    client.sendall(data)
                    received += len(data)
            if sent < GREETING_BYTES:
                client.sendall(broker.recv(GREETING_BYTES))
                client.recv(1)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=relay, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize(
    ("broker_keys", "key", "reason"),
    [(SERVER, None, "has authentication: a key, a token"), (None, OURS, "has no authentication")],
)
def test_a_broker_that_always_ends_the_handshake_first_is_understood_too(
    broker_keys: KeyPair | None, key: KeyPair | None, reason: str
) -> None:
    with (
        a_broker(broker_keys) as endpoint,
        late_greetings(endpoint) as late,
        Client(late, key=key, request_timeout_ms=LONG_MS) as client,
        pytest.raises(AuthenticationFailed, match=f"{late} {reason}"),
    ):
        client.list_topics()


def test_a_broker_with_another_key_or_one_that_is_not_ready_is_waited_for() -> None:
    other = new_key_pair()
    with (
        a_broker(other) as endpoint,
        Client(endpoint, key=OURS, request_timeout_ms=3_000) as client,
        pytest.raises(TimedOut, match="closes the connection during the handshake; is server_key"),
    ):
        client.list_topics()
    with (
        a_broker(SERVER, is_admitted=None) as endpoint,
        Client(endpoint, key=OURS, request_timeout_ms=600) as client,
        pytest.raises(TimedOut),
    ):
        client.list_topics()


def test_a_command_ends_with_one_line_that_names_the_remedy(tmp_path: Path) -> None:
    write_key_file(tmp_path / "our.key", OURS, "a test's")
    with a_broker(SERVER) as endpoint:
        done = command("--key", str(tmp_path / "our.key"), "topic", "list", "--connect", endpoint)
    assert (done.returncode, done.stdout) == (1, "")
    assert "refuses this key" in done.stderr
    assert "--key" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_server_of_another_protocol_is_not_taken_for_a_broker_with_keys() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        heard: list[GreetingRead] = []
        done = threading.Event()
        host, port = server.getsockname()
        read_greeting(f"tcp://{host}:{port}", lambda read: (heard.append(read), done.set()))
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n")
            assert done.wait(TIMEOUT_S)
    assert [read.mechanism for read in heard] == [""]
