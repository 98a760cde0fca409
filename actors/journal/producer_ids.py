"""Producer ids from the controller, who gives each to nobody else; asked for until one has come. Pure.

Owns one question at a time. Called by the machines whose actors write under ids that any producer could have.
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
        """For one more, unless one is on its way."""
        if self._is_asking:
            return []
        self._is_asking = True
        return [Call(INIT, CONTROLLER, InitProducer(), InitProducerReply)]

    def handle(self, event: Event, now: int) -> tuple[list[Effect], int | None]:
        """Effects, and the id when it has come."""
        if isinstance(event, Answered) and event.key == INIT:
            self._is_asking = False
            return [], event.reply.producer_id
        if isinstance(event, Failed) and event.key == INIT:
            return self._pause.begin(now), None
        if self._pause.is_over(event):
            self._is_asking = False
            return [self._pause.end, *self.ask()], None
        return [], None
