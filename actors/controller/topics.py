"""Creating, altering and deleting topics. Pure.

    create   decided -> durable -> partitions started -> all up (or timeout) -> described to the requester
    alter    decided -> durable -> new specs sent, running partitions notified -> as above
    delete   decided -> durable -> partitions stopped -> files removed -> catalog entry removed -> done

A deletion interrupted by a crash continues at the next start: the catalog names the topics being removed.
"""

import msgspec
from msgspec import UNSET

from ...transport.addresses import DIVERGED_PREFIX, Address, is_internal
from ...transport.machine import Cast, Reply, Sender, SetTimer
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.message import Done
from ...transport.protocol.mirrored import TopicMirror
from ...transport.protocol.mirrors import MirrorTopic
from ...transport.protocol.topics import (
    AlterTopic,
    ConfigurePartition,
    CreateTopic,
    DeleteTopic,
    ListTopicsReply,
    TopicConfig,
    TopicConfigChange,
    TopicSummary,
)
from .catalog import Catalog, TopicEntry, put
from .child_commands import ChildCommands
from .children import partition_addresses, partition_specs
from .decisions import Decisions, FollowUp
from .descriptions import Descriptions
from .effects import RETRY_MS, Effect, RemoveTopic
from .keys import RemainsTimer
from .names import check_topic_name
from .peers import Peers
from .replication import Replication
from .room import Room
from .sites import sites_of


