"""Host names with real sockets: names with several addresses, late names, IPv6."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fake_broker import FakeBroker
from patience import TIMEOUT_S
from planaria.transport.client.client import Client
from planaria.transport.client.errors import TimedOut
from planaria.transport.client.options import InvalidOption

NAME = "broker.test"


class FakeResolver:
    """Answers for NAME in place of the system's resolver."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.lookups = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        assert host == NAME
        self.lookups += 1
        assert self.may_answer.wait(TIMEOUT_S)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in self.addresses]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeResolver]:
    fake = FakeResolver()
    monkeypatch.setattr(socket, "getaddrinfo", fake)
    yield fake
    fake.may_answer.set()


def named(broker: FakeBroker) -> str:
    return f"tcp://{NAME}:{broker.endpoint.rsplit(':', 1)[1]}"


def test_every_address_is_tried(remote_broker: FakeBroker, resolver: FakeResolver) -> None:
    resolver.addresses = ["127.0.0.9", "127.0.0.1"]
    with Client(named(remote_broker)) as client:
        assert client.list_groups() == []


def test_a_broker_that_has_moved_is_found_at_its_new_address(free_port: int, resolver: FakeResolver) -> None:
    resolver.addresses = ["127.0.0.2"]
    with Client(f"tcp://{NAME}:{free_port}") as client:
        with FakeBroker(f"tcp://127.0.0.2:{free_port}"):
            assert client.list_groups() == []
        with FakeBroker(f"tcp://127.0.0.3:{free_port}"):
            resolver.addresses = ["127.0.0.3"]
            assert client.list_groups() == []


def test_a_name_server_that_is_down_is_waited_for(remote_broker: FakeBroker, resolver: FakeResolver) -> None:
    with Client(named(remote_broker)) as client:
        with pytest.raises(TimedOut, match=f"'{NAME}' cannot be looked up: Temporary failure"):
            client.wait_for_broker(0.2)
        resolver.addresses = ["127.0.0.1"]
        assert client.list_groups() == []


def test_a_lookup_that_blocks_holds_up_no_deadline(remote_broker: FakeBroker, resolver: FakeResolver) -> None:
    resolver.addresses = ["127.0.0.1"]
    resolver.may_answer.clear()
    with Client(named(remote_broker), request_timeout_ms=100) as client:
        with pytest.raises(TimedOut, match="no broker answers"):
            client.list_groups()
        assert resolver.lookups == 1, "one at a time"
        resolver.may_answer.set()
        client.wait_for_broker(10)
    resolver.may_answer.clear()
    Client(named(remote_broker)).close()


@pytest.mark.parametrize("host", ["[::1]", "[0:0:0:0:0:0:0:1]"])
def test_a_broker_on_ipv6_is_found_and_found_again(free_port: int, host: str) -> None:
    with (
        FakeBroker(f"tcp://[::1]:{free_port}") as broker,
        Client(f"tcp://{host}:{free_port}") as client,
    ):
        assert client.list_groups() == []
        broker.kill_gateway()
        broker.start_gateway()
        assert client.list_groups() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_a_broker_on_both_families_is_found_by_each(free_port: int, host: str) -> None:
    with FakeBroker(f"tcp://[::]:{free_port}"), Client(f"tcp://{host}:{free_port}") as client:
        assert client.list_groups() == []


def test_a_host_that_no_name_server_can_know_is_named() -> None:
    with Client("tcp://-.invalid:5570") as client, pytest.raises(TimedOut, match="cannot be looked up"):
        client.wait_for_broker(0.5)


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://host", "tcp://host:0", "tcp://host:70000", "host:1", "", 7, "tcp://:1", "tcp://a..b:1",
        f"tcp://{'x' * 70}:1", "tcp://a b:1", "tcp://a:1 ", "tcp://a:1\n", "tcp://a/b:1", "tcp://a@b:1",
        "tcp://*:1", "tcp://a:*", "tcp://::1:5570", "tcp://[::1:5570", "tcp://::1]:5570", "tcp://[]:1",
        "tcp://[a]:1", "tcp://[127.0.0.1]:1", "tcp://[::1]x:1", "tcp://[::1]", "ipc:///tmp/x", "inproc://x",
        "udp://a:1", "TCP://a:1", "tcp:a:1",
    ],
)  # fmt: skip
def test_a_malformed_endpoint_is_refused_at_once(endpoint: Any) -> None:
    with pytest.raises(
        InvalidOption, match=r"tcp://HOST:PORT or tls://HOST:PORT, with an IPv6 address in brackets"
    ):
        Client(endpoint)
