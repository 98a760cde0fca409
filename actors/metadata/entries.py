"""The entries of a store at one revision, and the rules by which a proposal changes them. Pure.

Called by the file's store, and by everything that mirrors a store or simulates one.
"""

from collections.abc import Iterable

from .store import Applied, Change, Changed, Delete, Entry, Guard, Propose, Put, Rejected, State


class Entries:
    def __init__(self, revision: int = 0, entries: dict[str, Entry] | None = None) -> None:
        self.revision = revision
        self.by_key = entries or {}

    def copy(self) -> "Entries":
        return Entries(self.revision, dict(self.by_key))

    def state(self) -> State:
        return State(self.revision, dict(self.by_key))

    def decide(self, proposal: Propose) -> list[Changed | Applied | Rejected]:
        """Apply the proposal if its guards hold, and return the events that tell it."""
        if not self.hold(proposal.guards):
            keys = {guard.key for guard in proposal.guards}
            found = {key: self.by_key[key] for key in keys if key in self.by_key}
            return [Rejected(proposal.number, self.revision, found)]
        effective = tuple(
            change for change in proposal.changes if isinstance(change, Put) or change.key in self.by_key
        )
        self.apply(self.revision + 1, effective)
        return [Changed(self.revision, effective), Applied(proposal.number, self.revision)]

    def hold(self, guards: Iterable[Guard]) -> bool:
        return all(guard.holds(self.by_key.get(guard.key)) for guard in guards)

    def apply(self, revision: int, changes: Iterable[Change]) -> None:
        assert revision > self.revision, (revision, self.revision)
        self.revision = revision
        for change in changes:
            match change:
                case Put(key=key, value=value, in_session=in_session):
                    before = self.by_key.get(key)
                    created = revision if before is None else before.created
                    self.by_key[key] = Entry(value, created, revision, in_session)
                case Delete(key=key):
                    self.by_key.pop(key, None)
