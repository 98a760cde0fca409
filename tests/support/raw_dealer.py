"""A client in any language: headers of JSON on a DEALER, with CURVE or without."""

from contextlib import suppress
from typing import Any

import msgspec
import zmq

from planaria.transport.security.curve import ClientKeys, secure_client

WAIT_MS = 10_000


class RawDealer:
    def __init__(self, endpoint: str, keys: ClientKeys | None = None) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        if keys is not None:
            secure_client(self._socket, keys)
        self._socket.connect(endpoint)

    def ask(self, timeout_ms: int = WAIT_MS, **header: Any) -> Any:
        """Return the reply, or the code of the error; None without an answer."""
        self.send(**header)
        return self.reply(timeout_ms)

    def reply(self, timeout_ms: int = WAIT_MS) -> Any:
        found = self.answer(timeout_ms)
        return found["error"]["code"] if found is not None and "error" in found else found

    def answer(self, timeout_ms: int = WAIT_MS) -> Any:
        """Return the header of the next answer; None if there is none."""
        if not self._socket.poll(timeout_ms):
            return None
        return msgspec.json.decode(self._socket.recv_multipart()[0])

    def send(self, **header: Any) -> None:
        """Send a request, unless ZeroMQ has given the connection up because the broker refused it: it would wait."""
        with suppress(zmq.Again):
            self._socket.send(msgspec.json.encode(header), zmq.DONTWAIT)

    def __enter__(self) -> "RawDealer":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._context.term()
