"""Producer ids from the controller, each unique; requested until one arrives. Pure.

Owns one request at a time. Called by the machines of actors that write under ids from the common range.
"""

from msgspec import Struct

from ...transport.addresses import CONTROLLER
from ...transport.machine import Answered, Call, Failed, LoopEffect, LoopEvent
from ...transport.protocol.data import InitProducer, InitProducerReply


class ProducerIdCall(Struct, frozen=True):
    """The request in flight."""


class ProducerIds:
    def __init__(self) -> None:
        self._is_requesting = False

    def request(self) -> list[LoopEffect]:
        """Request one more, unless a request is in flight."""
        if self._is_requesting:
            return []
        self._is_requesting = True
        return [Call(ProducerIdCall(), CONTROLLER, InitProducer(), InitProducerReply, is_endless=True)]

    def handle(self, event: LoopEvent) -> int | None:
        """Return the id when it has arrived."""
        if not isinstance(event, Answered | Failed) or event.key != ProducerIdCall():
            return None
        assert isinstance(event, Answered), f"the controller refuses an id: {event.error.message}"
        self._is_requesting = False
        producer_id: int = event.reply.producer_id
        return producer_id
