"""Producer ids from the controller, each unique; requested until one arrives. Pure.

Owns one request at a time. Called by the machines of actors that write under ids from the common range.
"""

from ...transport.addresses import CONTROLLER
from ...transport.machine import Answered, Call, Effect, Event, Failed
from ...transport.protocol.data import InitProducer, InitProducerReply
from .pause import Pause

INIT = "init_producer"


class ProducerIds:
    def __init__(self) -> None:
        self._is_asking = False
        self._pause = Pause("init_retry", CONTROLLER)

    def ask(self) -> list[Effect]:
        """Request one more, unless a request is in flight."""
        if self._is_asking:
            return []
        self._is_asking = True
        return [Call(INIT, CONTROLLER, InitProducer(), InitProducerReply)]

    def handle(self, event: Event, now: int) -> tuple[list[Effect], int | None]:
        """Return effects, and the id when it has arrived."""
        if isinstance(event, Answered) and event.key == INIT:
            self._is_asking = False
            return [], event.reply.producer_id
        if isinstance(event, Failed) and event.key == INIT:
            return self._pause.begin(now), None
        if self._pause.is_over(event):
            self._is_asking = False
            return [self._pause.end, *self.ask()], None
        return [], None
