"""A client made only of a ZeroMQ socket and a parser for JSON or MessagePack."""

import json
from typing import Any

import msgspec
import zmq

from patience import TIMEOUT_MS


class RawClient:
    """One socket, one encoding; checks that every reply is in it and echoes the id."""

    def __init__(self, socket: "zmq.Socket[bytes]", is_json: bool, envelope: list[bytes]) -> None:
        self._socket = socket
        self.is_json = is_json
        self._envelope = envelope
        self._last_id = 0

    def ask(self, op: str, *payload: bytes, **fields: Any) -> tuple[dict[str, Any], list[bytes]]:
        """Return the reply's header and payload frames."""
        self._last_id += 1
        header = {"op": op, "id": self._last_id, **fields}
        encoded = json.dumps(header).encode() if self.is_json else msgspec.msgpack.encode(header)
        self._socket.send_multipart([*self._envelope, encoded, *payload])
        assert self._socket.poll(TIMEOUT_MS), f"no reply to {op}"
        frames = self._socket.recv_multipart()
        assert frames[: len(self._envelope)] == self._envelope
        answer, *rest = frames[len(self._envelope) :]
        reply = json.loads(answer) if self.is_json else msgspec.msgpack.decode(answer)
        assert reply.pop("id") == self._last_id
        return reply, rest

    def get(self, op: str, *payload: bytes, **fields: Any) -> dict[str, Any]:
        """Return the reply to a request that must not be refused."""
        reply, _ = self.ask(op, *payload, **fields)
        assert "error" not in reply, reply
        return reply

    def refusal(self, op: str, *payload: bytes, **fields: Any) -> dict[str, Any]:
        error: dict[str, Any] = self.ask(op, *payload, **fields)[0]["error"]
        return error
