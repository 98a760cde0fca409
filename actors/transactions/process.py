"""The process of a coordinator of transactions: the process of a journal in `__transactions`. Impure and thin.

Started by the supervisor through `main`. It has no snapshot: its journal is short.
"""

from typing import ClassVar, Never

import msgspec

from ...transport.actor import ActorContext, built_early
from ...transport.loop import run_actor
from ...transport.protocol.message import Request
from ..journal.process import JournalActor
from .machine import REQUESTS, TransactionsMachine, TransactionsService, transactions_machine


@built_early
class TransactionsArguments(msgspec.Struct):
    topic: str
    number: int
    """The number of the coordinator, and of its partition of the topic."""
    node: str = ""
    """The node of a cluster on which it runs."""


class TransactionsActor(JournalActor[Never]):
    requests: ClassVar[tuple[type[Request], ...]] = REQUESTS

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self._arguments = msgspec.convert(context.arguments, TransactionsArguments)

    def make_machine(self, snapshot: bytes | None, starter: str) -> TransactionsMachine:
        assert snapshot is None
        topic, number, node = self._arguments.topic, self._arguments.number, self._arguments.node
        # With authentication it takes no requests of clients: they go through the gateway.
        endpoint = None if self.context.is_secured else self.endpoint()
        return transactions_machine(topic, number, starter=starter, endpoint=endpoint, node=node)

    def gauges(self) -> dict[str, int]:
        service = self.machine.service
        if not isinstance(service, TransactionsService):
            return {}
        return {"transactions_open": service.decided.open_count}

    def counters(self) -> dict[str, int]:
        service = self.machine.service
        if not isinstance(service, TransactionsService):
            return {}
        decided = service.decided
        return {"transactions:committed": decided.committed, "transactions:aborted": decided.aborted}


def main(context: ActorContext) -> None:
    run_actor(TransactionsActor(context), context)
