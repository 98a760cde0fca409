"""Where topics and partitions are: the answers to `metadata`, and what the client found out by itself. Pure.

The broker's directory has a version that grows with every change, and starts again with the broker (`instance_id`).
A partition that failed to answer is held offline until the directory names another incarnation. If the directory insists
on the same one, the fault was the connection's alone, and after SUSPICION_MS it is believed.
"""

from ..protocol.session import MetadataReply, PartitionMetadata, TopicMetadata

SUSPICION_MS = 500


class Directory:
    """The client's picture of the broker."""

    def __init__(self) -> None:
        self.version: int | None = None
        self.instance_id: str | None = None
        self._topics: dict[str, TopicMetadata] = {}
        self._unknown: set[str] = set()
        self._suspects: dict[tuple[str, int, int], int] = {}

    def update(self, reply: MetadataReply) -> None:
        if reply.instance_id != self.instance_id:
            self.forget()
            self.instance_id = reply.instance_id
        elif self.version is not None and reply.version < self.version:
            return
        self.version = reply.version
        for topic in reply.topics:
            self._topics[topic.topic] = topic
            self._unknown.discard(topic.topic)
        for name in reply.unknown_topics:
            self._topics.pop(name, None)
            self._unknown.add(name)

    def forget(self) -> None:
        """The broker may be another one now, and its versions start again."""
        self.version = None
        self.instance_id = None
        self._topics.clear()
        self._unknown.clear()
        self._suspects.clear()

    def expire_version(self) -> None:
        """Ask for everything anew, and believe what is known until then."""
        self.version = None

    def suspect(self, topic: str, partition: int, incarnation: int, now: int) -> None:
        """An incarnation was found dead, or the connection to it broke."""
        self._suspects[topic, partition, incarnation] = now + SUSPICION_MS

    def is_unknown(self, topic: str) -> bool:
        """Whether the broker said that there is no such topic."""
        return topic in self._unknown

    def topic_id(self, topic: str) -> str | None:
        """What tells the topic from an earlier or a later one of its name."""
        found = self._topics.get(topic)
        return found.topic_id if found is not None else None

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
        return (
            found is not None
            and found.online
            and self._suspects.get((topic, partition, found.incarnation), 0) <= now
        )

    def believed_at(self, topic: str, partition: int, now: int) -> int | None:
        """When a suspected incarnation will be tried again; None when it is not under suspicion."""
        found = self.partition(topic, partition)
        if found is None:
            return None
        until = self._suspects.get((topic, partition, found.incarnation), 0)
        return until if until > now else None
