"""The program's side of a consumer: owned partitions, their positions, and the messages to return next. Pure.

Lives on the thread that polls. It receives the results of the network thread (Chunk, Located, Trouble) and returns
messages: never of a partition it does not own, and never twice or out of order within an epoch. Every assignment and
every seek begins a new epoch of its partition; results of the previous epoch are dropped on arrival.

Results keep their order. Data fetched before an error is returned before the error is raised, and a new location
takes effect after the data fetched before it, never within one call: the records that one call returns of a partition
belong to one topic and one reset of the group. Opened batches are kept until the next call, so that their remaining
messages, or those given back, can also be returned as whole batches. An error is raised as soon as it is next in its
partition, even while other partitions have data, and from then on whenever no partition has data.
"""

from collections.abc import Mapping, Sequence

from msgspec import UNSET

from ..addresses import TopicPartition
from ..batch import BatchHeader, InvalidBatch, split
from ..fetched_records import is_for_readers
from ..protocol.errors import ErrorBody, ErrorCode, PlanariaError
from .errors import CorruptData, NoOffset, error_from
from .fetching import Chunk, Consumed, GaveUp, Located, Trouble
from .messages import Message, MessageBatch, messages_of, verify_batch
from .owned_partitions import OwnedPartition, OwnedPartitions


