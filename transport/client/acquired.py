"""The records of acquired ranges, fetched from their partitions and kept for the next range of the same batch.

Owns one stretch of read messages for each partition: members that take a thousand records at a time from batches of
ten thousand fetch and open each batch once. A stretch serves ranges of the topic id under which it was read, and of
leader epochs up to its own: under later ones the log may have been truncated and rewritten. Pure: the share consumer,
which calls it, sends the fetches.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from msgspec import UNSET, structs

from ..addresses import TopicPartition
from ..codec import sendable
from ..compression import Buffer, CodecUnavailable
from ..fetched_records import end_of_batch_at, is_for_readers
from ..log_access.reader import PartitionReader
from ..machine import Answered, Call
from ..protocol.data import FetchReply
from ..protocol.errors import ErrorCode, PlanariaError, ProtocolError
from ..protocol.shares import AcquiredRange
from .acknowledgements import ACCEPTED, RELEASED, Said
from .errors import CorruptData
from .messages import Message, messages_of, verify_batch

FETCH_BYTES = 1024 * 1024

RangeVerdict: TypeAlias = tuple[TopicPartition, Iterable[int], Said]
"""A verdict about these offsets of a partition."""


class Read(NamedTuple):
    messages: list[Message]
    end: int
    """The offset after the part that was read."""
    size_bytes: int


class Stretches:
    """The stretch of each partition that was read last."""

    def __init__(self, request_timeout_ms: int) -> None:
        self.request_timeout_ms = request_timeout_ms
        self._stretches: dict[TopicPartition, _Stretch] = {}

    def find(self, wanted: AcquiredRange, position: int) -> "_Stretch | None":
        stretch = self._stretches.get(wanted.topic_partition)
        return stretch if stretch is not None and stretch.has(wanted, position) else None

    def keep(self, wanted: AcquiredRange, stretch: "_Stretch") -> None:
        self._stretches[wanted.topic_partition] = stretch


class RangeReading:
    """Reads the messages of one range, without missing records, as long as their values fit `room_bytes`.

    With `is_first` the first message is read however large it is.
    """

    def __init__(
        self, stretches: Stretches, wanted: AcquiredRange, room_bytes: int, *, is_first: bool
    ) -> None:
        self._stretches = stretches
        self._wanted = wanted
        self._room_bytes = room_bytes
        self._is_first = is_first
        self._position, self._end = wanted.first_offset, wanted.last_offset + 1
        self._found: list[Message] = []
        self._size_bytes = 0
        self._error: PlanariaError | None = None

    def advance(self) -> Call | Read:
        """Return the result, or the fetch that is needed first; `handle` takes its outcome.

        Raises ProtocolError when the partition cannot be read, and CorruptData, both only at the start of the range:
        records before the damage are returned first.
        """
        while self._position < self._end:
            if self._error is not None:
                if self._position > self._wanted.first_offset:
                    break
                raise self._error
            stretch = self._stretches.find(self._wanted, self._position)
            if stretch is None:
                return self._fetch()
            if not self._take(stretch):
                break
        return Read(self._found, self._position, self._size_bytes)

    def _take(self, stretch: "_Stretch") -> bool:
        """Take the messages of the stretch. Return False if there is no room for all of them."""
        more = stretch.within(self._position, self._end)
        more_bytes = _size_bytes(more)
        if self._size_bytes + more_bytes <= self._room_bytes:
            self._found += more
            self._size_bytes += more_bytes
        else:
            for message in more:
                self._size_bytes += len(message.value or b"")
                if self._size_bytes > self._room_bytes and (self._found or not self._is_first):
                    self._position = message.offset
                    return False
                self._found.append(message)
        self._position = min(stretch.end, self._end)
        return True

    def _fetch(self) -> Call:
        timeout_ms = self._stretches.request_timeout_ms
        return self._reader().fetch(
            None, max_bytes=FETCH_BYTES, request_timeout_ms=timeout_ms, is_retried=True
        )

    def _reader(self) -> PartitionReader:
        wanted = self._wanted
        leader_epoch = None if wanted.leader_epoch is UNSET else wanted.leader_epoch
        return PartitionReader(wanted.topic_partition, self._position, wanted.topic_id or None, leader_epoch)

    def handle(self, outcome: Answered | ProtocolError) -> None:
        """Take the outcome of the fetch."""
        try:
            if isinstance(outcome, ProtocolError):
                self._on_refusal(outcome)
            else:
                self._on_fetched(outcome.reply, outcome.payload)
        except PlanariaError as error:
            self._error = error

    def _on_refusal(self, error: ProtocolError) -> None:
        if error.code == ErrorCode.OFFSET_OUT_OF_RANGE:  # below the log start: no record is left
            self._position = self._end
            return
        if error.code in (ErrorCode.UNKNOWN_TOPIC_ID, ErrorCode.LOG_TRUNCATED):
            # The range belongs to records that are gone. The group is notified too, and acquires the present ones.
            raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, error.message) from error
        raise error

    def _on_fetched(self, reply: FetchReply, payload: Sequence[Buffer]) -> None:
        offset, topic, partition = self._position, self._wanted.topic, self._wanted.partition
        reader = self._reader()
        fetched = reader.on_fetched(reply, payload)
        if not fetched.has_moved:
            message = f"{topic}/{partition} cannot be read at offset {offset} now"
            raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, message)
        messages: list[Message] = []
        position, end = offset, fetched.next_offset
        for _, batch in fetched.batches():
            try:
                header = verify_batch(topic, partition, batch, position)
                if is_for_readers(header, fetched.aborted):
                    messages += messages_of(topic, partition, header, batch, offset)
            except CorruptData as error:
                if position == offset:
                    error.next_offset = end_of_batch_at(batch, offset)
                    raise
                end = position
                break
            position = header.next_offset
        origin = (reader.topic_id or "", reader.leader_epoch or 0)
        self._stretches.keep(self._wanted, _Stretch(offset, end, messages, *origin))


class Acquisition:
    """Reads the acquired ranges of one poll, in order, and collects the verdicts about those it cannot return.

    Offsets without a record are accepted; damaged records are rejected, as the coordinator does when it reads; records
    that do not fit, or cannot be read now, are released.
    """

    def __init__(self, stretches: Stretches, ranges: Sequence[AcquiredRange], room_bytes: int) -> None:
        self.found: list[tuple[Message, int]] = []
        """Messages and their delivery counts."""
        self.verdicts: list[RangeVerdict] = []
        self._stretches = stretches
        self._left = deque(ranges)
        self._room_bytes = room_bytes
        self._is_full = False
        self._reading: RangeReading | None = None

    def advance(self) -> Call | None:
        """Return the fetch that is needed next; None when all is read. Raises the error that prevents any reading."""
        while self._left:
            each = self._left[0]
            if self._is_full:
                self.release([self._left.popleft()])
                continue
            if self._reading is None:
                room_bytes, is_first = self._room_bytes, not self.found
                self._reading = RangeReading(self._stretches, each, room_bytes, is_first=is_first)
            try:
                read = self._reading.advance()
            except PlanariaError as error:
                self._on_error(error)
                continue
            if isinstance(read, Call):
                return read
            self._left.popleft()
            self._reading = None
            self._take(each, read)
        return None

    def release(self, ranges: Iterable[AcquiredRange]) -> None:
        """Release all messages: they are not returned."""
        self.verdicts += released(ranges)

    def handle(self, outcome: Answered | ProtocolError) -> None:
        assert self._reading is not None
        self._reading.handle(outcome)

    def _take(self, each: AcquiredRange, read: Read) -> None:
        tp = each.topic_partition
        self.found += [(message, each.delivery_count) for message in read.messages]
        self._room_bytes -= read.size_bytes
        self._is_full = read.end <= each.last_offset
        if self._is_full:
            said = RELEASED.about(each.delivery_count)
            self.verdicts.append((tp, range(read.end, each.last_offset + 1), said))
        if len(read.messages) < read.end - each.first_offset:
            there = {message.offset for message in read.messages}
            gaps = [at for at in range(each.first_offset, read.end) if at not in there]
            self.verdicts.append((tp, gaps, ACCEPTED.about(each.delivery_count)))

    def _on_error(self, error: PlanariaError) -> None:
        self._reading = None
        if is_unreadable(error):
            damaged = self._left.popleft()
            end = min(damage_end(error, damaged.first_offset), damaged.last_offset + 1)
            said = Said("reject", 0, sendable(str(error))[:1_000], damaged.delivery_count)
            self.verdicts.append((damaged.topic_partition, range(damaged.first_offset, end), said))
            if end <= damaged.last_offset:
                self._left.appendleft(structs.replace(damaged, first_offset=end))
            return
        self.release(self._left)
        self._left.clear()
        if not self.found:
            raise error


def released(ranges: Iterable[AcquiredRange]) -> list[RangeVerdict]:
    """Return the verdicts by which records return to their group at once, without a charge."""
    return [(each.topic_partition, each.offsets, RELEASED.about(each.delivery_count)) for each in ranges]


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
