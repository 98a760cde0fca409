"""The transactions that stay open in a partition: their coordinators are asked about them. Pure; called by `leader.py`.

`journal/transaction_reports.py` decides when; this module names the partition and its transactions. Those of a mirror's
source have no coordinator here: none is asked about, and those open at its promotion are aborted.
"""

from ...transport.machine import Answered, Failed
from ...transport.protocol.transactions import Marker
from ..journal.transaction_reports import ReportCall, TransactionReports
from ..log.transactions import Transactions
from .arguments import PartitionArguments
from .effects import Effect


class OpenTransactions:
    def __init__(self, arguments: PartitionArguments, transactions: Transactions) -> None:
        self._transactions = transactions
        self._is_mirrored = arguments.is_mirrored
        self._fork = None if arguments.mirror is None else arguments.mirror.fork_of(arguments.partition)
        self._reports = TransactionReports({arguments.topic: [arguments.partition]})

    @property
    def is_watching(self) -> bool:
        """True while an open transaction has to be watched."""
        return self._reports.is_watching

    def look(self, now: int) -> list[Effect]:
        if self._is_mirrored:
            return []
        if self._transactions.first_unstable_offset() is None and not self._reports.is_watching:
            return []
        return [*self._reports.look(self._transactions.open(), now)]

    def left_by_source(self) -> list[Marker]:
        """Return the aborts of transactions of the source that were open when this partition was promoted.

        The open transactions are a function of the log, so every start may write them.
        """
        if self._fork is None:
            return []
        open_now = self._transactions.open().items()
        fork_offset = self._fork.offset
        return [Marker(*key, committed=False) for key, first_offset in open_now if first_offset < fork_offset]

    def on_timer(self, now: int) -> list[Effect]:
        return [*self._reports.on_timer(now)]

    def on_outcome(self, event: Answered | Failed, now: int) -> list[Effect]:
        if not isinstance(event.key, ReportCall):
            return []  # of a fetch, when this replica was a follower
        return [*self._reports.on_outcome(event.key.transaction, event, now)]
