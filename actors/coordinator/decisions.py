"""The group's decisions: each request and each expiry becomes changes, validated against all earlier decisions.

Owns the decided state, which runs ahead of the durable one, and the changes not appended yet. Must never answer a
request: a refusal is raised as ProtocolError before any change is made, and success is answered by the recorder once
the changes are durable. Called by serving.py alone.

    join, heartbeat, remove, set_topics  ->  members and their partitions; then settle: targets, grants, generation
    commit, reset, delete                ->  offsets

A topic that was deleted and created again is another topic. The group's state of the old one does not apply to the new:
its offsets are deleted, and its partitions are assigned to no member until each holder of the old ones has released
them.

A partition that is younger than the group's knowledge of its topic is read from its beginning, regardless of the reset
policy: no member could have chosen to skip its records. The group records how many partitions of each topic it knows,
and that a topic it subscribes to, or has read, does not exist. Partitions added later get offset 0 committed before
they are granted to a member; those of a topic created later under that name, when a member of the group reads it.
"""

from collections.abc import Iterable, Mapping

from msgspec import UNSET
from msgspec.structs import replace

from ...transport.addresses import TopicPartition, is_internal
from ...transport.producer_ids import coordinator_of
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.groups import CommitOffsets, GroupHeartbeat, PartitionOffset
from ...transport.protocol.topics import CatalogTopic
from ...transport.protocol.transactions import TransactionId
from .assignors import ASSIGNORS, Assignment
from .members import MAX_MEMBERS, Member, check_identity, checked_topics, flattened, preferred_assignor
from .offsets import CommittedOffset, check_epochs, check_holder, check_offsets
from .pending import Fence, PendingOffsets
from .reconcile import let_go, reconcile
from .records import (
    Change,
    FenceKey,
    GroupKey,
    GroupProgress,
    KnownTopic,
    MemberKey,
    OffsetKey,
    PendingKey,
    Resets,
    ResetsKey,
    ShareGroupKey,
    ShareKey,
    TopicKey,
    Unused,
    UnusedKey,
)
from .share.records import ShareProgress, ShareSettings
from .state import GroupState

NO_TOPIC = KnownTopic("", 0)
"""Recorded for a name without a topic: a topic created later under that name is younger than the group."""
MAX_PENDING = 10_000
"""Most open transactions with offsets of one group."""


