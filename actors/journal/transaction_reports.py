"""A participant's reports to the transaction coordinators: transactions that have been open for a while. Pure.

A producer names all participants when it ends a transaction; one that has died does not. So transactions open for
REPORT_AFTER_MS are reported by every incarnation, and repeatedly: the coordinator adds the participant and ends the
transaction by its timeout, or, if it has ended already, sends the marker. Owns a timer. Called by the machines of
partitions and of groups.

    opened -> (REPORT_AFTER_MS) -> reported -> Answered: again after REPORT_LATER_MS    Failed: after REPORT_AGAIN_MS
    any of them, when the transaction ends: forgotten
"""

from collections.abc import Iterable

from msgspec import Struct

from ...transport.addresses import transactions_address
from ...transport.machine import Answered, Call, Failed, LoopEffect, SetTimer
from ...transport.producer_ids import coordinator_of
from ...transport.protocol.message import Done, TopicPartitions
from ...transport.protocol.transactions import REPORT_AFTER_MS, AddToTransaction, TransactionId

REPORT_AGAIN_MS = 1_000
REPORT_LATER_MS = 30_000


class ReportTimer(Struct, frozen=True):
    """The time of the next report."""


class ReportCall(Struct, frozen=True):
    """The report of one transaction."""

    transaction: TransactionId


class TransactionReports:
    def __init__(self, partitions: TopicPartitions | None = None, groups: list[str] | None = None) -> None:
        """The partitions or groups of this participant."""
        self._partitions = partitions or {}
        self._groups = groups or []
        self._due: dict[TransactionId, int | None] = {}
        """Time of each open transaction's next report; None while one is in flight."""
        self._timer_at: int | None = None

    @property
    def is_watching(self) -> bool:
        return bool(self._due)

    def look(self, open_now: Iterable[TransactionId], now: int) -> list[LoopEffect]:
        """Replace the set of open transactions; a new one is reported after REPORT_AFTER_MS."""
        self._due = {key: self._due.get(key, now + REPORT_AFTER_MS) for key in open_now}
        return self._set_timer()

    def on_timer(self, now: int) -> list[LoopEffect]:
        self._timer_at = None
        effects: list[LoopEffect] = []
        for key, due in self._due.items():
            if due is not None and due <= now:
                self._due[key] = None
                effects.append(self._report(key))
        return effects + self._set_timer()

    def on_outcome(self, key: TransactionId, event: Answered | Failed, now: int) -> list[LoopEffect]:
        """Handle the outcome of the report of a transaction."""
        if key not in self._due:
            return []
        self._due[key] = now + (REPORT_LATER_MS if isinstance(event, Answered) else REPORT_AGAIN_MS)
        return self._set_timer()

    def _report(self, key: TransactionId) -> Call:
        coordinator = coordinator_of(key.producer_id)
        assert coordinator is not None, f"producer {key.producer_id} has no transactions"
        request = AddToTransaction(
            producer_id=key.producer_id,
            producer_epoch=key.producer_epoch,
            partitions=self._partitions,
            groups=self._groups,
        )
        return Call(ReportCall(key), transactions_address(coordinator), request, Done)

    def _set_timer(self) -> list[LoopEffect]:
        due = min((at for at in self._due.values() if at is not None), default=None)
        if due is None or (self._timer_at is not None and self._timer_at <= due):
            return []
        self._timer_at = due
        return [SetTimer(ReportTimer(), due)]
