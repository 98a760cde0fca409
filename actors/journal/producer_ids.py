"""Producer ids from the controller, each unique; requested until one arrives. Pure.

Owns one request at a time. Called by the machines of actors that write under ids from the common range.
"""

from msgspec import Struct

from ...transport.addresses import CONTROLLER
from ...transport.machine import Answered, Call, Failed, LoopEffect, LoopEvent
from ...transport.protocol.data import InitProducer, InitProducerReply
from .pause import Pause


class ProducerIdCall(Struct, frozen=True):
    """The request in flight."""


class ProducerIds:
    def __init__(self) -> None:
        self._is_requesting = False
        self._pause = Pause(ProducerIdCall(), CONTROLLER)

    def request(self) -> list[LoopEffect]:
        """Request one more, unless a request is in flight."""
        if self._is_requesting:
            return []
        self._is_requesting = True
        return [Call(ProducerIdCall(), CONTROLLER, InitProducer(), InitProducerReply)]

    def handle(self, event: LoopEvent, now: int) -> tuple[list[LoopEffect], int | None]:
        """Return effects, and the id when it has arrived."""
        match event:
            case Answered(key=ProducerIdCall()):
                self._is_requesting = False
                return [], event.reply.producer_id
            case Failed(key=ProducerIdCall()):
                return self._pause.begin(now), None
        if self._pause.is_over(event):
            self._is_requesting = False
            return [self._pause.end, *self.request()], None
        return [], None
