"""The partitions that a scheduler delivers to, and the memory and the decisions that they share. Pure.

Owns the queue of each target, the messages whose intent may have been sent, and the decisions to record. Called by
moves.py and routing.py.
"""

from collections.abc import Iterable, Iterator

from ...transport.addresses import TopicPartition
from ...transport.protocol.topics import CatalogTopic
from .pending_messages import PendingMessages, offset_of
from .reading import ReadMessage
from .records import Change, Target
from .target_queue import TargetQueue

MOVING_MESSAGES = 4_000
MOVING_BYTES = 16 * 1024 * 1024
"""Limit of contents in memory; beyond it due messages are not read."""


class Targets:
    def __init__(self, pending: PendingMessages, targets: dict[TopicPartition, Target]) -> None:
        self.topics: dict[str, CatalogTopic] | None = None
        """None until the controller has sent them."""
        self.intended: dict[int, TargetQueue] = {}
        """Entries of the messages that may already be in their partition."""
        self.queues = {
            tp: TargetQueue(tp, target, in_flight) for tp, target, in_flight in _in_flight(targets, pending)
        }
        for queue in self.queues.values():
            self.intended.update(dict.fromkeys(queue.in_flight, queue))
        self._ready: dict[TopicPartition, TargetQueue] = {}
        """Queues whose next step is to be decided."""
        self._decided: list[Change] = []
        self._messages = 0
        self._bytes = 0

    def queue(self, tp: TopicPartition) -> TargetQueue:
        """Return the queue of a target; a new one if there is none."""
        queue = self.queues.get(tp)
        if queue is None:
            queue = self.queues[tp] = TargetQueue(tp, None)
        return queue

    def topic(self, queue: TargetQueue) -> CatalogTopic | None:
        return (self.topics or {}).get(queue.tp.topic)

    # Steps

    def rest(self, queue: TargetQueue) -> None:
        """Let a queue be idle, so that its next step is decided."""
        queue.step = "idle"
        self.look_at(queue)

    def look_at(self, queue: TargetQueue) -> None:
        """Decide the queue's next step once it is idle."""
        self._ready[queue.tp] = queue

    def take_ready(self) -> list[TargetQueue]:
        """Return the idle queues whose next step is to be decided."""
        ready, self._ready = self._ready, {}
        return [queue for queue in ready.values() if queue.step == "idle"]

    def withdraw(self, entry: int) -> bool:
        """Try to cancel a message: False when it may already be in its partition."""
        queue = self.intended.get(entry)
        if queue is None:
            return True
        is_stuck = queue.step == "waiting" and self.topic(queue) is None
        if not is_stuck:
            return False
        # No batch is in flight, and the partition is gone. If the topic comes back, its log is still searched.
        del self.intended[entry]
        queue.in_flight.remove(entry)
        queue.must_search = True
        return True

    # Decisions

    def take(self) -> list[Change]:
        """Return the decisions made since the last call, to be recorded."""
        decided, self._decided = self._decided, []
        return decided

    def intend(self, queue: TargetQueue, batch: list[ReadMessage], topic: CatalogTopic, now: int) -> None:
        """Decide the next batch."""
        self._decided.append(queue.intend(batch, topic, now))
        self.intended.update(dict.fromkeys(queue.in_flight, queue))

    def record(self, queue: TargetQueue) -> None:
        self._decided.append(queue.record())

    def dissolve(self, queue: TargetQueue) -> None:
        """Give up a batch that is not in the log."""
        for entry in queue.in_flight:
            del self.intended[entry]
        self._decided.append(queue.dissolve())

    # Memory

    @property
    def has_room(self) -> bool:
        return self._messages < MOVING_MESSAGES and self._bytes < MOVING_BYTES

    def hold(self, contents: Iterable[ReadMessage]) -> None:
        """Count contents that are kept in memory."""
        for each in contents:
            self._messages += 1
            self._bytes += each.message.size_bytes

    def drop(self, contents: Iterable[ReadMessage]) -> None:
        for each in contents:
            self._messages -= 1
            self._bytes -= each.message.size_bytes

    def drain(self, queue: TargetQueue) -> list[int]:
        """Empty the queue and return its entries; their contents are dropped."""
        self.drop(queue.messages)
        entries = [each.entry for each in queue.messages]
        queue.messages.clear()
        return entries


def _in_flight(
    targets: dict[TopicPartition, Target], pending: PendingMessages
) -> Iterator[tuple[TopicPartition, Target, list[int]]]:
    """Return each target with the entries of its intent that are still pending."""
    intents = [target.intent for target in targets.values() if target.intent is not None]
    wanted = {offset for intent in intents for offset in intent.offsets}
    entries = {
        offset_of(entry): entry for _, entry in pending.entries() if wanted and offset_of(entry) in wanted
    }
    for tp, target in targets.items():
        offsets = target.intent.offsets if target.intent is not None else ()
        yield tp, target, [entries[offset] for offset in offsets if offset in entries]
