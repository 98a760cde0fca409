"""The routing of transactions to their coordinators, which are created with the first transactional id. Pure.

init_producer with a transactional_id           the coordinator of that id
add_to_transaction, end_transaction             the coordinator that gave out the producer id
list_transactions                               all of them, one after the other; their answers are combined
"""

from ...transport.addresses import TRANSACTIONS_TOPIC, transactions_address
from ...transport.machine import Answered, Call, Effect
from ...transport.producer_ids import coordinator_of
from ...transport.protocol.data import InitProducer
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.transactions import (
    AddToTransaction,
    EndTransaction,
    ListTransactions,
    ListTransactionsReply,
    TransactionDescription,
    coordinator_for,
)
from .forwarding import CALL_TIMEOUT_MS, forward
from .internal_actors import InternalActors
from .peers import Peers
from .tickets import Tickets
from .topic_table import TopicTable
from .waiting import Attempt, WaitingRoom

LIST = "transactions"


class TransactionRoutes:
    def __init__(self, tickets: Tickets, table: TopicTable, peers: Peers, waiting_room: WaitingRoom) -> None:
        self._tickets = tickets
        self._table = table
        self.coordinators = InternalActors(
            TRANSACTIONS_TOPIC, transactions_address, tickets, table, peers, waiting_room
        )

    def route(
        self,
        attempt: Attempt,
        request: InitProducer | AddToTransaction | EndTransaction | ListTransactions,
        now: int,
    ) -> list[Effect]:
        """Raises ProtocolError."""
        count = self.coordinators.count
        if not count and isinstance(request, InitProducer):
            return self.coordinators.ensure(attempt)
        if not count and not attempt.has_asked:
            return self._table.ask(attempt)
        if isinstance(request, ListTransactions):
            return self._list(attempt, 0, [], now)
        if isinstance(request, InitProducer):
            assert request.transactional_id is not None, "others are the controller's"
            number: int | None = coordinator_for(request.transactional_id, count)
        else:
            number = coordinator_of(request.producer_id)
        if number is None or number >= count:
            message = f"producer_id: {request.producer_id} does not belong to a transactional_id"
            raise ProtocolError(ErrorCode.INVALID_TRANSACTION, message)
        waiting = self.coordinators.wait(attempt, (number,), now)
        return (
            [forward(attempt, transactions_address(number), CALL_TIMEOUT_MS)] if waiting is None else waiting
        )

    def on_listed(self, event: Answered, now: int) -> list[Effect]:
        _, attempt, number, found = event.key
        return self._list(attempt, number + 1, [*found, *event.reply.transactions], now)

    def _list(
        self, attempt: Attempt, number: int, found: list[TransactionDescription], now: int
    ) -> list[Effect]:
        if number >= self.coordinators.count:
            found.sort(key=lambda each: each.transactional_id)
            return self._tickets.answer(attempt.number, ListTransactionsReply(transactions=found))
        key = (LIST, attempt, number, found)
        address = transactions_address(number)
        return [Call(key, address, ListTransactions(), ListTransactionsReply, timeout_ms=CALL_TIMEOUT_MS)]
