"""A raw client whose socket reconnects silently: the broker's replies afterwards, and the remedy."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import zmq

from planaria.supervisor.launch import SupervisorHandle
from raw_client import TIMEOUT_MS, RawClient
from relay import Relay

pytestmark = pytest.mark.processes
RECORDS = [{"value_text": "v"}]


@pytest.fixture
def relay(running_broker: SupervisorHandle) -> Iterator[Relay]:
    with Relay(int(running_broker.started.endpoint.rsplit(":", 1)[1])) as found:
        yield found


def test_a_greeting_that_was_lost_with_its_connection_is_asked_for_again(relay: Relay) -> None:
    with ExitStack() as exits:
        context = exits.enter_context(zmq.Context())
        socket = exits.enter_context(context.socket(zmq.DEALER))
        socket.linger = 0
        monitor = exits.enter_context(socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED))
        socket.connect(relay.endpoint)
        client = RawClient(socket, True, [])
        client.get("create_topic", topic="ORDERS")
        client.get("set_quota", client_id="greedy", quota={"produce_bytes": 1_000_000})
        client.get("hello", client_id="greedy")
        client.get("publish", topic="ORDERS", records=RECORDS, greeted=True)
        assert monitor.poll(0)
        monitor.recv_multipart()

        relay.cut()
        assert monitor.poll(TIMEOUT_MS), "libzmq connects again"
        refused = client.refusal("publish", topic="ORDERS", records=RECORDS, greeted=True)
        assert (refused["code"], refused["retriable"]) == ("HELLO_REQUIRED", True)
        client.get("publish", topic="ORDERS", records=RECORDS)
        client.get("hello", client_id="greedy")
        client.get("publish", topic="ORDERS", records=RECORDS, greeted=True)
        assert client.get("list_offsets", topic="ORDERS", partition=0, at="latest")["offset"] == 3
        socket.disable_monitor()
