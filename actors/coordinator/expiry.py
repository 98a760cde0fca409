"""Expiry of the offsets of a group without members: `retention_ms` after the last use. Pure.

Owns the rule and a timer; the time of the group's last use is a record of the group (`unused`), so time passes while
the coordinator sleeps, is dead, or the broker is stopped. Use is a member, a commit, a reset, a transaction that moves
offsets. Called by machine.py: at the start before any request is answered, with every flush, and by its timer.

    used      --the last member left, or a commit without membership-->     unused since then
    unused    --a member joins-->                                           used
    unused    --retention_ms later, no transaction open-->                  expired: offsets and known topics are deleted

A share group's progress does not expire. A clock that was set back delays the expiry, by no more than `retention_ms`
from the next start on.
"""

from collections.abc import Iterable

from msgspec import Struct

from ...transport.machine import LoopEffect, SetTimer
from .decisions import Decisions
from .records import Change, MemberKey, OffsetKey, PendingKey

FOREVER = -1
POSTPONED_MS = 30_000
"""Delay of the expiry while a transaction is open."""
LONGEST_TIMER_MS = 24 * 3600 * 1000


class ExpiryTimer(Struct, frozen=True):
    """The time at which the offsets may have expired."""


class OffsetsExpiry:
    def __init__(self, retention_ms: int, decisions: Decisions) -> None:
        self._retention_ms = retention_ms
        self._decisions = decisions
        self._timer_at: int | None = None

    def start(self, now: int) -> list[LoopEffect]:
        """Expire offsets that are due. For a group recorded by a broker without expiry, the time starts now."""
        if self._retention_ms == FOREVER:
            # Use in the meantime is not recorded: should the offsets expire later, their time starts then.
            self._decisions.offsets.set_unused_since(None)
            return []
        since = self._decisions.state.unused_since_ms
        if self._has_offsets and (since is None or since > now):
            self._decisions.offsets.set_unused_since(now)
        return self._look(now)

    def on_timer(self, now: int) -> list[LoopEffect]:
        self._timer_at = None
        return self._look(now)

    def settle(self, gathered: Iterable[Change], now: int) -> list[LoopEffect]:
        """Record that the group is used, along with these changes."""
        if self._retention_ms == FOREVER:
            return []
        state = self._decisions.state
        if state.members:
            if state.unused_since_ms is not None:
                self._decisions.offsets.set_unused_since(None)
        elif any(_is_use(change) for change in gathered):
            self._decisions.offsets.set_unused_since(now)
        return self._set_timer(now)

    def due_in_ms(self, now: int) -> int | None:
        """Return the delay after which the group must be checked again even without a request."""
        due = self._due()
        return None if due is None else max(0, due - now)

    @property
    def _has_offsets(self) -> bool:
        state = self._decisions.state
        return bool(state.offsets) and not state.members

    def _due(self) -> int | None:
        since = self._decisions.state.unused_since_ms
        if self._retention_ms == FOREVER or since is None or not self._has_offsets:
            return None
        return since + self._retention_ms

    def _look(self, now: int) -> list[LoopEffect]:
        due = self._due()
        if due is not None and due <= now and not self._decisions.state.pending.open:
            self._decisions.offsets.expire_offsets()
        return self._set_timer(now)

    def _set_timer(self, now: int) -> list[LoopEffect]:
        due = self._due()
        if due is None:
            return []
        at = min(due, now + LONGEST_TIMER_MS) if due > now else now + POSTPONED_MS
        if self._timer_at is not None and self._timer_at <= at:
            return []
        self._timer_at = at
        return [SetTimer(ExpiryTimer(), at)]


def _is_use(change: Change) -> bool:
    if isinstance(change.key, OffsetKey):
        return change.value is not None
    return isinstance(change.key, MemberKey | PendingKey)
