"""The topics needed for routing, kept current by a long poll on the controller. Pure.

    watching   one `watch_catalog` is always in flight, or waits for the controller
    asking     a request names a topic or partition that the table lacks: the controller is asked once; requests
               that came before it is asked wait for its answer, bounded by the tickets

While the controller is down the table stays in use.
"""

from collections.abc import Mapping

from msgspec import Struct

from ...transport.addresses import CONTROLLER
from ...transport.machine import Call, Effect
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.message import Request
from ...transport.protocol.topics import CatalogTopic, WatchCatalog, WatchCatalogReply
from .keys import TableQuestion, TableWatch
from .waiting import Attempt

WATCH_WAIT_MS = 30_000
WATCH_SLACK_MS = 5_000
ASK_TIMEOUT_MS = 5_000


class TableChange(Struct, frozen=True):
    """The topics that differ in a new table."""

    came: frozenset[str]
    went: frozenset[str]
    """A topic that was deleted and created again is in both."""
    changed: frozenset[str]


class TopicTable:
    def __init__(self, *, with_security: bool = False) -> None:
        """`with_security`: watch the principals and rules, too."""
        self._with_security = with_security
        self._topics: dict[str, CatalogTopic] = {}
        self._version: int | None = None
        self._is_watching = False
        self._is_asking = False
        self._asked: list[Attempt] = []
        self._to_ask: list[Attempt] = []

    @property
    def is_loaded(self) -> bool:
        return self._version is not None

    @property
    def names(self) -> list[str]:
        return sorted(self._topics)

    def get(self, topic: str) -> CatalogTopic | None:
        return self._topics.get(topic)

    @property
    def topics(self) -> Mapping[str, CatalogTopic]:
        return self._topics

    def partitions(self, topic: str) -> int:
        """Return the number of a topic's partitions; 0 if it does not exist."""
        entry = self._topics.get(topic)
        return 0 if entry is None else entry.partitions

    def watch(self) -> list[Effect]:
        if self._is_watching:
            return []
        self._is_watching = True
        request = WatchCatalog(
            after_version=self._version, max_wait_ms=WATCH_WAIT_MS, with_security=self._with_security
        )
        timeout_ms = WATCH_WAIT_MS + WATCH_SLACK_MS
        return [
            Call(TableWatch(), CONTROLLER, request, WatchCatalogReply, timeout_ms=timeout_ms, is_endless=True)
        ]

    def watch_again(self) -> list[Effect]:
        self._is_watching = False
        return self.watch()

    def ask(self, attempt: Attempt) -> list[Effect]:
        """Let the controller's answer decide about a request."""
        self._to_ask.append(attempt)
        return self._ask()

    def on_asked(self) -> tuple[list[Attempt], list[Effect]]:
        """Return the answered attempts, and the next question for those that came meanwhile."""
        self._is_asking = False
        answered, self._asked = self._asked, []
        return answered, self._ask()

    def update(self, reply: WatchCatalogReply) -> TableChange:
        before = self._topics
        self._topics = {entry.topic: entry for entry in reply.topics}
        self._version = reply.version
        both = before.keys() & self._topics.keys()
        replaced = {name for name in both if before[name].topic_id != self._topics[name].topic_id}
        return TableChange(
            came=frozenset((self._topics.keys() - before.keys()) | replaced),
            went=frozenset((before.keys() - self._topics.keys()) | replaced),
            changed=frozenset(name for name in both if before[name] != self._topics[name]),
        )

    def _ask(self) -> list[Effect]:
        if self._is_asking or not self._to_ask:
            return []
        self._is_asking = True
        self._asked, self._to_ask = self._to_ask, []
        return [
            Call(
                TableQuestion(),
                CONTROLLER,
                WatchCatalog(with_security=self._with_security),
                WatchCatalogReply,
                timeout_ms=ASK_TIMEOUT_MS,
            )
        ]


def cannot_tell(request: Request, error: ErrorBody) -> ErrorBody:
    """Return the answer to a request with an unknown topic while the controller cannot be asked."""
    topic = getattr(request, "topic", None) or "asked for"
    message = f"it is currently unknown whether topic {topic[:250]!r} exists: {error.message}"
    return ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, message, True)
