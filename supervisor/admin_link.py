"""Questions to a supervisor over its own control endpoint. Called by the embedded Broker.

The socket lies in the run directory, which only its owner may enter: whoever can connect has the owner's rights, and
only here may code (a handler) be installed.
"""

import itertools
from typing import Any, TypeVar

import msgspec
import zmq

from ..transport.codec import decode_reply, encode_header
from ..transport.protocol.control import ChildSpec, StartChild, StopChild
from ..transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ..transport.protocol.message import Done, Reply, Request
from ..transport.protocol.operations import Status, StatusReply

AnyReply = TypeVar("AnyReply", bound=Reply)


class AdminLink:
    """A DEALER to one supervisor; not shared between threads."""

    def __init__(self, control_endpoint: str, timeout_ms: int = 10_000) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(control_endpoint)
        self._timeout_ms = timeout_ms
        self._ids = itertools.count(1)

    def __enter__(self) -> "AdminLink":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._context.term()

    def start_child(self, spec: ChildSpec) -> None:
        """Have a child started and kept. Raises ProtocolError."""
        self._ask(StartChild(spec=spec), Done)

    def stop_child(self, address: str) -> None:
        """Have a child stopped and forgotten; returns once it is gone. Raises ProtocolError."""
        self._ask(StopChild(address=address), Done)

    def status(self) -> StatusReply:
        return self._ask(Status(), StatusReply)

    def _ask(self, request: Request, reply_type: type[AnyReply]) -> AnyReply:
        number = next(self._ids)
        self._socket.send_multipart([b"", encode_header(msgspec.structs.replace(request, id=number))])
        while self._socket.poll(self._timeout_ms):
            reply = decode_reply(self._socket.recv_multipart()[-1], reply_type)
            if isinstance(reply, ErrorBody):
                raise ProtocolError.from_body(reply)
            if reply.id == number:
                answer: AnyReply = reply
                return answer
        raise ProtocolError(ErrorCode.TIMED_OUT, "the supervisor did not answer in time")
