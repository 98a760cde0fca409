"""Internal topics that are created when they are first needed, with the actors of their partitions. Pure.

    __delayed        schedulers of delayed messages         with the first delayed message
    __transactions   coordinators of transactions           with the first transactional id
    __audit          no actors: gateways write it           when a gateway that audits starts

ensure   decided -> durable -> partitions of the topic and one actor for each started -> done
         an audit whose retention differs from the broker's configuration is altered
"""

from collections.abc import Callable

from msgspec.structs import replace

from ...transport.addresses import AUDIT_TOPIC, DELAYED_TOPIC, TRANSACTIONS_TOPIC
from ...transport.machine import Reply, Sender
from ...transport.protocol.control import ChildSpec
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done
from ...transport.protocol.topics import TopicConfig
from .catalog import TopicEntry
from .child_commands import ChildCommands
from .children import partition_specs, scheduler_specs, transactions_specs
from .decisions import Decisions, FollowUp
from .effects import Effect
from .replication import Replication
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
"""As durable as possible, kept until newer records of their keys arrive."""
AUDIT_RETENTION_MS = 90 * 24 * 3600 * 1000
AUDIT_RETENTION_BYTES = 1024 * 1024 * 1024
AUDIT_CONFIG = replace(
    CONFIG,
    retention_ms=AUDIT_RETENTION_MS,
    retention_bytes=AUDIT_RETENTION_BYTES,
    cleanup="delete",
)

SPECS: dict[str, Callable[[TopicEntry], list[ChildSpec]]] = {
    DELAYED_TOPIC: scheduler_specs,
    TRANSACTIONS_TOPIC: transactions_specs,
    AUDIT_TOPIC: lambda _: [],
}


class InternalActors:
    def __init__(
        self,
        decisions: Decisions,
        commands: ChildCommands,
        room: Room,
        partitions: dict[str, int],
        replication: Replication,
        audit: TopicConfig = AUDIT_CONFIG,
    ) -> None:
        self._decisions = decisions
        self._commands = commands
        self._room = room
        self._partitions = partitions
        """The number of partitions of each topic, used when it is created."""
        self._replication = replication
        self._audit = audit

    def on_ensure(self, topic: str, sender: Sender, now: int) -> list[Effect]:
        if topic not in SPECS:
            raise ProtocolError(ErrorCode.INVALID_TOPIC, f"topic {topic[:250]!r} has no internal actors")
        latest = self._decisions.latest
        follow_up = FollowUp("companions_created", topic, sender)
        if topic not in latest.topics:
            config = self._audit if topic == AUDIT_TOPIC else CONFIG
            partitions = self._partitions.get(topic, 1)
            self._room.check(latest, partitions if topic == AUDIT_TOPIC else 2 * partitions)
            catalog = latest.with_topic(topic, partitions, self._replication.completed(config), now)
            return self._decisions.decide(catalog, follow_up)
        if topic == AUDIT_TOPIC:
            known = latest.topics[topic]
            wanted = replace(
                known.config,
                retention_ms=self._audit.retention_ms,
                retention_bytes=self._audit.retention_bytes,
            )
            if wanted != known.config:
                catalog = latest.with_topic_changed(topic, known.partitions, wanted)
                return self._decisions.decide(catalog, FollowUp("topic_altered", topic, sender))
        if self._decisions.wait_for_latest(follow_up):
            return []
        return [Reply(sender, Done())]

    def on_topic(self, topic: str) -> list[Effect]:
        """Start the actors of an internal topic that another controller has created."""
        return self.apply_created(FollowUp("companions_created", topic)) if topic in SPECS else []

    def apply_created(self, follow_up: FollowUp) -> list[Effect]:
        entry = self._decisions.durable.topics[follow_up.name]
        effects = self._commands.start([*partition_specs(entry), *SPECS[entry.topic](entry)])
        if follow_up.sender is not None:
            effects.append(Reply(follow_up.sender, Done()))
        return effects