class Topics:
    def __init__(
        self,
        decisions: Decisions,
        commands: ChildCommands,
        peers: Peers,
        descriptions: Descriptions,
        room: Room,
        defaults: TopicConfig,
        disk_reserve_bytes: int,
        partition_idle_ms: int,
        replication: Replication,
    ) -> None:
        self._decisions = decisions
        self._commands = commands
        self._peers = peers
        self._descriptions = descriptions
        self._room = room
        self._defaults = defaults
        self._disk_reserve_bytes = disk_reserve_bytes
        self._partition_idle_ms = partition_idle_ms
        self._replication = replication
        self._altered: dict[Address, str] = {}
        """Topics by address of partitions that may have been started with an older configuration."""
        self._stopping: dict[str, tuple[str, set[Address]]] = {}
        """Ids and addresses that still have to stop, by deleted topic."""
        self._deleters: dict[str, Sender] = {}

    def on_create(self, sender: Sender, request: CreateTopic, now: int) -> list[Effect]:
        self._descriptions.check_room()
        check_topic_name(request.topic)
        latest = self._decisions.latest
        if request.topic in latest.removing:
            message = f"topic {request.topic!r} is being deleted"
            raise ProtocolError(ErrorCode.TOPIC_EXISTS, message, retriable=True)
        if request.topic in latest.topics:
            return self._on_existing(sender, request, now)
        self._room.check_partitions(latest, request.partitions)
        config = self._replication.completed(merge(self._defaults, request.config))
        follow_up = FollowUp("topic_created", request.topic, sender)
        return self._decisions.decide(
            latest.with_topic(request.topic, request.partitions, config, now), follow_up
        )

    def on_mirrored(
        self, sender: Sender, request: MirrorTopic, mirror: TopicMirror, now: int
    ) -> list[Effect]:
        """Create the copy of a topic, with the source's id."""
        self._descriptions.check_room()
        latest = self._decisions.latest
        if request.topic in latest.removing:
            message = f"topic {request.topic!r} is being deleted"
            raise ProtocolError(ErrorCode.TOPIC_EXISTS, message, retriable=True)
        self._room.check_partitions(latest, request.partitions)
        # How often a topic is copied within a cluster is a matter of that cluster.
        config = self._replication.completed(
            msgspec.structs.replace(request.config, replication_factor=0, min_in_sync_replicas=0)
        )
        catalog = latest.with_topic(
            request.topic, request.partitions, config, now, topic_id=request.topic_id, mirror=mirror
        )
        return self._decisions.decide(catalog, FollowUp("topic_created", request.topic, sender))

    def on_mirrored_again(self, sender: Sender, request: MirrorTopic, now: int) -> list[Effect]:
        """Follow the source's configuration, and its number of partitions."""
        self._descriptions.check_room()
        latest = self._decisions.latest
        entry = latest.topics[request.topic]
        config = msgspec.structs.replace(
            request.config,
            replication_factor=entry.config.replication_factor,
            min_in_sync_replicas=entry.config.min_in_sync_replicas,
        )
        assert entry.mirror is not None
        mirror = msgspec.structs.replace(
            entry.mirror, source_forks=request.forks or entry.mirror.source_forks
        )
        if (config, request.partitions, mirror) == (entry.config, entry.partitions, entry.mirror):
            return self.awaited(sender, request.topic, now)
        self._room.check_partitions(latest, request.partitions - entry.partitions)
        changed = msgspec.structs.replace(entry, partitions=request.partitions, config=config, mirror=mirror)
        catalog = latest.decided((put(f"topics/{request.topic}", changed),))
        return self._decisions.decide(catalog, FollowUp("topic_altered", request.topic, sender))

    def _on_existing(self, sender: Sender, request: CreateTopic, now: int) -> list[Effect]:
        if not request.if_not_exists:
            raise ProtocolError(ErrorCode.TOPIC_EXISTS, f"topic {request.topic!r} exists")
        return self.awaited(sender, request.topic, now)

    def awaited(self, sender: Sender, topic: str, now: int) -> list[Effect]:
        """Describe a topic once everything decided so far is durable, and its partitions are up."""
        follow_up = FollowUp("topic_awaited", topic, sender)
        if self._decisions.wait_for_latest(follow_up):
            return []
        return self.apply_awaited(follow_up, now)

    def on_alter(self, sender: Sender, request: AlterTopic) -> list[Effect]:
        self._descriptions.check_room()
        entry = known_topic(self._decisions.latest, request.topic)
        _check_internal_change(request)
        if entry.mirror is not None and not entry.mirror.is_writable:
            message = (
                f"topic {request.topic!r} is a mirror, with the configuration of its source: alter that topic"
            )
            raise ProtocolError(ErrorCode.TOPIC_IS_MIRRORED, message, retriable=False)
        partitions = entry.partitions if request.partitions is None else request.partitions
        if partitions < entry.partitions:
            raise ProtocolError(
                ErrorCode.INVALID_CONFIG,
                f"partitions: topic {request.topic!r} has {entry.partitions} partitions, "
                f"which cannot be reduced to {partitions} because records would be lost; create another topic instead",
            )
        self._room.check_partitions(self._decisions.latest, partitions - entry.partitions)
        factor = entry.config.replication_factor or 1
        config = self._replication.changed(merge(entry.config, request.config), factor)
        _check_key_versions(entry, config, partitions)
        catalog = self._decisions.latest.with_topic_changed(request.topic, partitions, config)
        return self._decisions.decide(catalog, FollowUp("topic_altered", request.topic, sender))

    def on_delete(self, sender: Sender, request: DeleteTopic) -> list[Effect]:
        known_topic(self._decisions.latest, request.topic)
        if not request.topic.startswith(DIVERGED_PREFIX):
            refuse_internal(request.topic)
        _check_not_needed(self._decisions.latest, request.topic)
        catalog = self._decisions.latest.without_topic(request.topic)
        return self._decisions.decide(catalog, FollowUp("topic_deleted", request.topic, sender))

    def apply_created(self, follow_up: FollowUp, now: int) -> list[Effect]:
        entry = self._decisions.durable.topics.get(follow_up.name)
        ordered = self._start(entry) if entry is not None else []
        return ordered + self.apply_awaited(follow_up, now)

    def apply_altered(self, follow_up: FollowUp, now: int) -> list[Effect]:
        """Send new specs, so that restarts use the change, and notify the running partitions at once."""
        entry = self._decisions.durable.topics.get(follow_up.name)
        effects = [] if entry is None else self.configure(entry)
        return effects + self.apply_awaited(follow_up, now)

    def configure(self, entry: TopicEntry) -> list[Effect]:
        """Send new specs, and notify the running partitions."""
        effects = self._start(entry)
        for address in partition_addresses(entry):
            self._altered[address] = entry.topic
            if self._peers.is_up(address):
                effects.append(Cast(address, configuration(entry)))
        return effects

    def configure_all_that_run(self) -> None:
        """Have every partition configured when it is reported as up."""
        for entry in self._decisions.durable.topics.values():
            self._altered.update((address, entry.topic) for address in partition_addresses(entry))

    def _start(self, entry: TopicEntry) -> list[Effect]:
        return self._commands.start(partition_specs(entry, self._disk_reserve_bytes, self._partition_idle_ms))

    def apply_deleted(self, follow_up: FollowUp) -> list[Effect]:
        if follow_up.sender is not None:
            self._deleters[follow_up.name] = follow_up.sender
        told = self._descriptions.on_deleted(follow_up.name)
        if follow_up.name not in self._decisions.durable.removing:
            return told + self.apply_remains_removed(follow_up.name)  # another controller was faster
        return told + self.remove(follow_up.name)

    def remove(self, topic: str) -> list[Effect]:
        """Stop the processes of a deleted topic; its files are removed when the last one is gone."""
        entry = self._decisions.durable.removing[topic]
        addresses = partition_addresses(entry)
        self._stopping[topic] = (entry.topic_id, set(addresses))
        for address in addresses:
            self._altered.pop(address, None)
        return self._commands.stop(addresses)

    def on_stopped(self, address: Address) -> list[Effect]:
        for topic, (topic_id, addresses) in self._stopping.items():
            if address in addresses:
                addresses.discard(address)
                self._peers.forget(address)
                if addresses:
                    return []
                del self._stopping[topic]
                return [RemoveTopic(topic, topic_id)]
        return []

    def on_files_removed(self, topic: str) -> list[Effect]:
        if topic not in self._decisions.latest.removing:
            return self.apply_remains_removed(topic)  # another controller was first
        catalog = self._decisions.latest.without_remains(topic)
        return self._decisions.decide(catalog, FollowUp("remains_removed", topic))

    def apply_remains_removed(self, topic: str) -> list[Effect]:
        sender = self._deleters.pop(topic, None)
        return [] if sender is None else [Reply(sender, Done())]

    def retry_remains(self, topic: str, now: int) -> list[Effect]:
        """Retry: there was no room to record that the files are gone. No request waits for that any longer."""
        return [SetTimer(RemainsTimer(topic), now + RETRY_MS), *self.apply_remains_removed(topic)]

    def on_files_left(self, topic: str, error: ErrorBody) -> list[Effect]:
        """End a deletion whose files remain: the topic is gone for all clients, and the next start retries."""
        sender = self._deleters.pop(topic, None)
        return [] if sender is None else [Reply(sender, error)]

    def on_up(self, address: Address) -> list[Effect]:
        """Configure a partition that may have been started with an older configuration."""
        entry = self._decisions.durable.topics.get(self._altered.get(address, ""))
        return [] if entry is None else [Cast(address, configuration(entry))]

    def apply_awaited(self, follow_up: FollowUp, now: int) -> list[Effect]:
        """Answer once the partitions of the created topic are up."""
        if follow_up.sender is None:
            return []
        entry = self._decisions.durable.topics.get(follow_up.name)
        if entry is None:
            error = ErrorBody(ErrorCode.UNKNOWN_TOPIC, f"topic {follow_up.name!r} was deleted")
            return [Reply(follow_up.sender, error)]
        return self._descriptions.describe_when_up(follow_up.sender, entry, now)


