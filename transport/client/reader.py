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

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import count

from msgspec import UNSET, Struct, field
from msgspec.structs import replace

from ..addresses import TopicPartition
from ..batch import BatchHeader, InvalidBatch, split
from ..fetched_records import is_for_readers
from ..protocol.errors import ErrorBody, ErrorCode, PlanariaError
from ..protocol.groups import PartitionOffset
from .errors import CorruptData, NoOffset, error_from
from .fetching import Chunk, Consumed, GaveUp, Located, Trouble
from .messages import Message, MessageBatch, messages_of, verify_batch


class OwnedPartition(Struct, eq=False):
    """One partition this consumer owns."""

    tp: TopicPartition
    epoch: int
    position: int | None
    """The offset of the next message to return; None until it is known."""
    marked: int | None = None
    """The position at the last commit in a transaction, or where reading began."""
    began: int | None = None
    """The offset at which reading began, at first or after a seek."""
    topic_id: str | None = None
    """Id of the topic that the position belongs to, once known."""
    reset_epoch: int | None = None
    """The group's reset epoch, if the position was the group's committed offset."""
    leader_epoch: int | None = None
    """Leader epoch under which the position was read."""
    is_paused: bool = False
    trouble: PlanariaError | None = None
    """Error to raise after the remaining data."""
    is_trouble_raised: bool = False
    chunks: deque[Chunk | Located] = field(default_factory=deque)
    batches: "deque[tuple[BatchHeader, memoryview]]" = field(default_factory=deque)
    """Remaining batches of the current chunk."""
    opened: "deque[tuple[BatchHeader, memoryview]]" = field(default_factory=deque)
    """The batches of `messages`, and those taken by the last call."""
    closed: "deque[tuple[BatchHeader, memoryview]]" = field(default_factory=deque)
    """Verified batches that were opened and are returned again before `batches`."""
    aborted: frozenset[tuple[int, int]] = frozenset()
    """The aborted transactions in the chunk."""
    chunk_end: int = 0
    messages: Sequence[Message] = ()
    """Messages of the current batch; those from `cursor` on remain."""
    cursor: int = 0

    @property
    def has_data(self) -> bool:
        has_open = self.cursor < len(self.messages) or bool(self.closed)
        return has_open or bool(self.batches) or bool(self.chunks)

    def forget_opened(self) -> None:
        """Forget the batches that were returned whole and cannot be given back any more."""
        assert self.position is not None
        while self.opened and self.opened[0][0].next_offset <= self.position:
            self.opened.popleft()

    def close_opened(self) -> None:
        """Close the opened batches: their remaining messages are returned again as whole batches."""
        if self.cursor < len(self.messages):
            self.closed.extendleft(reversed(self.opened))
        self.opened.clear()
        self.messages = ()
        self.cursor = 0

    def drop(self) -> None:
        self.chunks.clear()
        self.batches.clear()
        self.closed.clear()
        self.messages = ()
        self.cursor = 0
        self.chunk_end = 0
        self.trouble = None
        self.is_trouble_raised = False

    def locate(self, located: Located) -> None:
        self.position = self.marked = self.began = located.offset
        self.topic_id, self.reset_epoch = located.topic_id or self.topic_id, located.reset_epoch
        self.leader_epoch = located.leader_epoch
        self.chunk_end = 0

    def settle(self) -> None:
        """At the end of a chunk, move the position to the broker's next offset: offsets without messages are skipped."""
        is_read = not self.batches and not self.closed and self.cursor >= len(self.messages)
        if is_read and self.position is not None:
            self.position = max(self.position, self.chunk_end)


