"""The internal topic of delayed messages and its schedulers: created together when the first message is delayed. Pure.

ensure   decided -> durable -> partitions of `__delayed` and one scheduler for each ordered -> done
"""

from ...transport.addresses import DELAYED_TOPIC
from ...transport.machine import Effect, Reply, Sender
from ...transport.protocol.message import Done
from ...transport.protocol.topics import TopicConfig
from .children import partition_specs, scheduler_specs
from .decisions import Consequence, Decisions
from .orders import Orders

DELAYED_CONFIG = TopicConfig(
    retention_ms=-1,
    retention_bytes=-1,
    segment_bytes=16 * 1024 * 1024,
    flush="batch",
    max_message_bytes=32 * 1024 * 1024,
    cleanup="compact",
)
"""As durable as records can be, kept until they are delivered; what was delivered goes by compaction."""


class Delayed:
    def __init__(self, decisions: Decisions, orders: Orders, partitions: int) -> None:
        self._decisions = decisions
        self._orders = orders
        self._partitions = partitions

    def on_ensure(self, asker: Sender) -> list[Effect]:
        latest = self._decisions.latest
        consequence = Consequence("delayed_created", DELAYED_TOPIC, asker)
        if DELAYED_TOPIC not in latest.topics:
            catalog = latest.with_topic(DELAYED_TOPIC, self._partitions, DELAYED_CONFIG)
            return self._decisions.decide(catalog, consequence)
        if self._decisions.wait_for_latest(consequence):
            return []
        return [Reply(asker, Done())]

    def apply_created(self, consequence: Consequence) -> list[Effect]:
        entry = self._decisions.durable.topics[DELAYED_TOPIC]
        effects = self._orders.start([*partition_specs(entry), *scheduler_specs(entry)])
        if consequence.asker is not None:
            effects.append(Reply(consequence.asker, Done()))
        return effects
