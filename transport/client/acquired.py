"""The records of acquired ranges, fetched from their partitions and kept for the next range of the same batch.

Owns one stretch of read messages for each partition: members that take a thousand records at a time from batches of
ten thousand fetch and open each batch once. A stretch serves ranges of the topic id under which it was read, and of
leader epochs up to its own: under later ones the log may have been truncated and rewritten. Called by the share
consumer. Sends requests through the network and waits.
"""

from collections.abc import Iterable
from typing import NamedTuple

from msgspec import UNSET

from ..addresses import TopicPartition, partition_address
from ..batch import split
from ..compression import CodecUnavailable
from ..fetched_records import end_of_batch_at, is_for_readers
from ..machine import Call
from ..protocol.data import Fetch, FetchReply
from ..protocol.errors import ErrorCode, PlanariaError, ProtocolError
from ..protocol.shares import AcquiredRange
from .errors import CorruptData
from .messages import Message, messages_of, verify_batch
from .network import Network

FETCH_BYTES = 1024 * 1024


class Read(NamedTuple):
    messages: list[Message]
    end: int
    """The offset after the part that was read."""
    size_bytes: int


class RangeReader:
    def __init__(self, network: Network, request_timeout_ms: int) -> None:
        self._network = network
        self._request_timeout_ms = request_timeout_ms
        self._stretches: dict[TopicPartition, _Stretch] = {}

    def read(self, wanted: AcquiredRange, room_bytes: int, *, is_first: bool) -> Read:
        """Return the messages of the range, without missing records, as long as their values fit `room_bytes`.

        With `is_first` the first message is read however large it is. Raises ProtocolError when the partition cannot
        be read, and CorruptData, both only at the start of the range: records before the damage are returned first.
        """
        found: list[Message] = []
        size_bytes = 0
        position, end = wanted.first_offset, wanted.last_offset + 1
        while position < end:
            stretch = self._stretches.get(TopicPartition(wanted.topic, wanted.partition))
            if stretch is None or not stretch.has(wanted, position):
                try:
                    stretch = self._fetch(wanted, position)
                except (ProtocolError, CorruptData):
                    if position > wanted.first_offset:
                        return Read(found, position, size_bytes)
                    raise
                if stretch is None:
                    break
            more = stretch.within(position, end)
            more_bytes = _size_bytes(more)
            if size_bytes + more_bytes > room_bytes:
                for message in more:
                    size_bytes += len(message.value or b"")
                    if size_bytes > room_bytes and (found or not is_first):
                        return Read(found, message.offset, size_bytes)
                    found.append(message)
            else:
                found += more
                size_bytes += more_bytes
            position = stretch.end
        return Read(found, end, size_bytes)

    def _fetch(self, wanted: AcquiredRange, offset: int) -> "_Stretch | None":
        """Fetch the records from `offset` on. Return None if `offset` is below the log start."""
        topic, partition = wanted.topic, wanted.partition
        request = Fetch(
            topic=topic,
            partition=partition,
            offset=offset,
            max_bytes=FETCH_BYTES,
            format="batches",
            topic_id=wanted.topic_id or None,
            leader_epoch=None if wanted.leader_epoch is UNSET else wanted.leader_epoch,
        )
        address = partition_address(topic, partition)
        ask = Call(None, address, request, FetchReply, timeout_ms=self._request_timeout_ms, is_retried=True)
        try:
            answer = self._network.exchange(ask)
        except ProtocolError as error:
            if error.code == ErrorCode.OFFSET_OUT_OF_RANGE:
                return None
            if error.code in (ErrorCode.UNKNOWN_TOPIC_ID, ErrorCode.LOG_TRUNCATED):
                # The range belongs to records that are gone. The group is notified too, and acquires the
                # present ones.
                raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, error.message) from error
            raise
        reply: FetchReply = answer.reply
        if reply.next_offset <= offset:
            message = f"{topic}/{partition} cannot be read at offset {offset} now"
            raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, message)
        aborted = () if reply.aborted is UNSET else reply.aborted
        left_out = {(each.producer_id, each.producer_epoch) for each in aborted}
        topic_id = "" if reply.topic_id is UNSET else reply.topic_id
        origin = (topic_id, 0 if reply.leader_epoch is UNSET else reply.leader_epoch)
        messages: list[Message] = []
        position = offset
        for _, batch in [each for frame in answer.payload for each in split(frame)]:
            try:
                header = verify_batch(topic, partition, batch, position)
                if is_for_readers(header, left_out) and header.next_offset > offset:
                    messages += messages_of(topic, partition, header, batch, offset)
            except CorruptData as error:
                if position == offset:
                    error.next_offset = end_of_batch_at(batch, offset)
                    raise
                return self._keep(topic, partition, _Stretch(offset, position, messages, *origin))
            position = max(offset, header.next_offset)
        return self._keep(topic, partition, _Stretch(offset, reply.next_offset, messages, *origin))

    def _keep(self, topic: str, partition: int, stretch: "_Stretch") -> "_Stretch":
        self._stretches[TopicPartition(topic, partition)] = stretch
        return stretch


def is_unreadable(error: PlanariaError) -> bool:
    """Return True if no consumer can ever read the records: they are damaged, not only lacking a codec here."""
    if isinstance(error, CorruptData):
        return not isinstance(error.__cause__, CodecUnavailable)
    return isinstance(error, ProtocolError) and error.code == ErrorCode.CORRUPT_LOG


def damage_end(error: PlanariaError, first: int) -> int:
    """Return the offset after the records that cannot be read from `first` on, as far as known, or `first` + 1."""
    end = error.next_offset if isinstance(error, CorruptData | ProtocolError) else None
    return max(first + 1, end) if isinstance(end, int) else first + 1


def _size_bytes(messages: Iterable[Message]) -> int:
    return sum(len(message.value or b"") for message in messages)


class _Stretch:
    def __init__(
        self,
        first: int,
        end: int,
        messages: list[Message],
        topic_id: str,
        leader_epoch: int,
    ) -> None:
        self.first = first
        self.end = end
        self._topic_id = topic_id
        self._leader_epoch = leader_epoch
        self._messages = messages
        self._is_whole = len(messages) == end - first

    def has(self, wanted: AcquiredRange, offset: int) -> bool:
        """Return True if it contains this offset of the range."""
        is_of_topic = wanted.topic_id in ("", self._topic_id)
        is_of_log = wanted.leader_epoch is UNSET or wanted.leader_epoch <= self._leader_epoch
        return is_of_topic and is_of_log and self.first <= offset < self.end

    def within(self, first: int, end: int) -> list[Message]:
        if self._is_whole:
            return self._messages[first - self.first : max(0, end - self.first)]
        return [message for message in self._messages if first <= message.offset < end]
