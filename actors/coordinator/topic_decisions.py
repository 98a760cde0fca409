"""Decisions about the topics that a group reads: the one that a name means to the group, and its beginning. Pure.

Owns the topics that the controller has named. Called by the other decisions, by a share group's, and by the machine.

A topic that was deleted and created again is another topic. The group's state of the old one does not apply to the new:
its offsets are deleted, and its partitions are assigned to no member until each holder of the old ones has released
them.

A partition that is younger than the group's knowledge of its topic is read from its beginning, regardless of the reset
policy: no member could have chosen to skip its records. The group records how many partitions of each topic it knows,
and that a topic it subscribes to, or has read, does not exist. Partitions added later get offset 0 committed before
they are granted to a member; those of a topic created later under that name, when a member of the group reads it.
"""

from collections.abc import Iterable, Mapping

from ...transport.addresses import TopicPartition, is_internal
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.groups import PartitionOffset
from ...transport.protocol.topics import CatalogTopic
from .decided import DecidedGroup
from .offsets import CommittedOffset
from .records import Change, KnownTopic, OffsetKey, PendingKey, TopicKey

NO_TOPIC = KnownTopic("", 0)
"""Recorded for a name without a topic: a topic created later under that name is younger than the group."""


class TopicDecisions:
    def __init__(self, decided: DecidedGroup) -> None:
        self._decided = decided
        self.topics: Mapping[str, CatalogTopic] | None = None
        """None until the controller has sent them."""
        self.is_retargeting_due = False
        """True if a change of the topics requires new targets."""

    def set_topics(self, topics: Mapping[str, CatalogTopic]) -> None:
        """Apply changed topics. Offsets of a deleted topic are deleted; its successor starts without them."""
        if topics == self.topics:
            return
        self.topics = dict(topics)
        self.is_retargeting_due = True
        for topic in list(self._decided.state.topic_ids):
            self._note_growth(topic)
        for topic in {
            topic for topic, _ in self._decided.state.offsets
        } | self._decided.state.pending.topics():
            if self.is_gone(topic):
                self.forget_offsets(topic)
            else:
                self.note(topic)

    def missing(self, offsets: Iterable[PartitionOffset]) -> ProtocolError | None:
        """Return the refusal if a topic or partition does not exist, as far as the group knows."""
        if self.topics is None:
            message = "the group does not know the topics yet"
            return ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, message)
        for item in offsets:
            if is_internal(item.topic):
                continue  # the group does not watch internal topics
            current = self.topics.get(item.topic)
            if current is None:
                return ProtocolError(ErrorCode.UNKNOWN_TOPIC, f"there is no topic {item.topic[:250]!r}")
            if not 0 <= item.partition < current.partitions:
                message = f"topic {item.topic!r} has no partition {item.partition}"
                return ProtocolError(ErrorCode.UNKNOWN_PARTITION, message)
        return None

    def is_gone(self, topic: str) -> bool:
        """Return True if the topic that the group knows by this name no longer exists, though another one may."""
        if self.topics is None or is_internal(topic):
            return False
        current = self.topics.get(topic)
        known = self._decided.state.topic_ids.get(topic)
        if known == NO_TOPIC.topic_id:
            return False
        return current is None or (known is not None and known != current.topic_id)

    def topic_id(self, topic: str) -> str | None:
        """Return the id of the topic of this name that the group reads; if it does not yet, the controller's."""
        current = (self.topics or {}).get(topic)
        return self._decided.state.topic_ids.get(topic) or (current.topic_id if current is not None else None)

    def note(self, topic: str) -> None:
        """Record that the group knows this topic and no other of its name."""
        current = self.topics.get(topic) if self.topics is not None else None
        if current is None:
            return
        known = self._decided.state.topic_ids.get(topic)
        if known is None:
            self._know(current)
        elif known == NO_TOPIC.topic_id:
            self._begin_added(current, 0)

    def note_sharing(self, topics: Iterable[str]) -> None:
        """Record the present ids of topics that members of a share group fetch: the group knows these from now on."""
        for topic in topics:
            if self.topics is None or topic in self._decided.state.topic_ids:
                continue
            current = self.topics.get(topic)
            if current is not None:
                self._know(current)
            else:
                self._decided.record(Change(TopicKey(self._decided.state.group, topic), NO_TOPIC))

    def is_younger(self, tp: TopicPartition, topic_id: str) -> bool:
        """Return True if a partition was created after the group knew its topic, or knew that the topic did not exist."""
        topic, partition = tp
        known = self._decided.state.topic_ids.get(topic)
        if known is None:
            return False
        return known != topic_id or partition >= self._decided.state.partition_counts[topic]

    def note_reading(self, topics: Iterable[str]) -> None:
        """Prepare topics for being read; those that are younger than the group start at their beginning."""
        for topic in topics:
            if self._decided.state.topic_ids.get(topic) == NO_TOPIC.topic_id:
                self.note(topic)

    def _know(self, current: CatalogTopic) -> None:
        known = KnownTopic(current.topic_id, current.partitions)
        self._decided.record(Change(TopicKey(self._decided.state.group, current.topic), known))

    def _begin_added(self, current: CatalogTopic, known_count: int) -> None:
        """Start the partitions beyond the known ones at their beginning."""
        self._know(current)
        for partition in range(known_count, current.partitions):
            tp = TopicPartition(current.topic, partition)
            if tp not in self._decided.state.offsets:
                offset = CommittedOffset(0, reset_epoch=self._decided.state.reset_epoch(tp))
                self._decided.record(Change(OffsetKey(self._decided.state.group, *tp), offset))

    def note_absence(self, topic: str) -> None:
        """Record that a subscribed topic does not exist: once it does, it is read from its beginning."""
        if (
            self.topics is not None
            and topic not in self.topics
            and topic not in self._decided.state.topic_ids
        ):
            self._decided.record(Change(TopicKey(self._decided.state.group, topic), NO_TOPIC))

    def _note_growth(self, topic: str) -> None:
        """Start partitions added to a topic since the group has known it at their beginning."""
        if self._decided.state.share_settings is not None:
            return  # without offsets, it finds its start position itself
        current = self.topics.get(topic) if self.topics is not None else None
        known_id, count = self._decided.state.topic_ids[topic], self._decided.state.partition_counts[topic]
        if current is None or known_id != current.topic_id or current.partitions <= count:
            return
        members = self._decided.state.members.values()
        if members and not any(topic in member.topics for member in members):
            self._know(current)  # no member reads it
        else:
            self._begin_added(current, count)

    def replace_gone(self) -> None:
        """Replace deleted topics without holders of their partitions; until then the holders' commits have no effect."""
        gone = [topic for topic in self._decided.state.topic_ids if self.is_gone(topic)]
        held = {topic for topic, _ in self._decided.state.holders} if gone else frozenset()
        for topic in gone:
            if topic in held:
                continue
            self.forget_offsets(topic)
            # The next topic of the name is younger than the group, however soon it is created.
            self._decided.record(Change(TopicKey(self._decided.state.group, topic), NO_TOPIC))
            self.is_retargeting_due = True

    def forget_offsets(self, topic: str) -> None:
        """Delete the topic's offsets, pending ones included; the transaction itself stays pending."""
        for tp in [tp for tp in self._decided.state.offsets if tp[0] == topic]:
            self._decided.record(Change(OffsetKey(self._decided.state.group, *tp), None))
        for key, pending in list(self._decided.state.pending.open.items()):
            remaining = pending.without(topic)
            if remaining != pending:
                self._decided.record(Change(PendingKey(self._decided.state.group, *key), remaining))