class Reader(OwnedPartitions):
    """Takes chunks, returns messages, keeps positions."""

    def __init__(self) -> None:
        super().__init__()
        self._told: list[Consumed | GaveUp] = []

    def seek(self, tp: TopicPartition, offset: int | None) -> int:
        """Continue at `offset` (None: to be located). Return the partition's new epoch."""
        held = self._held[tp]
        held.drop()
        held.opened.clear()
        held.position = held.marked = offset
        held.topic_id = held.leader_epoch = None
        held.epoch = next(self._epochs)
        return held.epoch

    # From the network thread.

    def accept(self, item: Chunk | Located | Trouble) -> None:
        held = self._held.get(item.tp)
        if held is None or held.epoch != item.epoch:
            return
        match item:
            case _ if held.trouble is not None:
                return  # it lies after data that cannot be read
            case Trouble():
                held.trouble = _error_of(item)
            case Located() if held.position is None:
                held.locate(item)
            case Chunk() | Located():
                held.chunks.append(item)

    def told(self) -> list[Consumed | GaveUp]:
        """Return the events of the last calls for the network thread."""
        told, self._told = self._told, []
        return told

    def raise_trouble(self, tp: TopicPartition | None = None, *, is_new: bool = False) -> None:
        """Raise the error of a partition (or of this one) if no message precedes it.

        With `is_new`, raise only an error that has not been raised before.
        """
        for held in self._held.values():
            if held.trouble is None or held.is_paused or held.has_data or tp not in (None, held.tp):
                continue
            if not (is_new and held.is_trouble_raised):
                held.is_trouble_raised = True
                raise held.trouble.with_traceback(None)  # a fresh traceback: it would grow with each poll

    # To the program.

    def take(self, max_messages: int) -> list[Message]:
        """Return the next messages, taking partitions in turn; empty if there are none."""
        taken: list[Message] = []
        for _ in range(len(self._turns)):
            held = self._held[self._turns[0]]
            self._begin_call(held)
            count = len(taken)
            while not held.is_paused and self._open_batch(held, is_first=len(taken) == count):
                room = max_messages - len(taken)
                part = held.messages[held.cursor : held.cursor + room]
                taken += part
                held.cursor += len(part)
                held.position = part[-1].offset + 1
                if len(taken) == max_messages:
                    self._settle(held)
                    return taken
            self._turns.rotate(-1)
        return taken

    def take_batches(self, max_batches: int) -> list[MessageBatch]:
        """Return whole batches, verified, not decoded. The first may begin before the position: readers
        skip to it."""
        taken: list[MessageBatch] = []
        for _ in range(len(self._turns)):
            held = self._held[self._turns[0]]
            self._begin_call(held)
            if not held.is_paused:
                held.close_opened()
            count = len(taken)
            while not held.is_paused and len(taken) < max_batches:
                found = self._next_batch(held, is_first=len(taken) == count)
                if found is None:
                    break
                header, frame = found
                taken.append(MessageBatch(*held.tp, header, frame))
                held.position = header.next_offset
                self._settle(held)
            self._turns.rotate(-1)
        return taken

    def give_back(self, messages: Sequence[Message], epochs: Mapping[TopicPartition, int]) -> None:
        """Give back messages that were taken under these epochs and not read."""
        by_topic_partition: dict[TopicPartition, list[Message]] = {}
        for message in messages:
            by_topic_partition.setdefault(TopicPartition(message.topic, message.partition), []).append(
                message
            )
        for tp, unread in by_topic_partition.items():
            held = self._held.get(tp)
            if held is None or held.epoch != epochs.get(tp):
                continue
            held.messages = [*unread, *held.messages[held.cursor :]]
            held.cursor = 0
            held.position = unread[0].offset

    def _begin_call(self, held: OwnedPartition) -> None:
        if held.opened:
            held.forget_opened()

    def _open_batch(self, held: OwnedPartition, *, is_first: bool) -> bool:
        """Open a batch with messages at the cursor. Return False if there is none, or the next ones are damaged.

        `is_first`: the call has taken nothing of the partition yet, so that a new location may take effect.
        """
        while held.cursor >= len(held.messages):
            held.messages = ()
            held.cursor = 0
            found = self._next_batch(held, is_first=is_first)
            if found is None:
                return False
            header, frame = found
            assert held.position is not None
            try:
                held.messages = messages_of(*held.tp, header, frame, held.position)
            except CorruptData as error:
                self._give_up(held, error)
                return False
            held.opened.append(found)
        return True

    def _next_batch(self, held: OwnedPartition, *, is_first: bool) -> tuple[BatchHeader, memoryview] | None:
        """Return the next verified batch for programs, at or after the position."""
        if held.closed:
            return held.closed.popleft()
        while True:
            self._settle(held)
            if not held.batches:
                if not self._open_chunk(held, is_first=is_first):
                    return None
                continue  # a chunk without batches only moves the position
            header, frame = held.batches.popleft()
            assert held.position is not None
            if header.next_offset <= held.position:
                continue
            try:
                header = verify_batch(*held.tp, frame, held.position)
            except CorruptData as error:
                self._give_up(held, error)
                return None
            if is_for_readers(header, held.aborted):
                return header, frame
            held.position = header.next_offset

    def _open_chunk(self, held: OwnedPartition, *, is_first: bool) -> bool:
        while held.chunks and isinstance(located := held.chunks[0], Located):
            if not is_first:
                return False
            held.chunks.popleft()
            held.locate(located)
        if not held.chunks:
            return False
        chunk = held.chunks.popleft()
        assert isinstance(chunk, Chunk)
        self._told.append(Consumed(chunk.tp, chunk.epoch, chunk.size_bytes))
        held.chunk_end = chunk.next_offset
        held.aborted = chunk.aborted
        held.topic_id = chunk.topic_id or held.topic_id
        held.leader_epoch = chunk.leader_epoch
        try:
            for frame in chunk.frames:
                held.batches.extend(split(frame))
        except InvalidBatch as error:
            self._give_up(held, CorruptData(*held.tp, held.position or 0, str(error)))
            return False
        return True

    def _settle(self, held: OwnedPartition) -> None:
        """At the end of a chunk, move the position to the broker's next offset: offsets without messages
        are skipped."""
        is_read = not held.batches and not held.closed and held.cursor >= len(held.messages)
        if is_read and held.position is not None:
            held.position = max(held.position, held.chunk_end)

    def _give_up(self, held: OwnedPartition, error: CorruptData) -> None:
        held.drop()
        held.trouble = error
        self._told.append(GaveUp(held.tp, held.epoch))


def _error_of(item: Trouble) -> PlanariaError:
    topic, partition = item.tp
    where = f"{topic}/{partition}"
    if item.error.code == "NO_OFFSET":
        return NoOffset(f'the group has no offset for {where}, and auto_offset_reset is "error"')
    if item.error.code == ErrorCode.CORRUPT_LOG:
        next_offset = None if item.error.next_offset is UNSET else item.error.next_offset
        return CorruptData(topic, partition, item.offset, item.error.message, next_offset)
    if item.error.code == ErrorCode.OFFSET_OUT_OF_RANGE:
        message = f"offset {item.offset} is not in the log of {where}: {item.error.message}"
        return error_from(ErrorBody(item.error.code, message))
    return error_from(item.error)
