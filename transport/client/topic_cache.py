"""The locations of partitions and coordinators: replies to `metadata`, and the client's own observations. Pure.

The broker's directory has a version that grows with every change, and starts again with the broker (`instance_id`). A
partition that failed to reply counts as offline until the directory names another incarnation. If the directory still
names the same one, only the connection had failed, and after SUSPICION_MS the partition counts as online again.
"""

from ..protocol.session import GroupMetadata, MetadataReply, PartitionMetadata, TopicMetadata

SUSPICION_MS = 500


class TopicCache:
    """The client's copy of the broker's directory, for the topics in use."""

    def __init__(self) -> None:
        self.version: int | None = None
        self.instance_id: str | None = None
        self._topics: dict[str, TopicMetadata] = {}
        self._unknown: set[str] = set()
        self._gone: dict[str, str] = {}
        """Ids of topics that this client has deleted or seen replaced: replies that still name them are late."""
        self._suspects: dict[tuple[str, int, int], int] = {}
        self._coordinators: dict[str, GroupMetadata] = {}
        """By group."""

    def update(self, reply: MetadataReply, *, is_of_all: bool = True) -> None:
        """Enter a reply. Unless it describes all topics in use, the version stays: others may have changed before it."""
        if reply.instance_id != self.instance_id:
            self.forget()
            self.instance_id = reply.instance_id
        elif self.version is not None and reply.version < self.version:
            return
        if is_of_all:
            self.version = reply.version
        for topic in reply.topics:
            self._topics[topic.topic] = topic
            self._unknown.discard(topic.topic)
            if self.is_gone(topic):
                self._topics.pop(topic.topic, None)
        for name in reply.unknown_topics:
            self._topics.pop(name, None)
            self._unknown.add(name)
        for group in reply.groups or ():
            self._coordinators[group.group] = group

    def replace(self, topic: str, topic_id: str | None = None) -> None:
        """Forget a topic of this name unless it has this id: it was deleted, or created with the id. From any thread.

        The id is noted before the entry is removed, and `update` looks after it has written: no order of the two
        leaves the entry.
        """
        found = self._topics.get(topic)
        if found is not None and found.topic_id != topic_id:
            self._gone[topic] = found.topic_id
            self._topics.pop(topic, None)

    def remove(self, topic: str) -> None:
        self._topics.pop(topic, None)

    def is_gone(self, topic: TopicMetadata) -> bool:
        """Return True if a reply describes a topic that this client knows to be gone."""
        return self._gone.get(topic.topic) == topic.topic_id

    def forget(self) -> None:
        """Discard everything: the broker may have been replaced, and its versions start again."""
        self.version = None
        self.instance_id = None
        self._topics.clear()
        self._unknown.clear()
        self._suspects.clear()
        self._coordinators.clear()

    def expire_version(self) -> None:
        """Request everything again, and use the present entries until then."""
        self.version = None

    def suspect(self, topic: str, partition: int, incarnation: int, now: int) -> None:
        """Suspect an incarnation that was found dead, or whose connection broke."""
        self._suspects[topic, partition, incarnation] = now + SUSPICION_MS

    def coordinator(self, group: str) -> GroupMetadata | None:
        """Return where the group's coordinator is, as far as the broker has said."""
        return self._coordinators.get(group)

    def is_unknown(self, topic: str) -> bool:
        """Return True if the broker replied that the topic does not exist."""
        return topic in self._unknown

    def topic_id(self, topic: str) -> str | None:
        """Return the id that distinguishes the topic from others of the same name.

        That of a topic that is gone, until there is another one: its messages may still be on their way, and a later
        topic must be able to refuse them.
        """
        found = self._topics.get(topic)
        return found.topic_id if found is not None else self._gone.get(topic)

    def partition_count(self, topic: str) -> int | None:
        found = self._topics.get(topic)
        return len(found.partitions) if found is not None else None

    def largest_batch_bytes(self, topic: str) -> int | None:
        found = self._topics.get(topic)
        return found.max_message_bytes if found is not None else None

    def partition(self, topic: str, partition: int) -> PartitionMetadata | None:
        found = self._topics.get(topic)
        if found is None or not 0 <= partition < len(found.partitions):
            return None
        return found.partitions[partition]

    def is_online(self, topic: str, partition: int, now: int) -> bool:
        found = self.partition(topic, partition)
        return found is not None and self.is_online_now(found, topic, partition, now)

    def is_online_now(self, found: PartitionMetadata, topic: str, partition: int, now: int) -> bool:
        """As `is_online`, of a partition that has been looked up."""
        if not self._suspects:
            return found.online
        return found.online and self._suspects.get((topic, partition, found.incarnation), 0) <= now

    def is_replaced(self, topic: str, partition: int, incarnation: int, endpoint: str) -> bool:
        """Return True if the partition no longer has this endpoint, which belonged to that incarnation."""
        found = self.partition(topic, partition)
        return (
            found is None or (found.online and found.endpoint != endpoint) or found.incarnation > incarnation
        )

    def believed_at(self, topic: str, partition: int, now: int) -> int | None:
        """Return the time at which a suspected incarnation is retried; None if it is not suspected."""
        found = self.partition(topic, partition)
        if found is None:
            return None
        until = self._suspects.get((topic, partition, found.incarnation), 0)
        return until if until > now else None
