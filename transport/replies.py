"""The replies of an actor: made when a request is answered, sent when the turn has made its writes durable.

Large replies are counted until they have left the process; without room for another one its requester gets OVERLOADED
(`untaken.py`). Called by the loop alone, which owns the socket.
"""

import logging
from typing import Any, TypeAlias

import zmq

from . import sockets
from .codec import encode_header
from .machine import Reply
from .meters import Meters
from .protocol.errors import ErrorBody, ErrorCode
from .protocol.message import ErrorReply
from .untaken import Untaken

LARGE_BYTES = 64 * 1024
"""A reply from this size on is counted until it has left."""

_log = logging.getLogger("planaria.loop")


Answer: TypeAlias = tuple[list[Any], int]
"""The frames of a reply, and the bytes that `Untaken` counts for it: 0 for a small one. A plain tuple, because making a
named one takes a call in Python."""


class Replies:
    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._untaken = Untaken()
        self.large_bytes = 0
        """Bytes of the large replies that this turn has not sent yet."""
        self.dropped = 0
        """Replies dropped because the peer was gone or did not read; logged each time the number doubles."""

    def make(self, reply: Reply) -> Answer:
        """Return the message of a reply."""
        body = reply.body
        self._meters.on_answer(reply.to, body)
        if isinstance(body, ErrorBody):
            body = ErrorReply(error=body)
        if not isinstance(body, bytes):
            body.id = reply.to.id
            body = encode_header(body, reply.to.is_json)
        size_bytes = len(body)
        if reply.payload:
            size_bytes += sum(map(len, reply.payload))
        frames = [*reply.to.route, body, *reply.payload]
        if size_bytes < LARGE_BYTES:
            self._meters.on_sent(size_bytes)
            return frames, 0
        if self._untaken.take_room(reply.to.route[0], size_bytes):
            self._meters.on_sent(size_bytes)
            self.large_bytes += size_bytes
            return frames, size_bytes
        message = "too many unread replies wait for this connection, or for all connections together"
        return self.make(Reply(reply.to, ErrorBody(ErrorCode.OVERLOADED, message, True)))

    def send(self, socket: "zmq.Socket[bytes]", answer: Answer) -> None:
        frames, tracked_bytes = answer
        try:
            if not tracked_bytes:
                sockets.send_frames(socket, frames)
                return
            self.large_bytes -= tracked_bytes
            self._untaken.on_sent(frames[0], tracked_bytes, sockets.send_tracked(socket, frames))
        except zmq.ZMQError as error:
            if tracked_bytes:
                self._untaken.give_back(frames[0], tracked_bytes)
            if error.errno == zmq.EAGAIN:
                self._on_dropped()
            elif error.errno != zmq.EHOSTUNREACH:  # that peer is gone and waits for no reply
                raise

    def settle(self) -> None:
        """Forget large replies that have left; called now and then."""
        self._untaken.settle_all()

    def _on_dropped(self) -> None:
        self.dropped += 1
        if self.dropped.bit_count() == 1:
            _log.warning("replies dropped", extra={"fields": {"total": self.dropped}})
