"""The partitions that a consumer owns, with their positions and unread data. Pure. The base of the reader."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import count

from msgspec import UNSET, Struct, field
from msgspec.structs import replace

from ..addresses import TopicPartition
from ..batch import BatchHeader
from ..protocol.errors import PlanariaError
from ..protocol.groups import PartitionOffset
from .fetching import Chunk, Located
from .messages import Message


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


class OwnedPartitions:
    """Ownership and positions. Each assignment begins a new epoch of its partition."""

    def __init__(self) -> None:
        self._held: dict[TopicPartition, OwnedPartition] = {}
        self._turns: deque[TopicPartition] = deque()
        self._epochs = count(1)
        self._lost: set[TopicPartition] = set()

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

    def epoch(self, tp: TopicPartition) -> int:
        return self._held[tp].epoch

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
