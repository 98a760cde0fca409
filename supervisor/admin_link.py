"""Questions to a supervisor over its own control endpoint. Called by the embedded Broker and by operators' commands.

The supervisor answers whatever the gateway does, so this is the operators' way in on the broker's machine. The socket
lies in the run directory, which only its owner may enter: whoever can connect has the owner's rights, and only here may
code (a handler) be installed.
"""

import itertools
import time
from collections.abc import Callable, Iterable
from typing import TypeVar, cast

import msgspec

from ..transport import sockets
from ..transport.codec import decode_reply, encode_header
from ..transport.protocol.control import ChildSpec, StartChild, StopChild
from ..transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ..transport.protocol.message import Done, Reply, Request
from ..transport.protocol.operations import (
    Kill,
    KillReply,
    Revive,
    ReviveReply,
    SignalName,
    Status,
    StatusReply,
)

PATIENCE_MS = 10_000
LOOK_MS = 50
"""How often a silent supervisor is looked after."""

AnyReply = TypeVar("AnyReply", bound=Reply)


class AdminLink:
    """A DEALER to one supervisor; not shared between threads.

    `is_gone` tells whether that supervisor has ended; then every question fails at once with ACTOR_UNAVAILABLE.
    """

    def __init__(self, control_endpoint: str, is_gone: Callable[[], bool]) -> None:
        self._is_gone = is_gone
        self._context = sockets.new_context()
        self._socket = sockets.unnamed_link(self._context, control_endpoint)
        self._ids = itertools.count(1)

    def __enter__(self) -> "AdminLink":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        sockets.end_context(self._context)

    def start_child(self, spec: ChildSpec, *, must_fit: bool = False) -> None:
        """Have a child started and kept. Raises ProtocolError; LIMIT_REACHED only with `must_fit`."""
        self._answer(self._send(StartChild(spec=spec, must_fit=must_fit)), Done, PATIENCE_MS)

    def stop_children(self, specs: Iterable[ChildSpec]) -> None:
        """Have children stopped, all at once, and forgotten; returns when they are gone. Raises ProtocolError."""
        asked = [(self._send(StopChild(address=spec.address)), spec.shutdown_ms) for spec in specs]
        waiting = {number for number, _ in asked}
        # Each may take as long as its spec allows, and they take it side by side.
        patience_ms = PATIENCE_MS + max((shutdown_ms for _, shutdown_ms in asked), default=0)
        while waiting:
            waiting.discard(self._receive(Done, patience_ms).id)

    def status(self) -> StatusReply:
        return self._answer(self._send(Status()), StatusReply, PATIENCE_MS)

    def kill(self, address: str, signal: str = "SIGKILL") -> KillReply:
        """Have an actor sent a signal. Raises ProtocolError."""
        request = Kill(address=address, signal=cast(SignalName, signal))
        return self._answer(self._send(request), KillReply, PATIENCE_MS)

    def revive(self, address: str) -> ReviveReply:
        """Have an actor started that is quarantined or waits for its restart. Raises ProtocolError."""
        return self._answer(self._send(Revive(address=address)), ReviveReply, PATIENCE_MS)

    def _send(self, request: Request) -> int:
        number = next(self._ids)
        self._socket.send_multipart([b"", encode_header(msgspec.structs.replace(request, id=number))])
        return number

    def _answer(self, number: int, reply_type: type[AnyReply], patience_ms: int) -> AnyReply:
        while (reply := self._receive(reply_type, patience_ms)).id != number:
            pass
        return reply

    def _receive(self, reply_type: type[AnyReply], patience_ms: int) -> AnyReply:
        deadline = time.monotonic() + patience_ms / 1000
        while not self._socket.poll(LOOK_MS):
            if self._is_gone():
                raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, "the supervisor has ended")
            if time.monotonic() > deadline:
                raise ProtocolError(ErrorCode.TIMED_OUT, "the supervisor did not answer in time")
        reply = decode_reply(self._socket.recv_multipart()[-1], reply_type)
        if isinstance(reply, ErrorBody):
            raise ProtocolError.from_body(reply)
        answer: AnyReply = reply
        return answer
