"""A connection that a firewall or a NAT on the way has dropped: open at both ends, but carrying nothing."""

import pytest

from fake_broker import FakeBroker
from planaria.transport import sockets
from planaria.transport.client import broker_directory, gateway_link
from planaria.transport.client.client import Client
from planaria.transport.client.errors import TimedOut
from relay import Relay


def test_a_silent_connection_is_replaced_and_what_was_asked_on_it_answered(
    remote_broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "PING_MS", 50)
    monkeypatch.setattr(broker_directory, "REFRESH_MS", 50)
    monkeypatch.setattr(gateway_link, "SILENCE_MS", 400)
    port = int(remote_broker.endpoint.rsplit(":", 1)[1])
    with Relay(port) as relay, Client(relay.endpoint, request_timeout_ms=20_000) as client:
        client.list_groups()
        relay.go_silent()
        assert client.list_groups() == []
        assert relay.accepted == 2


def test_a_broker_that_is_slow_to_answer_is_not_taken_for_a_silent_one(
    remote_broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "PING_MS", 50)
    monkeypatch.setattr(broker_directory, "REFRESH_MS", 50)
    monkeypatch.setattr(gateway_link, "SILENCE_MS", 400)
    port = int(remote_broker.endpoint.rsplit(":", 1)[1])
    with Relay(port) as relay, Client(relay.endpoint, request_timeout_ms=1_500) as client:
        client.list_groups()
        remote_broker.fault("list_groups", "swallow")
        with pytest.raises(TimedOut):
            client.list_groups()
        assert client.list_groups() == []
        assert relay.accepted == 1


def test_a_silent_endpoint_is_left_for_the_next(
    remote_broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "PING_MS", 50)
    monkeypatch.setattr(broker_directory, "REFRESH_MS", 50)
    monkeypatch.setattr(gateway_link, "SILENCE_MS", 400)
    port = int(remote_broker.endpoint.rsplit(":", 1)[1])
    with Relay(port) as first, Relay(port) as second:
        # Nothing listens at port 1.
        endpoints = ["tcp://127.0.0.1:1", first.endpoint, second.endpoint]
        with Client(endpoints, request_timeout_ms=20_000) as client:
            client.list_groups()
            assert (first.accepted, second.accepted) == (1, 0)
            first.go_silent()
            assert client.list_groups() == []
            assert (first.accepted, second.accepted) == (1, 1)
