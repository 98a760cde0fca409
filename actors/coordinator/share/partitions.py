"""The decided state of a share group: its partitions, and the changes to record with the next flush. Pure.

Owns the table and the topics that the controller has named. Every module that changes a partition marks it here; the
coordinator records the marked ones before any of them is answered. First deliveries, which are answered before, are
marked apart: they go with the next flush, or make one after DELIVERY_MS. Called by the modules of the group.
"""

from collections.abc import ItemsView, Mapping

from ....transport.addresses import TopicPartition
from ....transport.protocol.shares import Expired
from ....transport.protocol.topics import CatalogTopic
from .fair_queue import KeyRules
from .keyed import use_keys
from .partition import SharePartition
from .records import ShareProgress

DELIVERY_MS = 5
"""Longest time that the record of a first delivery waits for a flush that another change makes: most members of a fast
queue have acknowledged by then, and both are one record."""


class SharePartitions:
    def __init__(self, progress: Mapping[TopicPartition, ShareProgress]) -> None:
        self._partitions = {tp: SharePartition(each) for tp, each in progress.items()}
        self._changed: dict[TopicPartition, None] = {}
        self._delivered: dict[TopicPartition, None] = {}
        """Partitions with deliveries that were answered and are not recorded."""
        self._delivered_until: int | None = None
        """The time at which these are recorded at the latest."""
        self.wall_offset_ms = 0
        """Wall clock minus `now`."""
        self._rules: KeyRules | None = None
        self._expired: Expired = "deliver"
        self.topics: Mapping[str, CatalogTopic] | None = None
        """None until the controller has sent them."""

    def get(self, tp: TopicPartition) -> SharePartition | None:
        return self._partitions.get(tp)

    def items(self) -> ItemsView[TopicPartition, SharePartition]:
        return self._partitions.items()

    @property
    def is_changed(self) -> bool:
        return bool(self._changed)

    def mark(self, tp: TopicPartition) -> None:
        """Record the partition's progress with the next flush."""
        self._changed[tp] = None

    def mark_delivered(self, tp: TopicPartition, now: int) -> None:
        """Record the partition's progress with the next flush, or after DELIVERY_MS."""
        self._delivered[tp] = None
        if self._delivered_until is None:
            self._delivered_until = now + DELIVERY_MS

    def hurry(self) -> None:
        """Record the deliveries with a flush of their own, at once."""
        self._changed.update(self._delivered)

    def next_due(self, now: int) -> int | None:
        """Return the time at which deliveries make a flush of their own; None if they are to be taken now."""
        until = self._delivered_until
        return None if until is None or until <= now else until

    def add(self, tp: TopicPartition, progress: ShareProgress) -> None:
        part = self._partitions[tp] = SharePartition(progress)
        use_keys(part, self._rules, self._expired)
        self.mark(tp)

    def use_keys(self, rules: KeyRules | None, expired: Expired) -> None:
        """Deliver by keys from now on, or, with None, in the order of offsets."""
        self._rules, self._expired = rules, expired
        for part in self._partitions.values():
            use_keys(part, rules, expired)

    def take(self, now: int) -> dict[TopicPartition, ShareProgress | None]:
        """Return the progress to record now; None deletes that of a partition."""
        changed = self._changed
        if self._delivered_until is not None:
            if not changed and now < self._delivered_until:
                return {}
            changed.update(self._delivered)
            self._delivered, self._delivered_until = {}, None
        if not changed:
            return {}
        self._changed = {}
        return {tp: self._partitions[tp].progress(now) if tp in self._partitions else None for tp in changed}

    def set_topics(self, topics: Mapping[str, CatalogTopic]) -> None:
        """Update the topics; the progress of deleted ones is deleted."""
        self.topics = topics
        for tp in list(self._partitions):
            topic = topics.get(tp.topic)
            if topic is None or topic.topic_id != self._partitions[tp].topic_id:
                del self._partitions[tp]
                self.mark(tp)

    def topic(self, name: str) -> CatalogTopic | None:
        return self.topics.get(name) if self.topics is not None else None

    def forget(self) -> None:
        """Drop all state: the group is deleted."""
        self._partitions.clear()
        self._changed.clear()
        self._delivered, self._delivered_until = {}, None
