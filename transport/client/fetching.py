"""Read ahead for a consumer: locate starts, keep one fetch per partition in flight, bound the buffers. Pure.

Lives on the network thread; the program's thread takes Chunks and reports consumption. A partition is followed under
an epoch: every start, seek or stop ends the previous epoch, and replies of an older epoch are dropped.

    state of a partition    meaning                                     left by
    locating                the start offset has been requested         its reply -> following
    following               one fetch in flight, unless buffers full    OFFSET_OUT_OF_RANGE -> locating; LOG_TRUNCATED ->
                                                                        following, elsewhere; refusal -> halted
    halted                  an error was reported                       a start at an offset -> following

A position belongs to one topic: each fetch after the first names its id. When the topic has been deleted and created
again (UNKNOWN_TOPIC_ID), the position is void. A member waits for the coordinator, which assigns the new partition; any
other consumer is located again: at the group's committed offset in the new topic, otherwise at its beginning.
"""

from itertools import count

from msgspec import UNSET, Struct

from ..addresses import TopicPartition, coordinator_address
from ..compression import Buffer
from ..log_access.reader import PartitionReader
from ..machine import Answered, Call, Effect, Event, Failed, SetTimer, TimerFired
from ..protocol.data import FetchReply, ListOffsetsReply
from ..protocol.errors import ErrorBody, ErrorCode
from ..protocol.groups import FetchOffsets, FetchOffsetsReply
from ..protocol.message import by_topic
from .options import ConsumerOptions, OffsetReset

UNKNOWN_TOPIC_PAUSE_MS = 500


class StartFetching(Struct, frozen=True):
    """Follow partitions from an offset; None: from the committed offset, or as `auto_offset_reset` says."""

    starts: dict[TopicPartition, tuple[int, int | None]]
    """Epoch and offset."""


class StopFetching(Struct, frozen=True):
    tps: tuple[TopicPartition, ...]


class SetPaused(Struct, frozen=True):
    tps: tuple[TopicPartition, ...]
    is_paused: bool


class Consumed(Struct, frozen=True):
    """The program has taken a chunk: there is room for more."""

    tp: TopicPartition
    epoch: int
    size_bytes: int


class GaveUp(Struct, frozen=True):
    """The program cannot continue: fetched data is damaged. Nothing more is fetched until a start at an offset."""

    tp: TopicPartition
    epoch: int


class Located(Struct, frozen=True):
    """The start of a partition, or the new position after the earlier one became void, with its origin."""

    tp: TopicPartition
    epoch: int
    offset: int
    topic_id: str | None = None
    """None: not known before the first chunk."""
    reset_epoch: int | None = None
    """The group's reset epoch for this partition; None when the position is not the group's."""
    leader_epoch: int | None = None
    """Leader epoch under which the position was read, if known."""
    lost_from: int | None = None
    """The previous position, when the log was truncated below it."""


class Chunk(Struct, frozen=True):
    """Fetched bytes of one partition: runs of whole batches."""

    tp: TopicPartition
    epoch: int
    frames: tuple[Buffer, ...]
    size_bytes: int
    next_offset: int
    aborted: frozenset[tuple[int, int]] = frozenset()
    """Producer ids and epochs of the aborted transactions in it."""
    topic_id: str | None = None
    leader_epoch: int | None = None
    """Leader epoch under which the chunk was read."""


class Trouble(Struct, frozen=True):
    """A partition cannot be read until the program seeks. `offset` is -1 if there is none."""

    tp: TopicPartition
    epoch: int
    offset: int
    error: ErrorBody


class _Follower(Struct, eq=False):
    epoch: int
    reader: PartitionReader
    is_busy: bool = False
    """True while a request about this partition is in flight."""
    is_halted: bool = False
    buffered_bytes: int = 0
    reset_epoch: int | None = None
    is_older: bool = False
    """True if it precedes its topic, which was created again: all its records are newer, so all are read."""


