"""The existing groups, and the starts and stops of their coordinators. Pure.

    ensure   decided -> durable -> partitions of `__offsets` and the coordinator started -> done
    delete   the coordinator forgets the group -> decided -> durable -> coordinator stopped -> done

A group's state (members, offsets) belongs to the coordinator; the controller only records its existence.
"""

import msgspec

from ...transport.addresses import OFFSETS_TOPIC, Address, Kind, coordinator_address, is_internal
from ...transport.machine import Call, Reply, Sender
from ...transport.protocol.control import ChildSpec, EnsureGroup
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.groups import DeleteGroup, ListGroupsReply
from ...transport.protocol.message import Done
from ...transport.protocol.topics import TopicConfig
from .catalog import Catalog
from .child_commands import ChildCommands
from .children import GroupLife, coordinator_spec, offsets_partition_for, partition_specs
from .decisions import Decisions, FollowUp
from .effects import Effect
from .keys import GroupDeletion
from .names import check_group_name
from .peers import Peers
from .replication import Replication
from .room import Room

OFFSETS_CONFIG = TopicConfig(
    retention_ms=-1,
    retention_bytes=-1,
    segment_bytes=16 * 1024 * 1024,
    flush="batch",
    max_timestamp_ahead_ms=-1,
    cleanup="compact",
)
"""Commits are as durable as records, and never expire by age; the newest of each key is kept."""
DELETE_TIMEOUT_MS = 10_000


class Groups:
    def __init__(
        self,
        decisions: Decisions,
        commands: ChildCommands,
        peers: Peers,
        room: Room,
        offsets_partitions: int,
        life: GroupLife,
        replication: Replication,
    ) -> None:
        self._decisions = decisions
        self._commands = commands
        self._peers = peers
        self._room = room
        self._offsets_partitions = offsets_partitions
        self._life = life
        self._replication = replication
        self._deleting: dict[str, Sender] = {}
        """Groups whose coordinator has been asked to delete them, or is being stopped."""

    def on_ensure(self, sender: Sender, request: EnsureGroup, now: int) -> list[Effect]:
        group = request.group
        latest = self._decisions.latest
        if group in self._deleting:
            raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, f"group {group!r} is being deleted")
        follow_up = FollowUp("group_created", group, sender)
        if group in latest.groups:
            if self._decisions.wait_for_latest(follow_up):
                return []
            return [Reply(sender, Done())]
        if not request.create:
            raise _unknown(group)
        check_group_name(group)
        if request.dead_letter:
            _check_dead_letter(request.dead_letter, latest)
        is_first = OFFSETS_TOPIC not in latest.topics
        self._room.check_group(latest, self._offsets_partitions if is_first else 0)
        if is_first:
            latest = latest.with_topic(
                OFFSETS_TOPIC, self._offsets_partitions, self._replication.completed(OFFSETS_CONFIG), now
            )
        partitions = latest.topics[OFFSETS_TOPIC].partitions
        catalog = latest.with_group(group, offsets_partition_for(group, partitions))
        return self._decisions.decide(catalog, follow_up)

    def on_loaded(self) -> list[Effect]:
        """Update a catalog from before `__offsets` was compacted."""
        entry = self._decisions.latest.topics.get(OFFSETS_TOPIC)
        if entry is None:
            return []
        config = msgspec.structs.replace(
            OFFSETS_CONFIG,
            replication_factor=entry.config.replication_factor,
            min_in_sync_replicas=entry.config.min_in_sync_replicas,
        )
        if entry.config == config:
            return []
        catalog = self._decisions.latest.with_topic_changed(OFFSETS_TOPIC, entry.partitions, config)
        return self._decisions.decide(catalog, FollowUp("topic_altered", OFFSETS_TOPIC))

    def apply_created(self, follow_up: FollowUp) -> list[Effect]:
        durable = self._decisions.durable
        group = follow_up.name
        effects: list[Effect] = []
        if group in durable.groups:
            effects += self._commands.start(partition_specs(durable.topics[OFFSETS_TOPIC]))
            effects += self._commands.start([self._spec(group)])
        if follow_up.sender is not None:
            effects.append(Reply(follow_up.sender, Done()))
        return effects

    def wake(self) -> list[Effect]:
        """Start the sleeping coordinators, because they have to report."""
        groups = sorted(self._decisions.durable.groups)
        asleep = [group for group in groups if coordinator_address(group) in self._peers.asleep]
        return self._commands.start(self._spec(group) for group in asleep)

    def wake_if_tracked(self) -> list[Effect]:
        """Wake them if any topic needs their positions."""
        topics = self._decisions.durable.topics.values()
        return self.wake() if any(entry.config.tracks_groups for entry in topics) else []

    def _spec(self, group: str) -> ChildSpec:
        return coordinator_spec(group, self._decisions.durable.groups[group], self._life)

    def on_list(self, sender: Sender) -> list[Effect]:
        return [Reply(sender, ListGroupsReply(groups=sorted(self._decisions.durable.groups)))]

    def on_delete(self, sender: Sender, request: DeleteGroup) -> list[Effect]:
        group = request.group
        if group in self._deleting:
            raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, f"group {group!r} is being deleted")
        if group not in self._decisions.durable.groups:
            raise _unknown(group)
        self._deleting[group] = sender
        call = DeleteGroup(group=group)
        return [
            Call(GroupDeletion(group), coordinator_address(group), call, Done, timeout_ms=DELETE_TIMEOUT_MS)
        ]

    def on_forgotten(self, group: str) -> list[Effect]:
        """Delete a group whose coordinator has deleted its records."""
        catalog = self._decisions.latest.without_group(group)
        return self._decisions.decide(catalog, FollowUp("group_deleted", group))

    def on_not_forgotten(self, group: str, error: ErrorBody) -> list[Effect]:
        return [Reply(self._deleting.pop(group), error)]

    def apply_deleted(self, group: str) -> list[Effect]:
        return self._commands.stop([coordinator_address(group)])

    def on_stopped(self, address: Address) -> list[Effect]:
        if address.kind != Kind.COORDINATOR or address.name not in self._deleting:
            return []
        self._peers.forget(address)
        return [Reply(self._deleting.pop(address.name), Done())]


def _check_dead_letter(topic: str, catalog: Catalog) -> None:
    if is_internal(topic):
        raise ProtocolError(ErrorCode.INVALID_TOPIC, f"dead_letter: {topic!r} is an internal topic")
    if topic not in catalog.topics:
        raise ProtocolError(ErrorCode.UNKNOWN_TOPIC, f"dead_letter: there is no topic {topic[:250]!r}")


def _unknown(group: str) -> ProtocolError:
    return ProtocolError(ErrorCode.UNKNOWN_GROUP, f"there is no group {group[:250]!r}")
