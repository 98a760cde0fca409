"""An actor's view of the topics: a long poll at the controller, repeated forever. Pure.

Owns the version it has seen, and drops it whenever a poll fails: a new controller counts versions from the start, so
the first request after a failure asks for all topics at once. Called by the actors' machines.

    polling --answered--> polling from that version
    polling --failed--> waiting --timer | controller is up--> polling for everything
"""

from msgspec import Struct

from ...transport.addresses import CONTROLLER, is_internal
from ...transport.machine import Answered, Call, Failed, LoopEffect, LoopEvent
from ...transport.protocol.topics import CatalogTopic, WatchCatalog, WatchCatalogReply
from .pause import Pause

MAX_WAIT_MS = 30_000
TIMEOUT_MS = MAX_WAIT_MS + 10_000


class TopicsCall(Struct, frozen=True):
    """The poll in flight."""


class TopicsWatch:
    def __init__(self) -> None:
        self._pause = Pause(TopicsCall(), CONTROLLER)

    def start(self) -> list[LoopEffect]:
        return [self._poll(WatchCatalog())]

    def handle(self, event: LoopEvent, now: int) -> tuple[list[LoopEffect], dict[str, CatalogTopic] | None]:
        """Return effects, and the topics except internal ones, when they have arrived."""
        match event:
            case Answered(key=TopicsCall(), reply=WatchCatalogReply() as reply):
                topics = {topic.topic: topic for topic in reply.topics if not is_internal(topic.topic)}
                again = WatchCatalog(after_version=reply.version, max_wait_ms=MAX_WAIT_MS)
                return [self._poll(again)], topics
            case Failed(key=TopicsCall()):
                return self._pause.begin(now), None
        if self._pause.is_over(event):
            return [self._pause.end, *self.start()], None
        return [], None

    def _poll(self, request: WatchCatalog) -> Call:
        return Call(TopicsCall(), CONTROLLER, request, WatchCatalogReply, timeout_ms=TIMEOUT_MS)
