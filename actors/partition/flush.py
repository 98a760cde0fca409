"""The flush policy of a topic: when an append is synced. Owns the timer of a delayed sync. Pure.

batch            at the end of every turn that appended, before anything is acknowledged
interval:<time>  acknowledged once written, synced this long after the first write since the last sync
os               acknowledged once written, synced by the kernel at any time, by the next checkpoint, and by a roll
"""

from dataclasses import dataclass

from ...transport.machine import SetTimer
from .effects import Effect, Sync
from .timers import SyncDue


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    is_every_turn: bool
    interval_ms: int | None = None

    @classmethod
    def parse(cls, flush: str) -> "FlushPolicy":
        """Parse a TopicConfig's `flush`, whose pattern was checked when the config was decoded."""
        name, _, interval = flush.partition(":")
        if not interval:
            return cls(is_every_turn=name == "batch")
        if interval.endswith("ms"):
            return cls(False, int(interval.removesuffix("ms")))
        return cls(False, int(interval.removesuffix("s")) * 1000)


class Flush:
    """The policy in force."""

    def __init__(self, flush: str) -> None:
        self._policy = FlushPolicy.parse(flush)
        self.is_every_turn = self._policy.is_every_turn
        """True if every turn that appends ends with a sync."""
        self.is_due = False
        """True while appends wait for the timer."""

    def configure(self, flush: str) -> list[Effect]:
        """Adopt another policy. Readers may rely on it from now on, also for records written under the old one."""
        self._policy = FlushPolicy.parse(flush)
        self.is_every_turn = self._policy.is_every_turn
        if not self.is_every_turn:
            return []
        self.is_due = False
        return [Sync()]

    def on_appended(self, now: int) -> list[Effect]:
        if self._policy.interval_ms is None or self.is_due:
            return []
        self.is_due = True
        return [SetTimer(SyncDue(), now + self._policy.interval_ms)]

    def on_timer(self) -> list[Effect]:
        was_due, self.is_due = self.is_due, False
        return [Sync()] if was_due else []
