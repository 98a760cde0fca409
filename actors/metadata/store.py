"""The port of the metadata store: topics, groups, quotas and all else that outlives a process. Pure.

A store maps keys to values. Every applied proposal is one revision, and all users see the same revisions in the same
order. A value is a JSON document, so that a person can read the store. Three implementations: a file
(`store_file.py`), etcd (`etcd/store.py`), and etcd's client over a simulated etcd for tests; one suite holds all three
(`tests/metadata/test_conformance.py`).

    to the store                    from it
    load()                          State(revision, entries)                      once, at the start
    Propose(guards, changes)        Applied | Rejected | NotApplied | Unknown     one for each proposal
                                    Changed(revision, changes)                    in order, each once
                                    State(revision, entries)                      after a gap: everything, again
                                    Session(id, alive_until_ms) | SessionLost(id)

Invariants:

1. All changes of a proposal take effect, or none. They do so only if every guard holds at that revision.
2. Between two States, every revision that changed something arrives as one Changed, in rising order. A State replaces
   all that was known. Its revision may be lower than the last one: of a store that was restored from a backup.
3. The Changed of a proposal (or a State that includes it) arrives before its Applied.
4. Rejected and NotApplied are certain: the proposal has had no effect and never will. After Unknown it may have had
   one, or have it later; a Changed shows it, if so. A proposal takes effect once at most.
5. An entry put `in_session` vanishes with the session. SessionLost is certain. Before it, a session whose
   `alive_until_ms` has passed is in doubt: its entries may have vanished already.

A revision orders the changes of one store. It must never be stored in a value, or become an epoch: revisions go back
when a store is restored.
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from msgspec import Struct

from ...transport.protocol.errors import ErrorBody

MAX_CHANGES = 100
"""Maximum number of changes, and of guards, in one proposal. etcd's own limit is 128 by default."""
ABSENT = 0
"""The revision of a key that does not exist."""


class Entry(Struct, frozen=True):
    value: bytes
    created: int
    """The revision that created the key."""
    modified: int
    """The revision of its last change."""
    in_session: bool = False


class Guard(Struct, frozen=True):
    """Holds while the last change of `key` is that of `revision`; with ABSENT, while the key does not exist."""

    key: str
    revision: int
    of_creation: bool = False
    """True to compare the revision that created the key, whatever its value has become since."""

    def holds(self, entry: Entry | None) -> bool:
        if entry is None:
            return self.revision == ABSENT
        return self.revision == (entry.created if self.of_creation else entry.modified)


class Put(Struct, frozen=True):
    key: str
    value: bytes
    in_session: bool = False
    """True to have the entry removed with the session of the proposer."""


class Delete(Struct, frozen=True):
    """Remove a key; it does nothing if there is no such key."""

    key: str


Change: TypeAlias = Put | Delete


class Propose(Struct, frozen=True):
    """Make the changes, all or none, if every guard holds. At most MAX_CHANGES, with distinct keys."""

    number: int
    """Names the proposal in its outcome."""
    changes: tuple[Change, ...]
    guards: tuple[Guard, ...] = ()


class Applied(Struct, frozen=True):
    number: int
    revision: int


class Rejected(Struct, frozen=True):
    """A guard did not hold. `found` has the guarded keys as they were at `revision`; those that are absent are
    missing."""

    number: int
    revision: int
    found: dict[str, Entry]


class NotApplied(Struct, frozen=True):
    """The store refused the proposal: it has no room, or does not permit it."""

    number: int
    error: ErrorBody


class Unknown(Struct, frozen=True):
    """No answer came in time."""

    number: int


class Changed(Struct, frozen=True):
    """The changes of one revision. A Delete of a key that did not exist is not among them."""

    revision: int
    changes: tuple[Change, ...]


class State(Struct, frozen=True):
    revision: int
    entries: dict[str, Entry]


class Session(Struct, frozen=True):
    """The session lives at least until `alive_until_ms`, by the clock that also counts the machine's sleep; None: as
    long as the process."""

    session_id: int
    alive_until_ms: int | None


class SessionLost(Struct, frozen=True):
    session_id: int


Outcome: TypeAlias = Applied | Rejected | NotApplied | Unknown
StoreEvent: TypeAlias = Outcome | Changed | State | Session | SessionLost


class MetadataStore(Protocol):
    """A store as an actor's process holds it. All calls are made from the actor's thread."""

    @property
    def descriptor(self) -> int | None:
        """Return a file descriptor that is readable while `settle` has something to do by itself; None for a store
        that never has."""
        ...

    def load(self, progress: Callable[[], None]) -> State:
        """Return everything in the store; the first call. Calls `progress` now and then while it waits."""
        ...

    def propose(self, proposal: Propose) -> None:
        """Accept a proposal. Its outcome follows, from `settle` or later."""
        ...

    def settle(self) -> list[StoreEvent]:
        """Complete all that is possible in this turn, and return the events so far."""
        ...

    def alarms(self) -> tuple[str, ...]:
        """Return conditions for the operator, one line each."""
        ...

    def close(self) -> None: ...
