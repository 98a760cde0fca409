"""A metadata store under test: proposals with their outcomes, and a mirror that holds the port's invariants.

Every event of the store passes `_check`: revisions rise, an Applied never precedes its Changed, and each proposal has
one outcome.
"""

import select
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from etcd_members import Members
from patience import TIMEOUT_S
from planaria.actors.metadata.entries import Entries
from planaria.actors.metadata.etcd.store import EtcdConfig, EtcdStore
from planaria.actors.metadata.store import (
    Applied,
    Change,
    Changed,
    Guard,
    MetadataStore,
    NotApplied,
    Outcome,
    Propose,
    Rejected,
    Session,
    SessionLost,
    State,
    StoreEvent,
    Unknown,
)


class StoreDriver:
    """`wait` lets the store work: until its descriptor is readable, or a simulated step."""

    def __init__(self, store: MetadataStore, wait: Callable[[], None]) -> None:
        self.store = store
        self._wait = wait
        self.mirror = Entries()
        self.events: list[StoreEvent] = []
        self.outcomes: dict[int, Outcome] = {}
        self.session: Session | None = None
        self._number = 0
        self._is_closed = False

    def load(self) -> "StoreDriver":
        self._check(self.store.load(lambda: None))
        return self

    def close(self) -> None:
        """Close the store, once."""
        if not self._is_closed:
            self._is_closed = True
            self.store.close()

    def begin(self, changes: Iterable[Change], guards: Iterable[Guard] = ()) -> int:
        """Propose without waiting for the outcome."""
        self._number += 1
        self.store.propose(Propose(self._number, tuple(changes), tuple(guards)))
        return self._number

    def propose(self, *changes: Change, guards: Iterable[Guard] = ()) -> Outcome:
        number = self.begin(changes, guards)
        self.until(lambda: number in self.outcomes)
        return self.outcomes[number]

    def until(self, is_met: Callable[[], Any]) -> None:
        ends_at = time.monotonic() + TIMEOUT_S
        self.poll()
        while not is_met():
            assert time.monotonic() < ends_at, self.events[-5:]
            self._wait()
            self.poll()

    def poll(self) -> None:
        for event in self.store.settle():
            self._check(event)

    def _check(self, event: StoreEvent) -> None:
        self.events.append(event)
        match event:
            case State():
                self.mirror = Entries(event.revision, dict(event.entries))
            case Changed():
                self.mirror.apply(event.revision, event.changes)
            case Applied(number=number, revision=revision):
                assert revision <= self.mirror.revision, "applied, and not shown"
                self._end(number, event)
            case Rejected(number=number) | NotApplied(number=number) | Unknown(number=number):
                self._end(number, event)
            case Session():
                self.session = event
            case SessionLost():
                self.session = None

    def _end(self, number: int, outcome: Outcome) -> None:
        assert number not in self.outcomes, "two outcomes of one proposal"
        self.outcomes[number] = outcome

    @property
    def values(self) -> dict[str, bytes]:
        return {key: entry.value for key, entry in self.mirror.by_key.items()}

    def revision_of(self, key: str) -> int:
        return self.mirror.by_key[key].modified


def open_etcd(members: Members, cluster: str, name: str = "n1", **options: Any) -> StoreDriver:
    config = EtcdConfig(endpoints=members.endpoints, cluster=cluster, name=name, **options)
    store = EtcdStore(config, uuid.uuid4().hex)
    return StoreDriver(store, lambda: _wait_readable(store)).load()


def _wait_readable(store: EtcdStore) -> None:
    assert store.descriptor is not None
    select.select([store.descriptor], [], [], 0.2)
