"""Internal topics whose partitions have an actor each, created together when they are first needed. Pure.

    __delayed        schedulers of delayed messages         with the first delayed message
    __transactions   coordinators of transactions           with the first transactional id

ensure   decided -> durable -> partitions of the topic and one actor for each ordered -> done
"""

from collections.abc import Callable

from ...transport.addresses import DELAYED_TOPIC, TRANSACTIONS_TOPIC
from ...transport.machine import Effect, Reply, Sender
from ...transport.protocol.control import ChildSpec
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done
from ...transport.protocol.topics import TopicConfig
from .catalog import TopicEntry
from .children import partition_specs, scheduler_specs, transactions_specs
from .decisions import Consequence, Decisions
from .orders import Orders
from .room import Room

CONFIG = TopicConfig(
    retention_ms=-1,
    retention_bytes=-1,
    segment_bytes=16 * 1024 * 1024,
    flush="batch",
    max_message_bytes=32 * 1024 * 1024,
    max_timestamp_ahead_ms=-1,
    cleanup="compact",
)
"""As durable as records can be, kept until newer ones of their keys come."""

SPECS: dict[str, Callable[[TopicEntry], list[ChildSpec]]] = {
    DELAYED_TOPIC: scheduler_specs,
    TRANSACTIONS_TOPIC: transactions_specs,
}


class Companions:
    def __init__(self, decisions: Decisions, orders: Orders, room: Room, partitions: dict[str, int]) -> None:
        self._decisions = decisions
        self._orders = orders
        self._room = room
        self._partitions = partitions
        """Of each topic, when it is created."""

    def on_ensure(self, topic: str, asker: Sender, now: int) -> list[Effect]:
        if topic not in SPECS:
            raise ProtocolError(ErrorCode.INVALID_TOPIC, f"no actors belong to {topic[:250]!r}")
        latest = self._decisions.latest
        consequence = Consequence("companions_created", topic, asker)
        if topic not in latest.topics:
            self._room.check(latest, 2 * self._partitions[topic])
            catalog = latest.with_topic(topic, self._partitions[topic], CONFIG, now)
            return self._decisions.decide(catalog, consequence)
        if self._decisions.wait_for_latest(consequence):
            return []
        return [Reply(asker, Done())]

    def apply_created(self, consequence: Consequence) -> list[Effect]:
        entry = self._decisions.durable.topics[consequence.name]
        effects = self._orders.start([*partition_specs(entry), *SPECS[entry.topic](entry)])
        if consequence.asker is not None:
            effects.append(Reply(consequence.asker, Done()))
        return effects
