"""A client that cannot be made leaves nothing behind."""

import errno
from typing import Any

import pytest
import zmq

from planaria.transport.client import network_thread
from planaria.transport.client.client import Client


def test_a_client_without_a_descriptor_for_its_pipe_ends_its_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the garbage collector ends their context, and waits for the sockets forever."""
    contexts: list[zmq.Context[Any]] = []
    new_context = network_thread.new_context

    def noted_context() -> "zmq.Context[Any]":
        contexts.append(new_context())
        return contexts[-1]

    def no_pipe() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(network_thread, "new_context", noted_context)
    monkeypatch.setattr(network_thread, "WakePipe", no_pipe)
    with pytest.raises(OSError, match="Too many open files"):
        Client("tcp://127.0.0.1:1")
    (context,) = contexts
    assert context.closed
