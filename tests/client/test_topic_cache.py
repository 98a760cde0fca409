"""The client's copy of the broker's directory."""

from planaria.transport.client.topic_cache import TopicCache
from planaria.transport.protocol.session import MetadataReply, TopicMetadata


def reply(version: int, topic_id: str) -> MetadataReply:
    topic = TopicMetadata(topic="T", topic_id=topic_id, partitions=[], max_message_bytes=1_000)
    return MetadataReply(version=version, instance_id="i", topics=[topic])


def test_a_topic_that_is_gone_keeps_its_id_until_there_is_another_one() -> None:
    """A batch for the old topic names it, so that the next topic of the name refuses the batch."""
    cache = TopicCache()
    assert cache.topic_id("T") is None
    cache.update(reply(1, "old"))
    cache.replace("T")
    assert (cache.partition_count("T"), cache.topic_id("T")) == (None, "old")
    cache.update(reply(2, "old"))
    assert cache.partition_count("T") is None, "a late reply"
    cache.update(reply(3, "new"))
    assert (cache.partition_count("T"), cache.topic_id("T")) == (0, "new")
