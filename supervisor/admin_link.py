"""Requests to a supervisor over its control endpoint. Called by the embedded Broker and by operators' commands.

The supervisor answers independently of the gateway, so operators on the broker's machine use this path. The socket
lies in the run directory, which only its owner may enter: a peer that can connect has the owner's rights, and only this
path may install code (a handler).
"""

import itertools
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
import zmq

from ..transport import sockets
from ..transport.client.descriptions import BrokerStatus, KilledActor, described, described_status
from ..transport.codec import decode_reply, encode_header
from ..transport.protocol.control import ChildSpec, ReplaceChild, StartChild, StopChild
from ..transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ..transport.protocol.message import Done, Reply, Request
from ..transport.protocol.operations import (
    ActorState,
    Kill,
    KillReply,
    Revive,
    ReviveReply,
    SignalName,
    Status,
    StatusReply,
)

TIMEOUT_MS = 10_000
LOOK_MS = 50
"""Interval of liveness checks of a silent supervisor."""

AnyReply = TypeVar("AnyReply", bound=Reply)


class Undelivered(ProtocolError):
    """The request was not sent: no supervisor has completed the handshake. Any request may then be repeated."""


class AdminLink:
    """A DEALER to one supervisor; not shared between threads.

    `is_gone` returns True once that supervisor has ended; then every request fails at once with ACTOR_UNAVAILABLE, and
    with TIMED_OUT after `timeout_ms`. Either is raised as Undelivered where the supervisor cannot have the request.
    """

    def __init__(
        self, control_endpoint: str, is_gone: Callable[[], bool], timeout_ms: int = TIMEOUT_MS
    ) -> None:
        self._is_gone = is_gone
        self._timeout_ms = timeout_ms
        self._context = sockets.new_context()
        self._socket = sockets.unnamed_link(self._context, control_endpoint, queues_unconnected=False)
        self._ids = itertools.count(1)

    def __enter__(self) -> "AdminLink":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        sockets.end_context(self._context)

    def start_child(self, spec: ChildSpec, *, must_fit: bool = False) -> None:
        """Start a child and keep it running. Raises ProtocolError; LIMIT_REACHED only with `must_fit`."""
        self._answer(self._send(StartChild(spec=spec, must_fit=must_fit)), Done, self._timeout_ms)

    def replace_child(self, spec: ChildSpec) -> None:
        """Stop a child in order and start it with another spec; returns once it has stopped. Raises ProtocolError."""
        self._answer(self._send(ReplaceChild(spec=spec)), Done, self._timeout_ms + spec.shutdown_ms)

    def stop_children(self, specs: Iterable[ChildSpec]) -> None:
        """Stop children concurrently and remove them; returns when they are gone. Raises ProtocolError."""
        asked = [(self._send(StopChild(address=spec.address)), spec.shutdown_ms) for spec in specs]
        waiting = {number for number, _ in asked}
        # Children stop concurrently, each within the limit of its spec.
        timeout_ms = self._timeout_ms + max((shutdown_ms for _, shutdown_ms in asked), default=0)
        while waiting:
            waiting.discard(self._receive(Done, timeout_ms).id)

    def ask(self, request: Request, reply_type: type[AnyReply]) -> AnyReply:
        """Send a request and return its reply. Raises ProtocolError."""
        return self._answer(self._send(request), reply_type, self._timeout_ms)

    def status(self, after_version: int | None = None) -> BrokerStatus:
        """Return the processes of the broker; with a version those that have changed since. Raises ProtocolError."""
        return described_status(self.ask(Status(after_version=after_version), StatusReply))

    def kill(self, address: str, signal: SignalName = "SIGKILL") -> KilledActor:
        """Send a signal to an actor. Raises ProtocolError."""
        return described(KilledActor, self.ask(Kill(address=address, signal=signal), KillReply))

    def revive(self, address: str) -> ActorState:
        """Start an actor that is quarantined or waits for its restart; return its state before. Raises ProtocolError."""
        return self.ask(Revive(address=address), ReviveReply).state

    def _send(self, request: Request) -> int:
        number = next(self._ids)
        self._await(zmq.POLLOUT, self._timeout_ms, Undelivered)
        self._socket.send_multipart([b"", encode_header(msgspec.structs.replace(request, id=number))])
        return number

    def _answer(self, number: int, reply_type: type[AnyReply], timeout_ms: int) -> AnyReply:
        while (reply := self._receive(reply_type, timeout_ms)).id != number:
            pass
        return reply

    def _receive(self, reply_type: type[AnyReply], timeout_ms: int) -> AnyReply:
        self._await(zmq.POLLIN, timeout_ms, ProtocolError)
        reply = decode_reply(self._socket.recv_multipart()[-1], reply_type)
        if isinstance(reply, ErrorBody):
            raise ProtocolError.from_body(reply)
        answer: AnyReply = reply
        return answer

    def _await(self, readiness: int, timeout_ms: int, refusal: type[ProtocolError]) -> None:
        deadline = time.monotonic() + timeout_ms / 1000
        while not self._socket.poll(LOOK_MS, readiness):
            if self._is_gone():
                raise refusal(ErrorCode.ACTOR_UNAVAILABLE, "the supervisor has ended")
            if time.monotonic() > deadline:
                raise refusal(ErrorCode.TIMED_OUT, "the supervisor did not answer in time")
