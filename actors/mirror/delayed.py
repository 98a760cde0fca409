"""Delayed messages that wait at the source: they are not copied, so they are counted, and a promotion names them. Pure.

    state      left by
    waiting    DelayedTimer -> counting
    counting   a page -> the next one; the last, or the limit -> waiting; an error -> waiting, with the last count

One request at a time. Called by the mirror's machine.
"""

from collections import Counter
from collections.abc import Callable

from ...transport.machine import SetTimer
from ...transport.protocol.delayed import ListScheduled, ListScheduledReply
from .effects import AskSource, Effect
from .keys import DelayedKey, DelayedTimer

INTERVAL_MS = 5_000
PAGE_MESSAGES = 1_000
MAX_MESSAGES = 10_000
TIMEOUT_MS = 5_000


class DelayedMessages:
    def __init__(self, is_chosen: Callable[[str], bool]) -> None:
        self._is_chosen = is_chosen
        self._found: Counter[str] = Counter()
        self._seen = 0
        self.counts: dict[str, int] = {}
        """The messages for each topic that is copied, as last counted."""
        self.counted_at: int | None = None
        """The time of that; None: there was none yet."""

    def start(self) -> list[Effect]:
        self._found, self._seen = Counter(), 0
        return [self._ask(None)]

    def _ask(self, after: str | None) -> AskSource:
        request = ListScheduled(limit=PAGE_MESSAGES, after=after)
        return AskSource(DelayedKey(), request, ListScheduledReply, TIMEOUT_MS)

    def on_page(self, reply: ListScheduledReply, now: int) -> list[Effect]:
        self._found.update(each.topic for each in reply.messages if self._is_chosen(each.topic))
        self._seen += len(reply.messages)
        if reply.next is not None and self._seen < MAX_MESSAGES:
            return [self._ask(reply.next)]
        self.counts, self.counted_at = dict(self._found), now
        return self._pause(now)

    def on_failed(self, now: int) -> list[Effect]:
        """Keep the last count: the source may be gone, and the copy is promoted without it."""
        return self._pause(now)

    def _pause(self, now: int) -> list[Effect]:
        return [SetTimer(DelayedTimer(), now + INTERVAL_MS)]