def configuration(entry: TopicEntry) -> ConfigurePartition:
    return ConfigurePartition(config=entry.config, mirror=entry.mirror)


def merge(config: TopicConfig, change: TopicConfigChange) -> TopicConfig:
    fields = {field: getattr(change, field) for field in change.__struct_fields__}
    chosen = {field: value for field, value in fields.items() if value is not msgspec.UNSET}
    return msgspec.structs.replace(config, **chosen)


def _check_key_versions(entry: TopicEntry, config: TopicConfig, partitions: int) -> None:
    """Refuse a change that would lose the versions of keys, or begin them in the middle of a log."""
    if config.key_versions != entry.config.key_versions:
        message = "key_versions: can only be set when a topic is created; create another topic instead"
        raise ProtocolError(ErrorCode.INVALID_CONFIG, message)
    if config.key_versions and partitions != entry.partitions:
        message = "partitions: a topic with key_versions gets no more, for keys would move; create another topic instead"
        raise ProtocolError(ErrorCode.INVALID_CONFIG, message)


def topics_of(catalog: Catalog, *, internal: bool) -> ListTopicsReply:
    """Return the names of the topics; of internal ones only if `internal`."""
    entries = sorted(catalog.topics.values(), key=lambda entry: entry.topic)
    chosen = [entry for entry in entries if internal or not is_internal(entry.topic)]
    return ListTopicsReply(
        topics=[TopicSummary(entry.topic, entry.partitions) for entry in chosen],
        sites=sites_of(catalog) or UNSET,
    )


def known_topic(catalog: Catalog, topic: str) -> TopicEntry:
    entry = catalog.topics.get(topic)
    if entry is None:
        raise ProtocolError(ErrorCode.UNKNOWN_TOPIC, f"there is no topic {topic[:250]!r}")
    return entry


def _check_not_needed(catalog: Catalog, topic: str) -> None:
    """Refuse to delete the records that a fail-back sets aside before it is complete."""
    for entry in catalog.topics.values():
        mirror = entry.mirror
        if mirror is not None and mirror.state == "rejoining" and mirror.diverged == topic:
            message = (
                f"the fail-back of {entry.topic} stores records in {topic}: delete it once {entry.topic} follows, as"
                " mirror status shows"
            )
            raise ProtocolError(ErrorCode.CONFLICT, message)


def _check_internal_change(request: AlterTopic) -> None:
    """Refuse a change of an internal topic other than that of its minimum of replicas in sync: a cluster of two nodes, or
    one that was a broker on one machine, may need another one."""
    change = msgspec.structs.replace(request.config, min_in_sync_replicas=msgspec.UNSET)
    if request.partitions is not None or change != TopicConfigChange():
        refuse_internal(request.topic)


def refuse_internal(topic: str) -> None:
    if is_internal(topic):
        raise ProtocolError(ErrorCode.FORBIDDEN, f"topic {topic!r} is internal")
