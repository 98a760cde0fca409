"""The transactions of a coordinator as decided, ahead of the durable ones, and the changes to record. Pure.

Owns their timeouts and the index by producer id. Completions are recorded together with other changes: the next start
would find them out anyway. Called by requests.py and the machine.
"""

from msgspec import structs

from ...transport.protocol.transactions import ID_EXPIRY_MS
from .records import Change
from .transaction import Transaction


class DecidedTransactions:
    def __init__(self, transactions: dict[str, Transaction], now: int) -> None:
        self.transactions = transactions
        """By transactional id."""
        self._changes: dict[str, Change] = {}
        self._completions: dict[str, Change] = {}
        self._recording: set[str] = set()
        """Transactional ids whose changes are being appended."""
        self._deadlines: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        """Transactional ids by producer id."""
        self.committed = self.aborted = 0
        """Transactions completed since the start."""
        # Times may have been recorded before a reboot of the machine, by a clock that was hours ahead.
        for name, transaction in transactions.items():
            if transaction.changed_ms > now:
                transactions[name] = structs.replace(transaction, changed_ms=now)
            if transaction.state == "Ongoing":
                self._deadlines[name] = now + transaction.timeout_ms
            self._know(name, transaction)

    def _know(self, name: str, transaction: Transaction) -> None:
        before = self._deadlines.pop(name, None)
        if transaction.deadline_ms is not None:
            self._deadlines[name] = (
                transaction.deadline_ms if before is None else min(before, transaction.deadline_ms)
            )
        self._ids[transaction.producer_id] = name
        if transaction.ended is not None:
            self._ids[transaction.ended.producer_id] = name

    def id_of(self, producer_id: int) -> str | None:
        """Return the transactional id that has or had this producer id."""
        return self._ids.get(producer_id)

    @property
    def open_count(self) -> int:
        """Return the number of transactions that are open."""
        return sum(each.state == "Ongoing" for each in self.transactions.values())

    @property
    def change_count(self) -> int:
        return len(self._changes)

    def is_undurable(self, name: str) -> bool:
        """Return True if a crash may still undo the last decision."""
        return name in self._changes or name in self._recording

    @property
    def has_waiting_completions(self) -> bool:
        """True if completions wait that no other change will take along."""
        return bool(self._completions) and not self._changes

    def decide(self, name: str, transaction: Transaction) -> None:
        self._completions.pop(name, None)
        self._changes[name] = Change(name, transaction)
        self.transactions[name] = transaction
        self._know(name, transaction)

    def complete(self, name: str, now: int) -> None:
        """Note that every participant has its marker."""
        transaction = self.transactions[name] = self.transactions[name].completed(now)
        self.committed += transaction.state == "CompleteCommit"
        self.aborted += transaction.state == "CompleteAbort"
        self._completions[name] = Change(name, transaction)

    def record_completions(self) -> None:
        """Record the completions with the next flush, whether or not there is another change."""
        self._changes.update(self._completions)
        self._completions = {}

    def take(self) -> list[Change]:
        """Return the changes to record now."""
        changes = [*self._completions.values(), *self._changes.values()] if self._changes else []
        if changes:
            self._recording.update(change.transactional_id for change in changes)
            self._completions, self._changes = {}, {}
        return changes

    def on_durable(self, changes: list[Change]) -> None:
        self._recording.difference_update(change.transactional_id for change in changes)

    # Time

    def next_deadline(self) -> int | None:
        return min(self._deadlines.values(), default=None)

    def overdue(self, now: int) -> list[str]:
        """Return the transactions that have exceeded their timeout."""
        return [name for name, at in self._deadlines.items() if at <= now]

    def postpone(self, name: str, until: int) -> None:
        """Look at an overdue transaction again later."""
        self._deadlines[name] = until

    def forget_unused(self, now: int) -> None:
        for name, transaction in list(self.transactions.items()):
            is_busy = transaction.state == "Ongoing" or transaction.is_ending
            if not is_busy and transaction.changed_ms + ID_EXPIRY_MS <= now:
                assert transaction.moved("Dead", now).state == "Dead"
                self._completions.pop(name, None)
                self._changes[name] = Change(name, None)
                del self.transactions[name]
                self._ids = {known: other for known, other in self._ids.items() if other != name}
