"""The transactions that stay open in a partition: their coordinators are asked about them. Pure; called by `leader.py`.

`journal/transaction_reports.py` decides when; this module names the partition and its transactions.
"""

from ...transport.machine import Answered, Failed
from ..journal.transaction_reports import ReportCall, TransactionReports
from ..log.transactions import Transactions
from .arguments import PartitionArguments
from .effects import Effect


class OpenTransactions:
    def __init__(self, arguments: PartitionArguments, transactions: Transactions) -> None:
        self._transactions = transactions
        self._reports = TransactionReports({arguments.topic: [arguments.partition]})

    @property
    def is_watching(self) -> bool:
        """True while an open transaction has to be watched."""
        return self._reports.is_watching

    def look(self, now: int) -> list[Effect]:
        if self._transactions.first_unstable_offset() is None and not self._reports.is_watching:
            return []
        return [*self._reports.look(self._transactions.open(), now)]

    def on_timer(self, now: int) -> list[Effect]:
        return [*self._reports.on_timer(now)]

    def on_outcome(self, event: Answered | Failed, now: int) -> list[Effect]:
        if not isinstance(event.key, ReportCall):
            return []  # of a fetch, when this replica was a follower
        return [*self._reports.on_outcome(event.key.transaction, event, now)]
