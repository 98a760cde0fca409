"""Decide, record, apply: decisions that wait until the metadata store has them. Pure.

    gathered --TurnEnds: Propose--> in flight --Changed--> in the durable catalog --Applied--> the FollowUps are due
                                    in flight --Rejected, NotApplied, Unknown--> dropped, with all gathered ones
    gathered --another changes one of their keys--> dropped

Decisions build on one another before they are durable, so they are recorded and dropped together, in order: one
proposal at a time, for all decisions made meanwhile, guarded by the last change of every key that it touches. A
decision that is not durable yet must not become visible outside.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct

from ...transport.machine import Sender
from ..metadata.store import MAX_CHANGES, Change, Changed, Propose, State
from .catalog import Catalog, catalog_of
from .effects import Effect

FollowUpKind = Literal[
    "topic_created", "topic_altered", "topic_awaited", "topic_deleted", "remains_removed",
    "group_created", "group_deleted", "producer_ids_reserved", "companions_created", "quota_changed",
    "security_changed",
    "deployment_changed", "mirror_changed", "mirror_topic_changed", "mirror_sealed", "mirror_promoted",
    "sites_changed",
]  # fmt: skip


class FollowUp(Struct, frozen=True):
    """The work that follows once a decision is durable."""

    kind: FollowUpKind
    name: str = ""
    """The name of the topic, group or client; or the era of producer ids."""
    sender: Sender | None = None


class _Decision(Struct, frozen=True):
    changes: tuple[Change, ...]
    """None for a follow-up that waits for the decisions before it."""
    follow_up: FollowUp


class Decisions:
    def __init__(self, catalog: Catalog, numbers: Iterator[int]) -> None:
        """`numbers` are those of all proposals of this controller."""
        self.durable = catalog
        self.latest = catalog
        """The catalog with every decision so far; the next decision builds on it."""
        self._gathered: list[_Decision] = []
        self._in_flight: list[_Decision] = []
        self._overtaken: list[_Decision] = []
        self._has_landed = False
        """True if the durable catalog has the decisions in flight, whose Applied is still to come."""
        self._numbers = numbers

    def decide(self, catalog: Catalog, follow_up: FollowUp) -> list[Effect]:
        """Gather a decision. Its proposal follows at the end of the turn."""
        earlier = sum(len(decision.changes) for decision in self._not_durable())
        changes = catalog.changes[earlier:]
        assert changes
        self.latest = catalog
        self._gathered.append(_Decision(changes, follow_up))
        return []

    def _not_durable(self) -> list[_Decision]:
        """Return the decisions that the latest catalog has beyond the durable one."""
        return self._gathered if self._has_landed else [*self._in_flight, *self._gathered]

    def wait_for_latest(self, follow_up: FollowUp) -> bool:
        """Let a follow-up wait for all decisions so far. False: everything is durable, and it is due now."""
        decisions = self._gathered or self._in_flight
        if not decisions:
            return False
        decisions.append(_Decision((), follow_up))
        return True

    def propose(self) -> list[Effect]:
        """Return the proposal of the gathered decisions, unless an earlier one is in flight."""
        if self._in_flight or not self._gathered:
            return []
        count = _fitting(self._gathered)
        self._in_flight, self._gathered = self._gathered[:count], self._gathered[count:]
        changes = _merged(self._in_flight)
        return [Propose(next(self._numbers), tuple(changes.values()), self.durable.guards(changes))]

    def on_changed(self, event: Changed) -> tuple[Change, ...]:
        """Follow the store. Return the changes that no follow-up is going to act upon: of others, or unexpected."""
        is_own = not self._has_landed and self._is_own(event.changes)
        self._has_landed |= is_own
        self.durable = self.durable.applied(event.revision, event.changes)
        foreign = () if is_own else event.changes
        self._overtake(foreign)
        self._rebuild()
        return foreign

    def on_state(self, event: State) -> tuple[Change, ...]:
        """Start again from the whole state of the store, after a gap. Return its differences from the catalog so
        far."""
        before = self.durable
        self.durable = catalog_of(event, before.catalog_id).not_older_than(before)
        differences = before.differences(self.durable)
        self._overtake(differences)
        self._rebuild()
        return differences

    def _overtake(self, changes: Sequence[Change]) -> None:
        """Drop the gathered decisions if they were made on an older state of a key that they change.

        The guards of those in flight have been sent, and fail. These here would get guards of the new state.
        """
        keys = {change.key for change in changes}
        if keys.intersection(_merged(self._gathered)):
            self._overtaken += self._gathered
            self._gathered = []

    def overtaken(self) -> list[FollowUp]:
        """Return the follow-ups of the decisions that another change has overtaken."""
        taken, self._overtaken = self._overtaken, []
        return [decision.follow_up for decision in taken]

    def applied(self) -> list[FollowUp]:
        taken, self._in_flight = self._in_flight, []
        self._has_landed = False
        self._rebuild()
        return [decision.follow_up for decision in taken]

    def mistaken(self) -> tuple[Change, ...]:
        """Return the changes that were taken for the decisions in flight, which turned out not to be applied: another
        has made the same ones."""
        return tuple(_merged(self._in_flight).values()) if self._has_landed else ()

    def dropped(self) -> list[FollowUp]:
        taken = [*self._in_flight, *self._gathered]
        self._in_flight, self._gathered = [], []
        self._has_landed = False
        self._rebuild()
        return [decision.follow_up for decision in taken]

    def _is_own(self, changes: Sequence[Change]) -> bool:
        return bool(self._in_flight) and tuple(_merged(self._in_flight).values()) == tuple(changes)

    def _rebuild(self) -> None:
        """Put the decisions that are not durable on top of the durable catalog."""
        changes = tuple(change for decision in self._not_durable() for change in decision.changes)
        self.latest = self.durable.undecided().decided(changes) if changes else self.durable


def _merged(decisions: Sequence[_Decision]) -> dict[str, Change]:
    """Return the last change of each key."""
    return {change.key: change for decision in decisions for change in decision.changes}


def _fitting(decisions: Sequence[_Decision]) -> int:
    """Return the number of decisions that fit into one proposal."""
    changes = 0
    for count, decision in enumerate(decisions):
        changes += len(decision.changes)
        if changes > MAX_CHANGES:
            return count
    return len(decisions)
