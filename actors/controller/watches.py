"""Long polls on the catalog: parked until its topics change or the request times out. Pure.

Gateways route by it, coordinators assign by it. Only durable topics are reported.
"""

from msgspec import UNSET, UnsetType

from ...transport.machine import CancelTimer, Reply, Sender, SetTimer
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.topics import CatalogTopic, WatchCatalog, WatchCatalogReply
from ...transport.security.principals import SecurityTable
from .decisions import Decisions
from .effects import Effect
from .keys import WatchTimer

MAX_WATCHES = 10_000
"""Maximum number of parked watches; more are refused with OVERLOADED."""


class Watches:
    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._parked: dict[int, tuple[Sender, WatchCatalog]] = {}
        self._last_number = 0

    def on_watch(self, sender: Sender, request: WatchCatalog, now: int) -> list[Effect]:
        if request.after_version != self._version or request.max_wait_ms <= 0:
            return [Reply(sender, self._answer(request))]
        if len(self._parked) >= MAX_WATCHES:
            raise ProtocolError(ErrorCode.OVERLOADED, "too many watches are parked")
        self._last_number += 1
        self._parked[self._last_number] = (sender, request)
        return [SetTimer(WatchTimer(self._last_number), now + request.max_wait_ms)]

    def on_timer(self, number: int) -> list[Effect]:
        parked = self._parked.pop(number, None)
        return [] if parked is None else [Reply(parked[0], self._answer(parked[1]))]

    def forget(self, connection: bytes) -> list[Effect]:
        """Drop the watches of a closed connection."""
        gone = [number for number, (sender, _) in self._parked.items() if sender.route[0] == connection]
        for number in gone:
            del self._parked[number]
        return [CancelTimer(WatchTimer(number)) for number in gone]

    def on_changed(self) -> list[Effect]:
        """Answer the watches that have not seen the newly durable topics."""
        effects: list[Effect] = []
        for number, (sender, request) in list(self._parked.items()):
            if request.after_version != self._version:
                del self._parked[number]
                effects += [CancelTimer(WatchTimer(number)), Reply(sender, self._answer(request))]
        return effects

    @property
    def _version(self) -> int:
        return self._decisions.durable.topics_revision

    def _answer(self, request: WatchCatalog) -> WatchCatalogReply:
        entries = sorted(self._decisions.durable.topics.values(), key=lambda entry: entry.topic)
        topics = [
            CatalogTopic(
                entry.topic,
                entry.topic_id,
                entry.partitions,
                entry.config.max_message_bytes,
                entry.config.tracks_groups,
                entry.config.max_timestamp_ahead_ms,
            )
            for entry in entries
        ]
        durable = self._decisions.durable
        security: SecurityTable | UnsetType = UNSET
        if request.with_security:
            security = SecurityTable(principals=durable.principals, roles=durable.roles)
        return WatchCatalogReply(
            version=self._version, topics=topics, quotas=durable.quotas, security=security
        )
