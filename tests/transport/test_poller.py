"""The loop's poller: no message waits in a socket whose descriptor announces nothing."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from patience import TIMEOUT_MS
from planaria.transport.poller import Poller


@pytest.fixture
def context() -> Iterator["zmq.Context[Any]"]:
    with zmq.Context() as context:
        yield context


def pair(context: "zmq.Context[Any]") -> tuple["zmq.Socket[bytes]", "zmq.Socket[bytes]"]:
    """Two connected sockets, which have exchanged nothing yet."""
    one, other = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    one.linger = other.linger = 0
    one.bind("inproc://pair")
    other.connect("inproc://pair")
    return one, other


def test_a_message_from_before_the_registration_is_found(context: "zmq.Context[Any]") -> None:
    ours, theirs = pair(context)
    with ours, theirs:
        theirs.send(b"early")
        poller = Poller(set())
        poller.register(ours)
        assert poller.wait(TIMEOUT_MS) == [ours]


def test_a_message_whose_signal_was_taken_by_a_send_is_found(context: "zmq.Context[Any]") -> None:
    ours, theirs = pair(context)
    with ours, theirs:
        used: set[zmq.Socket[bytes]] = set()
        poller = Poller(used)
        poller.register(ours)
        assert poller.wait(0) == []
        theirs.send(b"one")
        ours.get(zmq.EVENTS)  # takes in the command that announces the message
        assert poller.wait(0) == [], "this is why sockets that were used are asked"
        used.add(ours)
        assert poller.wait(TIMEOUT_MS) == [ours]
        assert not used


def test_messages_and_descriptors_are_found_while_it_waits(context: "zmq.Context[Any]") -> None:
    ours, theirs = pair(context)
    reader, writer = os.pipe()
    with ours, theirs:
        poller = Poller(set())
        poller.register(ours)
        poller.register(reader)
        assert poller.wait(0) == []
        theirs.send(b"one")
        assert poller.wait(TIMEOUT_MS) == [ours]
        ours.recv()
        os.write(writer, b"x")
        assert reader in poller.wait(TIMEOUT_MS)
    os.close(reader)
    os.close(writer)