class Reader:
    """Takes chunks, returns messages, keeps positions. Each assignment begins a new epoch of its partition."""

    def __init__(self) -> None:
        self._held: dict[TopicPartition, OwnedPartition] = {}
        self._turns: deque[TopicPartition] = deque()
        self._epochs = count(1)
        self._lost: set[TopicPartition] = set()
        self._events: list[Consumed | GaveUp] = []

    # Ownership and positions.

    @property
    def owned(self) -> frozenset[TopicPartition]:
        return frozenset(self._held)

    def add(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Own partitions from now on. Return the new epoch of each."""
        epochs: dict[TopicPartition, int] = {}
        for tp in sorted(tps):
            held = self._held[tp] = OwnedPartition(tp, next(self._epochs), None)
            self._turns.append(tp)
            epochs[tp] = held.epoch
        return epochs

    def remove(self, tps: Iterable[TopicPartition]) -> None:
        for tp in tps:
            held = self._held.pop(tp)
            if held.position != held.marked:
                self._lost.add(tp)
            self._turns.remove(tp)

    def mark(self, positions: Mapping[TopicPartition, int]) -> None:
        """Mark the messages returned up to these positions as processed."""
        for tp, position in positions.items():
            self._held[tp].marked = position

    def take_lost(self) -> list[TopicPartition]:
        """Return, once, the partitions that were lost with returned messages not marked since."""
        lost, self._lost = sorted(self._lost), set()
        return lost

    def set_paused(self, tp: TopicPartition, is_paused: bool) -> None:
        self._held[tp].is_paused = is_paused

    def paused(self) -> frozenset[TopicPartition]:
        return frozenset(tp for tp, held in self._held.items() if held.is_paused)

    def beginnings(self) -> dict[TopicPartition, int]:
        """Return the offset at which reading began, by partition, where it is known."""
        return {tp: held.began for tp, held in self._held.items() if held.began is not None}

    def position(self, tp: TopicPartition) -> int | None:
        return self._held[tp].position

    def origin(self, tp: TopicPartition) -> tuple[str | None, int | None]:
        """Return the topic id and the group's reset epoch of the position, as far as they are known."""
        held = self._held.get(tp)
        return (None, None) if held is None else (held.topic_id, held.reset_epoch)

    def stamped(self, item: PartitionOffset) -> PartitionOffset:
        """Return the offset with the origin of the partition's position, for its commit."""
        held = self._held.get(TopicPartition(item.topic, item.partition))
        if held is None:
            return item
        # Beyond the position nothing was read.
        leader_epoch = held.leader_epoch if item.offset <= (held.position or 0) else None
        return replace(
            item,
            topic_id=UNSET if held.topic_id is None else held.topic_id,
            reset_epoch=UNSET if held.reset_epoch is None else held.reset_epoch,
            leader_epoch=UNSET if leader_epoch is None else leader_epoch,
        )

    def positions(self) -> dict[TopicPartition, int]:
        """Return the positions by partition, where they are known."""
        return {tp: held.position for tp, held in self._held.items() if held.position is not None}

    def epochs(self) -> dict[TopicPartition, int]:
        return {tp: held.epoch for tp, held in self._held.items()}

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

    def take_events(self) -> list[Consumed | GaveUp]:
        """Return the events of the last calls for the network thread."""
        events, self._events = self._events, []
        return events

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
            if held.opened:
                held.forget_opened()
            count = len(taken)
            while not held.is_paused and self._open_batch(held, is_first=len(taken) == count):
                room = max_messages - len(taken)
                part = held.messages[held.cursor : held.cursor + room]
                taken += part
                held.cursor += len(part)
                held.position = part[-1].offset + 1
                if len(taken) == max_messages:
                    held.settle()
                    return taken
            self._turns.rotate(-1)
        return taken

    def take_batches(self, max_batches: int) -> list[MessageBatch]:
        """Return whole batches, verified, not decoded. The first may begin before the position: readers
        skip to it."""
        taken: list[MessageBatch] = []
        for _ in range(len(self._turns)):
            held = self._held[self._turns[0]]
            if held.opened:
                held.forget_opened()
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
                held.settle()
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
            held.settle()
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
        self._events.append(Consumed(chunk.tp, chunk.epoch, chunk.size_bytes))
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

    def _give_up(self, held: OwnedPartition, error: CorruptData) -> None:
        held.drop()
        held.trouble = error
        self._events.append(GaveUp(held.tp, held.epoch))


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
