"""The process of a coordinator of transactions: runs the machine. Impure and thin.

Started by the supervisor through `main`; ready only once the machine has replayed its entries, which needs its partition
of `__transactions` to be up. A newer incarnation's fence, a refused append or an unreadable record crashes it: the
supervisor starts the next one, and that one replays.
"""

from typing import Any, ClassVar

import msgspec

from ...transport.actor import Actor, ActorContext, built_early
from ...transport.loop import run_actor
from ...transport.machine import Effect
from ...transport.protocol.message import Request
from ..journal.effects import BecomeReady, JournalOpened
from .machine import REQUESTS, TransactionsMachine


@built_early
class TransactionsArguments(msgspec.Struct):
    topic: str
    number: int
    """The number of the coordinator, and of its partition of the topic."""


class TransactionsActor(Actor[Any, Any]):
    follows_wall_clock: ClassVar[bool] = True
    requests: ClassVar[tuple[type[Request], ...]] = REQUESTS
    ready_by_itself: ClassVar[bool] = True

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        arguments = msgspec.convert(context.arguments, TransactionsArguments)
        starter = f"{context.instance_id}.{context.incarnation}"
        self.machine = TransactionsMachine(
            arguments.topic, arguments.number, starter=starter, endpoint=self.endpoint()
        )

    def start(self) -> None:
        self.loop.dispatch(JournalOpened())

    def perform(self, effect: Effect) -> None:
        if isinstance(effect, BecomeReady):
            self.loop.ready()
        else:
            super().perform(effect)


def main(context: ActorContext) -> None:
    run_actor(TransactionsActor(context), context)
