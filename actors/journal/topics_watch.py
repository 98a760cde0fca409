"""An actor's view of the topics: a long poll at the controller, repeated forever. Pure.

Owns the version it has seen, and drops it whenever a poll fails: the next controller may have a catalog that was
restored meanwhile, so the first request after a failure asks for all topics at once. Called by the actors' machines.

    asking for everything --answered--> polling from that version, and from each answer's
                                        polling --failed--> asking for everything, however long the controller is down
"""

from msgspec import Struct

from ...transport.addresses import CONTROLLER, is_internal
from ...transport.machine import Answered, Call, Failed, LoopEffect, LoopEvent
from ...transport.protocol.topics import CatalogTopic, WatchCatalog, WatchCatalogReply

MAX_WAIT_MS = 30_000
TIMEOUT_MS = MAX_WAIT_MS + 10_000


class TopicsCall(Struct, frozen=True):
    """The poll in flight."""


class TopicsWatch:
    def start(self) -> list[LoopEffect]:
        return [self._poll(WatchCatalog(), is_endless=True)]

    def handle(self, event: LoopEvent) -> tuple[list[LoopEffect], dict[str, CatalogTopic] | None]:
        """Return effects, and the topics except internal ones, when they have arrived."""
        match event:
            case Answered(key=TopicsCall(), reply=WatchCatalogReply() as reply):
                topics = {topic.topic: topic for topic in reply.topics if not is_internal(topic.topic)}
                return [
                    self._poll(WatchCatalog(after_version=reply.version, max_wait_ms=MAX_WAIT_MS))
                ], topics
            case Failed(key=TopicsCall()):
                return self.start(), None
        return [], None

    def _poll(self, request: WatchCatalog, *, is_endless: bool = False) -> Call:
        return Call(
            TopicsCall(),
            CONTROLLER,
            request,
            WatchCatalogReply,
            timeout_ms=TIMEOUT_MS,
            is_endless=is_endless,
        )