class Decisions:
    def __init__(self, decided: GroupState) -> None:
        self.state = decided
        self.gathered: list[Change] = []
        self._topics: Mapping[str, CatalogTopic] | None = None
        """None until the controller has sent them."""
        self._are_targets_stale = True
        self._are_grants_due = True
        self._joined = 0
        self._next_order = decided.pending.next_order

    def take(self) -> list[Change]:
        """Return the changes to append now."""
        taken, self.gathered = self.gathered, []
        return taken

    def join(self, request: GroupHeartbeat) -> Member:
        """Add a member; a static one inherits the partitions of its earlier process, and fences it."""
        if request.topics is None:
            raise ProtocolError(ErrorCode.INVALID_REQUEST, "topics: a member names its topics when it joins")
        check_identity(request)
        topics = checked_topics(request.topics)
        before = self.state.instance(request.instance_id) if request.instance_id is not None else None
        if before is None and len(self.state.members) >= MAX_MEMBERS:
            raise ProtocolError(ErrorCode.GROUP_FULL, f"the group has {MAX_MEMBERS} members")
        # Every join is a generation, so that a member not answered yet can be distinguished from all that have been.
        generation = self._next_generation()
        self._record(Change(GroupKey(self.state.group), GroupProgress(generation)))
        member = Member(
            member_id=request.member_id or self._new_member_id(),
            instance_id=request.instance_id,
            client_id=request.client_id,
            topics=topics,
            session_timeout_ms=request.session_timeout_ms,
            assignor=request.assignor,
            generation=generation,
        )
        if before is not None:
            member = self._take_over(before, member)
        self._record_member(member)
        self._are_targets_stale = True
        return member

    def _take_over(self, before: Member, member: Member) -> Member:
        self._forget_member(before.member_id)
        return replace(
            member,
            replaced=before.member_id,
            target=before.target,
            held=dict.fromkeys(before.held, member.generation),
        )

    def heartbeat(self, request: GroupHeartbeat) -> bool:
        """Apply a member's heartbeat; return True if the group changed."""
        assert request.member_id is not None
        before = self.state.members[request.member_id]
        topics = before.topics if request.topics is None else checked_topics(request.topics)
        assignor = before.assignor if request.assignor is None else request.assignor
        held = before.held
        # A report counts only if the member knows its latest assignment: an earlier report may cross a grant in flight.
        if request.owned is not None and request.generation >= before.generation:
            released = let_go(held.keys(), before.target, flattened(request.owned))
            if released:
                held = {item: generation for item, generation in held.items() if item not in released}
                self._are_grants_due = True
        member = replace(before, topics=topics, assignor=assignor, held=held)
        if member == before:
            return False
        if (topics, assignor) != (before.topics, before.assignor):
            self._are_targets_stale = True
        self._record_member(member)
        return True

    def remove(self, member_id: str) -> None:
        """Remove a member that has left or whose session has expired; its partitions become free."""
        self._forget_member(member_id)
        self._are_targets_stale = True

    def commit(self, request: CommitOffsets) -> None:
        check_offsets(request.offsets)
        if request.member_id is not None:
            check_holder(self.state.members[request.member_id], request.generation, request.offsets)
        elif self.state.members:
            message = f"the group has {len(self.state.members)} members; a commit must name its member"
            raise ProtocolError(ErrorCode.GROUP_NOT_EMPTY, message)
        self._replace_gone_topics()
        check_epochs(request.offsets, self._topic_id, self.state.reset_epoch)
        if request.producer_id is None and request.producer_epoch is None:
            self._commit_at_once(request.offsets)
            return
        if request.producer_id is None or request.producer_epoch is None:
            message = "producer_id, producer_epoch: a transaction has both, any other commit neither"
            raise ProtocolError(ErrorCode.INVALID_REQUEST, message)
        self._postpone(TransactionId(request.producer_id, request.producer_epoch), request.offsets)

    def _postpone(self, key: TransactionId, offsets: list[PartitionOffset]) -> None:
        """Keep the offsets until the transaction commits."""
        if coordinator_of(key.producer_id) is None:
            message = f"producer_id: {key.producer_id} does not belong to a transactional_id"
            raise ProtocolError(ErrorCode.INVALID_TRANSACTION, message)
        self.state.pending.check(key)
        if key not in self.state.pending.open and len(self.state.pending.open) >= MAX_PENDING:
            message = f"{MAX_PENDING} transactions are about to move offsets of the group"
            raise ProtocolError(ErrorCode.OVERLOADED, message)
        self._replace_gone_topics()
        for item in offsets:
            self._note_topic(item.topic)
        pending = self.state.pending.open.get(key, PendingOffsets(()))
        self._record(Change(PendingKey(self.state.group, *key), pending.with_more(offsets, self._next_order)))
        self._next_order += 1

    def end_transaction(self, key: TransactionId, is_committed: bool, now: int) -> None:
        """Apply or drop a transaction's offsets, and fence late commits of it. Idempotent."""
        self._replace_gone_topics()
        pending = self.state.pending.open.get(key)
        if pending is not None:
            if is_committed:
                self._record_offsets(pending.offsets)
                self._outdate({item.tp: item.order for item in pending.offsets})
            self._record(Change(PendingKey(self.state.group, *key), None))
        if not self.state.pending.has_ended(key):
            fence = Fence(key.producer_epoch, now)
            self._record(Change(FenceKey(self.state.group, key.producer_id), fence))

    def drop_spent_fences(self, now: int) -> None:
        for producer_id in self.state.pending.spent_fences(now):
            self._record(Change(FenceKey(self.state.group, producer_id), None))

    def missing(self, offsets: Iterable[PartitionOffset]) -> ProtocolError | None:
        """Return the refusal if a topic or partition does not exist, as far as the group knows."""
        if self._topics is None:
            message = "the group does not know the topics yet"
            return ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, message)
        for item in offsets:
            if is_internal(item.topic):
                continue  # the group does not watch internal topics
            entry = self._topics.get(item.topic)
            if entry is None:
                return ProtocolError(ErrorCode.UNKNOWN_TOPIC, f"there is no topic {item.topic[:250]!r}")
            if not 0 <= item.partition < entry.partitions:
                message = f"topic {item.topic!r} has no partition {item.partition}"
                return ProtocolError(ErrorCode.UNKNOWN_PARTITION, message)
        return None

    def reset(self, offsets: Iterable[PartitionOffset]) -> None:
        self._check_empty()
        offsets = list(offsets)
        check_offsets(offsets)
        resets = self.state.resets
        self._record(Change(ResetsKey(self.state.group), Resets(resets.count + 1, resets.floor)))
        self._commit_at_once(offsets, resets.count + 1)

    def delete(self) -> None:
        """Delete offsets and generation; start and reset records stay, because epochs must never decrease."""
        self._check_empty()
        if self.state.pending.open:
            message = "a transaction is about to move the group's offsets"
            raise ProtocolError(ErrorCode.CONCURRENT_TRANSACTIONS, message)
        count = self.state.resets.count + 1
        self._record(Change(ResetsKey(self.state.group), Resets(count, count)))
        for producer_id in list(self.state.pending.fences):
            self._record(Change(FenceKey(self.state.group, producer_id), None))
        self.expire_offsets()
        self.set_unused_since(None)
        if self.state.generation:
            self._record(Change(GroupKey(self.state.group), None))
        for tp in list(self.state.shares):
            self._record(Change(ShareKey(self.state.group, *tp), None))
        if self.state.share_settings is not None:
            self._record(Change(ShareGroupKey(self.state.group), None))

    def expire_offsets(self) -> None:
        """Delete the offsets, and the record of the topics the group has read."""
        for topic in {topic for topic, _ in self.state.offsets}:
            self._forget_offsets(topic)
        for topic in list(self.state.topic_ids):
            self._record(Change(TopicKey(self.state.group, topic), None))

    def set_unused_since(self, since_ms: int | None) -> None:
        """Record the time since which the offsets are unused."""
        if since_ms != self.state.unused_since_ms:
            unused = None if since_ms is None else Unused(since_ms)
            self._record(Change(UnusedKey(self.state.group), unused))

    def why_no_share_group(self) -> str | None:
        """Return the refusal for a group that has had members or offsets: it stays a consumer group."""
        if not (self.state.generation or self.state.members or self.state.offsets):
            return None
        return f"{self.state.group!r} is a consumer group: its members are assigned partitions and commit offsets"

    def record_share(
        self, settings: ShareSettings | None, changed: Mapping[TopicPartition, ShareProgress | None]
    ) -> None:
        """Record a share group's decisions (`share/group.py`): new settings, and the progress of partitions."""
        if settings is not None:
            self._record(Change(ShareGroupKey(self.state.group), settings))
        for tp, progress in changed.items():
            self._record(Change(ShareKey(self.state.group, *tp), progress))

    def set_topics(self, topics: Mapping[str, CatalogTopic]) -> None:
        """Apply changed topics. Offsets of a deleted topic are deleted; its successor starts without them."""
        if topics == self._topics:
            return
        self._topics = dict(topics)
        self._are_targets_stale = True
        for topic in list(self.state.topic_ids):
            self._note_growth(topic)
        for topic in {topic for topic, _ in self.state.offsets} | self.state.pending.topics():
            if self._is_gone(topic):
                self._forget_offsets(topic)
            else:
                self._note_topic(topic)

    def settle(self) -> None:
        """Update the targets and grant the free partitions; all resulting changes share one generation."""
        if not (self._are_targets_stale and self._topics is not None) and not self._are_grants_due:
            return
        self._replace_gone_topics()
        is_retargeting = self._are_targets_stale and self._topics is not None
        targets = self._targets() if is_retargeting else {}
        if is_retargeting:
            self._are_targets_stale = False
        self._are_grants_due = False
        generation = self._next_generation()
        # A member gains only partitions that another has already released, so any order is safe.
        steps = [self._step(member, targets, generation) for member in self._members()]
        changed = [member for member in steps if member != self.state.members[member.member_id]]
        if changed:
            self._record(Change(GroupKey(self.state.group), GroupProgress(generation)))
        for member in changed:
            self._record_member(member)

    def _step(self, member: Member, targets: Assignment, generation: int) -> Member:
        target = targets.get(member.member_id, member.target)
        step = reconcile(member.held.keys(), target, self.state.holders)
        is_told = step.assignment == member.assignment
        return replace(
            member,
            target=target,
            held=member.held | dict.fromkeys(step.add, generation) if step.add else member.held,
            generation=member.generation if is_told else generation,
        )

    def _targets(self) -> Assignment:
        assert self._topics is not None
        members = self._members()
        assign = ASSIGNORS[preferred_assignor(members)]
        subscriptions = {member.member_id: frozenset(member.topics) for member in members}
        for topic in sorted(frozenset[str]().union(*subscriptions.values())):
            self._note_topic(topic)
            self._note_absence(topic)
        partitions = {
            topic: entry.partitions for topic, entry in self._topics.items() if not self._is_gone(topic)
        }
        return assign(subscriptions, partitions, self._previous(members))

    def _previous(self, members: list[Member]) -> dict[str, set[TopicPartition]]:
        """Return the previous targets; partitions intended for a departed member stay with their holder if possible."""
        previous = {member.member_id: set(member.target) for member in members}
        meant = set().union(*previous.values()) if previous else set()
        for item, holder in self.state.holders.items():
            if item not in meant:
                previous[holder].add(item)
        return previous

    def _members(self) -> list[Member]:
        return sorted(self.state.members.values(), key=lambda member: member.order)

    def _next_generation(self) -> int:
        """Return a generation above all earlier ones, also after a replay that found only a part of the last one."""
        told = max((member.generation for member in self.state.members.values()), default=0)
        return max(self.state.generation, told) + 1

    def _new_member_id(self) -> str:
        """Return a member id unique in the group's life: an epoch belongs to one incarnation."""
        self._joined += 1
        return f"{self.state.group}-{self.state.start.epoch}-{self._joined}"

    def _check_empty(self) -> None:
        if self.state.members:
            message = f"the group is not empty; members: {len(self.state.members)}"
            raise ProtocolError(ErrorCode.GROUP_NOT_EMPTY, message)

    def _is_gone(self, topic: str) -> bool:
        """Return True if the topic that the group knows by this name no longer exists, though another one may."""
        if self._topics is None or is_internal(topic):
            return False
        current = self._topics.get(topic)
        known = self.state.topic_ids.get(topic)
        if known == NO_TOPIC.topic_id:
            return False
        return current is None or (known is not None and known != current.topic_id)

    def _topic_id(self, topic: str) -> str | None:
        """Return the id of the topic of this name that the group reads; if it does not yet, the controller's."""
        current = (self._topics or {}).get(topic)
        return self.state.topic_ids.get(topic) or (current.topic_id if current is not None else None)

    def _note_topic(self, topic: str) -> None:
        """Record that the group knows this topic and no other of its name."""
        current = self._topics.get(topic) if self._topics is not None else None
        if current is None:
            return
        known = self.state.topic_ids.get(topic)
        if known is None:
            self._know(current)
        elif known == NO_TOPIC.topic_id:
            self._begin_added(current, 0)

    def note_sharing(self, topics: Iterable[str]) -> None:
        """Record the present ids of topics that members of a share group fetch: the group knows these from now on."""
        for topic in topics:
            if self._topics is None or topic in self.state.topic_ids:
                continue
            current = self._topics.get(topic)
            if current is not None:
                self._know(current)
            else:
                self._record(Change(TopicKey(self.state.group, topic), NO_TOPIC))

    def is_younger(self, tp: TopicPartition, topic_id: str) -> bool:
        """Return True if a partition was created after the group knew its topic, or knew that the topic did not exist."""
        topic, partition = tp
        known = self.state.topic_ids.get(topic)
        if known is None:
            return False
        return known != topic_id or partition >= self.state.partition_counts[topic]

    def note_reading(self, topics: Iterable[str]) -> None:
        """Prepare topics for being read; those that are younger than the group start at their beginning."""
        for topic in topics:
            if self.state.topic_ids.get(topic) == NO_TOPIC.topic_id:
                self._note_topic(topic)

    def _know(self, current: CatalogTopic) -> None:
        known = KnownTopic(current.topic_id, current.partitions)
        self._record(Change(TopicKey(self.state.group, current.topic), known))

    def _begin_added(self, current: CatalogTopic, known_count: int) -> None:
        """Start the partitions beyond the known ones at their beginning."""
        self._know(current)
        for partition in range(known_count, current.partitions):
            tp = TopicPartition(current.topic, partition)
            if tp not in self.state.offsets:
                offset = CommittedOffset(0, reset_epoch=self.state.reset_epoch(tp))
                self._record(Change(OffsetKey(self.state.group, *tp), offset))

    def _note_absence(self, topic: str) -> None:
        """Record that a subscribed topic does not exist: once it does, it is read from its beginning."""
        if self._topics is not None and topic not in self._topics and topic not in self.state.topic_ids:
            self._record(Change(TopicKey(self.state.group, topic), NO_TOPIC))

    def _note_growth(self, topic: str) -> None:
        """Start partitions added to a topic since the group has known it at their beginning."""
        if self.state.share_settings is not None:
            return  # without offsets, it finds its start position itself
        current = self._topics.get(topic) if self._topics is not None else None
        known_id, count = self.state.topic_ids[topic], self.state.partition_counts[topic]
        if current is None or known_id != current.topic_id or current.partitions <= count:
            return
        members = self.state.members.values()
        if members and not any(topic in member.topics for member in members):
            self._know(current)  # no member reads it
        else:
            self._begin_added(current, count)

    def _replace_gone_topics(self) -> None:
        """Replace deleted topics without holders of their partitions; until then the holders' commits have no effect."""
        gone = [topic for topic in self.state.topic_ids if self._is_gone(topic)]
        held = {topic for topic, _ in self.state.holders} if gone else frozenset()
        for topic in gone:
            if topic in held:
                continue
            self._forget_offsets(topic)
            # The next topic of the name is younger than the group, however soon it is created.
            self._record(Change(TopicKey(self.state.group, topic), NO_TOPIC))
            self._are_targets_stale = True

    def _forget_offsets(self, topic: str) -> None:
        """Delete the topic's offsets, pending ones included; the transaction itself stays pending."""
        for tp in [tp for tp in self.state.offsets if tp[0] == topic]:
            self._record(Change(OffsetKey(self.state.group, *tp), None))
        for key, pending in list(self.state.pending.open.items()):
            left = pending.without(topic)
            if left != pending:
                self._record(Change(PendingKey(self.state.group, *key), left))

    def _record_offsets(self, offsets: Iterable[PartitionOffset], reset_epoch: int | None = None) -> None:
        self._replace_gone_topics()
        for item in offsets:
            self._note_topic(item.topic)
            key = OffsetKey(self.state.group, item.topic, item.partition)
            current = self.state.reset_epoch(TopicPartition(item.topic, item.partition))
            epoch = current if reset_epoch is None else reset_epoch
            leader_epoch = None if item.leader_epoch is UNSET else item.leader_epoch
            self._record(Change(key, CommittedOffset(item.offset, item.metadata, epoch, leader_epoch)))

    def _commit_at_once(self, offsets: list[PartitionOffset], reset_epoch: int | None = None) -> None:
        self._record_offsets(offsets, reset_epoch)
        self._outdate({TopicPartition(item.topic, item.partition): self._next_order for item in offsets})

    def _outdate(self, orders: Mapping[TopicPartition, int]) -> None:
        """Drop pending offsets older than these, which have taken effect."""
        for key, pending in list(self.state.pending.open.items()):
            left = pending.outdated(orders)
            if left != pending:
                self._record(Change(PendingKey(self.state.group, *key), left))

    def _record_member(self, member: Member) -> None:
        self._record(Change(MemberKey(self.state.group, member.member_id), member))

    def _forget_member(self, member_id: str) -> None:
        self._record(Change(MemberKey(self.state.group, member_id), None))

    def _record(self, change: Change) -> None:
        self.state.apply(change)
        self.gathered.append(change)
