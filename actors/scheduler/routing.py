"""The way of a due message to its partition: which queue takes it, and which batch a queue sends next. Pure.

Owns the messages whose topic cannot take them, and the turns of topics whose messages name no partition. Called by
moves.py.

    no such topic or partition, or too large for it    set aside until the topic changes
    its queue takes messages                           kept in memory with its contents
    its queue takes none now                           held by the queue; contents dropped
"""

from ...transport.addresses import TopicPartition
from ...transport.batch import HEADER_BYTES
from ...transport.delayed_size import delivered_bytes
from ...transport.partitioner import partition_for_key
from ...transport.protocol.topics import CatalogTopic
from .pending_messages import PendingMessages, digest_of
from .reading import ReadMessage
from .records import Message
from .target_queue import TargetQueue
from .targets import Targets

BATCH_MESSAGES = 1_000


class Routing:
    def __init__(self, pending: PendingMessages, targets: Targets) -> None:
        self._pending = pending
        self._targets = targets
        self._undeliverable: dict[str, list[int]] = {}
        """Entries by topic."""
        self._turns: dict[str, int] = {}
        self._released: list[TargetQueue] = []
        """Queues that hold more than they have released, to be looked at after the next read."""

    def reason_of(self, scheduled_id: str, message: Message) -> str | None:
        """Return the reason why a due message is not delivered."""
        topics = self._targets.topics
        topic = (topics or {}).get(message.topic)
        if topic is None:
            return f"there is no topic {message.topic!r}" if topics is not None else None
        fault = _fault(scheduled_id, message, topic)
        if fault is not None or (message.partition is None and message.key is None):
            return fault
        queue = self._targets.queues.get(TopicPartition(message.topic, _partition(message, topic)))
        return None if queue is None else queue.reason

    def on_topics(self, before: dict[str, CatalogTopic], topics: dict[str, CatalogTopic]) -> None:
        """Let messages wait again whose topic has changed."""
        for name in [
            name for name in self._undeliverable if topics.get(name) not in (None, before.get(name))
        ]:
            self._pending.put_back(self._undeliverable.pop(name))

    def route(self, messages: list[ReadMessage]) -> None:
        """Route the messages of one read."""
        for topic in {each.message.topic for each in messages}:
            self._turns[topic] = self._turns.get(topic, 0) + 1
        for each in messages:
            self._route(each)
        for queue in self._released:
            self._targets.look_at(queue)
        self._released = []

    def _route(self, found: ReadMessage) -> None:
        entry, scheduled_id, message = found
        if not self._pending.is_live(digest_of(scheduled_id), entry):
            return
        assert self._targets.topics is not None
        topic = self._targets.topics.get(message.topic)
        if topic is None or _fault(scheduled_id, message, topic) is not None:
            self._set_aside(message.topic, [entry])
            return
        if message.partition is None and message.key is None:
            queue = self._any_queue(topic)
        else:
            queue = self._targets.queue(TopicPartition(topic.topic, _partition(message, topic)))
        self._targets.look_at(queue)
        # Longer held messages come first.
        if queue.takes_messages and not (queue.held and entry > queue.held[0]):
            queue.messages.append(found)
            self._targets.hold([found])
        else:
            queue.held.append(entry)

    def _any_queue(self, topic: CatalogTopic) -> TargetQueue:
        """Return the queue whose turn it is with this read, or the next that takes messages."""
        turn = self._turns[topic.topic]
        queues = [
            self._targets.queue(TopicPartition(topic.topic, (turn + step) % topic.partitions))
            for step in range(topic.partitions)
        ]
        return next((queue for queue in queues if queue.takes_messages), queues[0])

    def decide(self, queue: TargetQueue, now: int) -> None:
        """Decide the next step of an idle queue."""
        topic = self._targets.topic(queue)
        if topic is None:
            self._set_aside(queue.tp.topic, [*self._targets.drain(queue), *queue.held])
            queue.held.clear()
        else:
            batch = self._pick(queue, topic)
            if batch:
                self._targets.intend(queue, batch, topic, now)
                return
            released = [queue.held.popleft() for _ in range(min(BATCH_MESSAGES, len(queue.held)))]
            self._pending.put_back(released)
            if queue.held:
                self._released.append(queue)
        if queue.delivered:
            self._targets.record(queue)
        elif topic is None and queue.target is not None:
            queue.target = None
            self._targets.record(queue)

    def _pick(self, queue: TargetQueue, topic: CatalogTopic) -> list[ReadMessage]:
        """Return the next batch from the queue, as large as the topic takes."""
        batch: list[ReadMessage] = []
        size_bytes = HEADER_BYTES
        while queue.messages and len(batch) < BATCH_MESSAGES:
            found = queue.messages[0]
            added_bytes = delivered_bytes(found.scheduled_id, found.message)
            if batch and size_bytes + added_bytes > topic.max_message_bytes:
                break
            queue.messages.popleft()
            is_live = self._pending.is_live(digest_of(found.scheduled_id), found.entry)
            if is_live and _fault(found.scheduled_id, found.message, topic) is None:
                batch.append(found)
                size_bytes += added_bytes
                continue
            self._targets.drop([found])
            if is_live:
                self._set_aside(topic.topic, [found.entry])
        return batch

    def _set_aside(self, topic: str, entries: list[int]) -> None:
        self._undeliverable.setdefault(topic, []).extend(entries)


def _partition(message: Message, topic: CatalogTopic) -> int:
    if message.partition is not None:
        return message.partition
    assert message.key is not None
    return partition_for_key(message.key, topic.partitions)


def _fault(scheduled_id: str, message: Message, topic: CatalogTopic) -> str | None:
    """Return the reason why the topic in its present state cannot take the message."""
    if message.partition is not None and message.partition >= topic.partitions:
        return f"topic {topic.topic!r} has no partition {message.partition}"
    size_bytes = HEADER_BYTES + delivered_bytes(scheduled_id, message)
    if size_bytes > topic.max_message_bytes:
        return f"topic {topic.topic!r} accepts {topic.max_message_bytes} bytes, this message has {size_bytes}"
    return None