class Fetching:
    """Keep every followed partition one fetch ahead of the program."""

    def __init__(self, group: str | None, options: ConsumerOptions, *, is_member: bool) -> None:
        self._group = group
        self._is_member = is_member
        self._options = options
        self._reset = options.auto_offset_reset
        self._max_bytes = options.fetch_max_bytes
        self._request_timeout_ms = options.request_timeout_ms
        self._followers: dict[TopicPartition, _Follower] = {}
        self._paused: set[TopicPartition] = set()
        self._serials = count(1)
        self._locating: dict[int, dict[TopicPartition, int]] = {}

    @property
    def buffered_bytes(self) -> int:
        return sum(follower.buffered_bytes for follower in self._followers.values())

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case StartFetching(starts=starts):
                return self._on_start(starts)
            case StopFetching(tps=tps):
                for tp in tps:
                    self._followers.pop(tp, None)
                    self._paused.discard(tp)
                return self._fetch_all()
            case SetPaused(tps=tps, is_paused=True):
                self._paused.update(tps)
                return []
            case SetPaused(tps=tps):
                self._paused.difference_update(tps)
                return self._fetch_all()
            case Consumed(tp=tp, epoch=epoch, size_bytes=size_bytes):
                follower = self._follower(tp, epoch)
                if follower is not None:
                    follower.buffered_bytes -= size_bytes
                return self._fetch_all()
            case GaveUp(tp=tp, epoch=epoch):
                follower = self._follower(tp, epoch)
                if follower is not None:
                    follower.is_halted = True
                    follower.buffered_bytes = 0
                return self._fetch_all()
            case Answered(key=("fetch", tp, epoch), reply=FetchReply() as reply, payload=payload):
                return self._on_fetched(tp, epoch, reply, tuple(payload))
            case Answered(key=("committed", serial), reply=FetchOffsetsReply() as reply):
                return self._on_committed(serial, reply)
            case Answered(key=("reset", tp, epoch), reply=ListOffsetsReply() as reply):
                return self._on_reset(tp, epoch, reply)
            case Failed(key=("committed", serial), error=error):
                return self._on_no_committed(serial, error)
            case Failed(key=(kind, tp, epoch), error=error):
                return self._on_failed(kind, tp, epoch, error, now)
            case TimerFired(key=("again", tp, epoch)):
                follower = self._follower(tp, epoch)
                return self._resume(tp, follower) if follower is not None else []
        raise AssertionError(f"no such event: {event!r}")

    def _follower(self, tp: TopicPartition, epoch: int) -> _Follower | None:
        follower = self._followers.get(tp)
        return follower if follower is not None and follower.epoch == epoch else None

    # Locating the start.

    def _on_start(self, starts: dict[TopicPartition, tuple[int, int | None]]) -> list[Effect]:
        effects: list[Effect] = []
        unlocated: dict[TopicPartition, int] = {}
        for tp, (epoch, offset) in starts.items():
            before = self._followers.get(tp)
            # A seek is the program's own decision: only a member's position remains the group's.
            reset_epoch = before.reset_epoch if before is not None and self._is_member else None
            reader = PartitionReader(tp, offset, isolation=self._options.isolation)
            self._followers[tp] = _Follower(epoch, reader, reset_epoch=reset_epoch)
            if offset is None:
                unlocated[tp] = epoch
            else:
                effects.append(Located(tp, epoch, offset, reset_epoch=reset_epoch))
        return effects + self._locate(unlocated) + self._fetch_all()

    def _locate(self, tps: dict[TopicPartition, int]) -> list[Effect]:
        if not tps:
            return []
        for tp in tps:
            self._followers[tp].is_busy = True
        if self._group is None:
            return [effect for tp, epoch in tps.items() for effect in self._ask_reset(tp, epoch)]
        serial = next(self._serials)
        self._locating[serial] = tps
        request = FetchOffsets(group=self._group, partitions=by_topic(tps))
        key = ("committed", serial)
        return [
            Call(
                key,
                coordinator_address(self._group),
                request,
                FetchOffsetsReply,
                timeout_ms=self._request_timeout_ms,
                is_retried=True,
            )
        ]

    def _on_committed(self, serial: int, reply: FetchOffsetsReply) -> list[Effect]:
        committed = {(item.topic, item.partition): item for item in reply.offsets}
        effects: list[Effect] = []
        for tp, epoch in self._locating.pop(serial).items():
            follower = self._follower(tp, epoch)
            if follower is None:
                continue
            follower.reader.topic_id = reply.topic_ids.get(tp[0])
            follower.reset_epoch = reply.reset_epoch
            if (item := committed.get(tp)) is not None:
                follower.reset_epoch = reply.reset_epoch if item.reset_epoch is UNSET else item.reset_epoch
                leader_epoch = None if item.leader_epoch is UNSET else item.leader_epoch
                follower.reader.seek(item.offset, leader_epoch)
                effects += self._on_located(tp, follower)
            else:
                effects += self._ask_reset(tp, epoch)
        return effects

    def _on_no_committed(self, serial: int, error: ErrorBody) -> list[Effect]:
        tps = {
            tp: epoch
            for tp, epoch in self._locating.pop(serial).items()
            if self._follower(tp, epoch) is not None
        }
        if error.retriable:
            return self._locate(tps)
        if error.code == ErrorCode.UNKNOWN_GROUP:
            return [effect for tp, epoch in tps.items() for effect in self._ask_reset(tp, epoch)]
        return [effect for tp, epoch in tps.items() for effect in self._halt(tp, epoch, error)]

    def _ask_reset(self, tp: TopicPartition, epoch: int, at: OffsetReset | None = None) -> list[Effect]:
        at = at or ("earliest" if self._followers[tp].is_older else self._reset)
        if at == "error":
            return self._halt(tp, epoch, ErrorBody("NO_OFFSET", "no committed offset"))
        reader = self._followers[tp].reader
        timeout_ms = self._request_timeout_ms
        return [reader.locate(("reset", tp, epoch), at, request_timeout_ms=timeout_ms, is_retried=True)]

    def _on_reset(self, tp: TopicPartition, epoch: int, reply: ListOffsetsReply) -> list[Effect]:
        follower = self._follower(tp, epoch)
        if follower is None:
            return []
        follower.reader.on_located(reply)
        return self._on_located(tp, follower)

    def _on_located(
        self, tp: TopicPartition, follower: _Follower, lost_from: int | None = None
    ) -> list[Effect]:
        follower.is_busy = False
        reader = follower.reader
        assert reader.offset is not None
        origin = (reader.topic_id, follower.reset_epoch, reader.leader_epoch)
        return [Located(tp, follower.epoch, reader.offset, *origin, lost_from), *self._fetch(tp, follower)]

    # Reading ahead.

    def _fetch_all(self) -> list[Effect]:
        return [effect for tp, follower in self._followers.items() for effect in self._fetch(tp, follower)]

    def _fetch(self, tp: TopicPartition, follower: _Follower) -> list[Effect]:
        if follower.is_busy or follower.is_halted or follower.reader.offset is None or tp in self._paused:
            return []
        if follower.buffered_bytes >= 2 * self._max_bytes:
            return []
        if self.buffered_bytes >= self._options.prefetch_bytes:
            return []
        follower.is_busy = True
        return [
            follower.reader.fetch(
                ("fetch", tp, follower.epoch),
                max_bytes=self._max_bytes,
                min_bytes=self._options.fetch_min_bytes,
                max_wait_ms=self._options.fetch_max_wait_ms,
                request_timeout_ms=self._request_timeout_ms,
                is_retried=True,
            )
        ]

    def _on_fetched(
        self, tp: TopicPartition, epoch: int, reply: FetchReply, frames: tuple[Buffer, ...]
    ) -> list[Effect]:
        follower = self._follower(tp, epoch)
        if follower is None or follower.is_halted:
            return []
        follower.is_busy = False
        reader = follower.reader
        fetched = reader.on_fetched(reply, frames)
        size_bytes = sum(len(frame) for frame in frames)
        follower.buffered_bytes += size_bytes
        # The next fetch leaves before the program receives this chunk: it decodes while the broker reads.
        effects = self._fetch(tp, follower)
        if frames or fetched.has_moved:  # compaction may have removed all records of a range
            end, origin = fetched.next_offset, (reader.topic_id, reader.leader_epoch)
            effects.append(Chunk(tp, epoch, frames, size_bytes, end, fetched.aborted, *origin))
        return effects

    def _on_failed(
        self, kind: str, tp: TopicPartition, epoch: int, error: ErrorBody, now: int
    ) -> list[Effect]:
        follower = self._follower(tp, epoch)
        if follower is None:
            return []
        if error.retriable:
            return self._resume(tp, follower)
        if error.code == ErrorCode.OFFSET_OUT_OF_RANGE and kind == "fetch" and self._reset != "error":
            is_beginning = follower.reader.offset == 0  # retention has deleted records since
            follower.reader.seek(None)
            return self._ask_reset(tp, epoch, "earliest" if is_beginning else self._reset)
        if error.code == ErrorCode.LOG_TRUNCATED and kind == "fetch" and self._reset != "error":
            return self._on_truncated(tp, follower, error)
        if self._is_member and error.code in (ErrorCode.UNKNOWN_TOPIC, ErrorCode.UNKNOWN_PARTITION):
            # The topic is gone and the coordinator will revoke the partition. There is nothing to do
            # until then.
            return [SetTimer(("again", tp, epoch), now + UNKNOWN_TOPIC_PAUSE_MS)]
        if error.code == ErrorCode.UNKNOWN_TOPIC_ID:
            return self._on_replaced(tp, follower, error, now)
        return self._halt(tp, epoch, error)

    def _on_truncated(self, tp: TopicPartition, follower: _Follower, error: ErrorBody) -> list[Effect]:
        """Handle lost records: continue with the records that replaced them, as Kafka's consumers do (KIP-320)."""
        return self._on_located(tp, follower, follower.reader.on_truncated(error))

    def _on_replaced(
        self, tp: TopicPartition, follower: _Follower, error: ErrorBody, now: int
    ) -> list[Effect]:
        """Handle a void position: it belongs to an earlier topic of this name."""
        again = SetTimer(("again", tp, follower.epoch), now + UNKNOWN_TOPIC_PAUSE_MS)
        if self._is_member:
            return [again]  # the coordinator revokes the partition, and assigns that of the new topic
        if self._reset == "error":
            return self._halt(tp, follower.epoch, error)
        follower.reader.seek(None)
        follower.reader.topic_id = follower.reset_epoch = None
        follower.is_older = True
        if self._group is None:
            return self._ask_reset(tp, follower.epoch)
        return [again]  # until the group's coordinator knows the new topic too

    def _resume(self, tp: TopicPartition, follower: _Follower) -> list[Effect]:
        follower.is_busy = False
        if follower.reader.offset is not None:
            return self._fetch(tp, follower)
        if follower.reader.topic_id is None:
            return self._locate({tp: follower.epoch})
        follower.is_busy = True
        return self._ask_reset(tp, follower.epoch)

    def _halt(self, tp: TopicPartition, epoch: int, error: ErrorBody) -> list[Effect]:
        follower = self._followers[tp]
        follower.is_halted = True
        follower.is_busy = False
        offset = follower.reader.offset
        return [Trouble(tp, epoch, -1 if offset is None else offset, error)]
