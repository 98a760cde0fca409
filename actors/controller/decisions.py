"""Decide, record, apply: changes of the catalog that wait to be durable. Pure.

    decided --SaveCatalog--> CatalogSaved     the change is the catalog; its FollowUp is due
                             CatalogNotSaved  the change is dropped; the requester gets the error

Decisions build on one another before they are durable, so they are saved and dropped together, in order. A decision
that is not durable yet must not become visible outside.
"""

from typing import Literal

from msgspec import Struct

from ...transport.machine import Sender
from .catalog import Catalog
from .effects import Effect, SaveCatalog

FollowUpKind = Literal[
    "topic_created", "topic_altered", "topic_awaited", "topic_deleted", "remains_removed",
    "group_created", "group_deleted", "producer_ids_reserved", "companions_created", "quota_changed",
]  # fmt: skip


class FollowUp(Struct, frozen=True):
    """The work that follows once a decision is durable."""

    kind: FollowUpKind
    name: str = ""
    """The name of the topic, group or client; or the era of producer ids."""
    sender: Sender | None = None


class Decisions:
    def __init__(self, catalog: Catalog) -> None:
        self.durable = catalog
        self.latest = catalog
        """The catalog with every decision so far; the next decision builds on it."""
        self._waiting: list[FollowUp] = []

    def decide(self, catalog: Catalog, follow_up: FollowUp) -> list[Effect]:
        assert catalog.revision > self.latest.revision
        self.latest = catalog
        self._waiting.append(follow_up)
        return [SaveCatalog(catalog)]

    def wait_for_latest(self, follow_up: FollowUp) -> bool:
        """Let a follow-up wait for all decisions so far. False: everything is durable, and it is due now."""
        if not self._waiting:
            return False
        self._waiting.append(follow_up)
        return True

    def saved(self, revision: int) -> list[FollowUp]:
        # The process saves the newest catalog of a turn, and turns do not overlap.
        assert revision == self.latest.revision, (revision, self.latest.revision)
        self.durable = self.latest
        return self._take_all()

    def not_saved(self) -> list[FollowUp]:
        self.latest = self.durable
        return self._take_all()

    def _take_all(self) -> list[FollowUp]:
        taken, self._waiting = self._waiting, []
        return taken
