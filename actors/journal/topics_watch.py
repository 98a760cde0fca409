"""The group's view of the topics: a long poll at the controller, repeated forever.

Owns the version it has seen, and drops it whenever a poll fails: a new controller counts versions from the start, so
the first request after a failure asks for all topics at once. Called by machine.py.

    asking --answered--> asking from that version
    asking --failed--> waiting --timer | controller is up--> asking for everything
"""

from ...transport.addresses import CONTROLLER, is_internal
from ...transport.machine import (
    Answered,
    Call,
    Effect,
    Event,
    Failed,
)
from ...transport.protocol.topics import CatalogTopic, WatchCatalog, WatchCatalogReply
from ..journal.pause import Pause

WATCH = "watch"
MAX_WAIT_MS = 30_000
TIMEOUT_MS = MAX_WAIT_MS + 10_000


class TopicsWatch:
    def __init__(self) -> None:
        self._pause = Pause("watch_retry", CONTROLLER)

    def start(self) -> list[Effect]:
        return [self._ask(WatchCatalog())]

    def handle(self, event: Event, now: int) -> tuple[list[Effect], dict[str, CatalogTopic] | None]:
        """Return effects, and the topics except internal ones, when they have arrived."""
        if isinstance(event, Answered) and event.key == WATCH:
            reply: WatchCatalogReply = event.reply
            topics = {entry.topic: entry for entry in reply.topics if not is_internal(entry.topic)}
            again = WatchCatalog(after_version=reply.version, max_wait_ms=MAX_WAIT_MS)
            return [self._ask(again)], topics
        if isinstance(event, Failed) and event.key == WATCH:
            return self._pause.begin(now), None
        if self._pause.is_over(event):
            return [self._pause.end, *self.start()], None
        return [], None

    def _ask(self, request: WatchCatalog) -> Call:
        return Call(WATCH, CONTROLLER, request, WatchCatalogReply, timeout_ms=TIMEOUT_MS)
