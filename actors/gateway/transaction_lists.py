"""Answers `list_transactions`: all coordinators of transactions are asked, one after the other. Pure."""

from ...transport.addresses import TRANSACTIONS_TOPIC, transactions_address
from ...transport.machine import Call, Effect
from ...transport.protocol.errors import ErrorBody
from ...transport.protocol.transactions import (
    ListTransactions,
    ListTransactionsReply,
    TransactionDescription,
)
from .keys import TransactionsCall
from .routes import CALL_TIMEOUT_MS
from .tickets import Tickets
from .topic_table import TopicTable
from .waiting import Attempt


class TransactionLists:
    def __init__(self, tickets: Tickets, table: TopicTable) -> None:
        self._tickets = tickets
        self._table = table
        self._found: dict[int, list[TransactionDescription]] = {}
        """The transactions found so far, by ticket."""

    def route(self, attempt: Attempt) -> list[Effect]:
        if not self._table.partitions(TRANSACTIONS_TOPIC) and not attempt.has_asked:
            return self._table.ask(attempt)
        self._found[attempt.number] = []
        return self._ask(attempt.number, 0)

    def on_answered(self, key: TransactionsCall, reply: ListTransactionsReply) -> list[Effect]:
        self._found[key.ticket] += reply.transactions
        return self._ask(key.ticket, key.number + 1)

    def on_failed(self, key: TransactionsCall, error: ErrorBody) -> list[Effect]:
        del self._found[key.ticket]
        return self._tickets.answer(key.ticket, error)

    def _ask(self, ticket: int, number: int) -> list[Effect]:
        if number < self._table.partitions(TRANSACTIONS_TOPIC):
            return [
                Call(
                    TransactionsCall(ticket, number),
                    transactions_address(number),
                    ListTransactions(),
                    ListTransactionsReply,
                    timeout_ms=CALL_TIMEOUT_MS,
                )
            ]
        found = sorted(self._found.pop(ticket), key=lambda each: each.transactional_id)
        return self._tickets.answer(ticket, ListTransactionsReply(transactions=found))
