"""A partition without a process: the real machine on a log that is a list, with turns, a full disk and crashes at will.

Performs effects as the partition's process does (appends at the end of the turn, then the sync, then the news), so that a
test may stop it between any two of these steps.
"""

from typing import Any, Literal

from planaria.actors.log.producers import ProducerStates
from planaria.actors.partition.effects import (
    Alarm,
    Append,
    Appended,
    AppendFailed,
    ApplyRetention,
    BacklogMeasured,
    Checkpoint,
    Compacted,
    CompactSlice,
    DeleteBefore,
    DiskMeasured,
    LookedUp,
    LookUp,
    MeasureBacklog,
    MeasureDisk,
    Read,
    ReadDone,
    Reconfigure,
    SaveReaders,
    Started,
    Sync,
    Trimmed,
)
from planaria.actors.partition.machine import PartitionMachine
from planaria.actors.partition.parked import ParkedFetches
from planaria.actors.partition.readers import decode_readers
from planaria.transport.batch import BatchHeader, build, parse_header, split
from planaria.transport.deduplication import dedup_id_of
from planaria.transport.machine import Call, CancelTimer, Received, Reply, Sender, SetTimer, Stop, TimerFired
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from planaria.transport.protocol.message import Request
from planaria.transport.protocol.topics import TopicConfig

CrashPoint = Literal["before the write", "after the write", "after the sync"]


class Crashed(Exception):
    """The process died here; nothing it had to say was said."""


def a_batch(*values: bytes, attributes: int = 0, **sequencing: int) -> bytes:
    records = [(None, value, 0, None) for value in values]
    return build(
        records, first_timestamp_ms=1_000, max_timestamp_ms=1_000, attributes=attributes, **sequencing
    )


class SimulatedPartition:
    """Partition ORDERS/0. `log` holds (header, frame); the first `durable_count` survive a crash."""

    def __init__(
        self,
        config: TopicConfig | None = None,
        parked_limit: int = 100,
        now: int = 0,
        disk_reserve_bytes: int = 0,
    ) -> None:
        self.config = config or TopicConfig()
        self.now = now
        self.log: list[tuple[BatchHeader, bytes]] = []
        self.durable_count = 0
        self.log_start_offset = 0
        self.is_disk_full = False
        self.free_bytes = 1_000_000_000
        self.disk_measured = 0
        self._disk_reserve_bytes = disk_reserve_bytes
        self.stopped = False
        self.performed: list[Any] = []
        """Effects that only the process cares about, for a test to look at."""
        self.readers_file: bytes | None = None
        self.alarms: tuple[str, ...] = ()
        self._alarms: dict[str, tuple[str, ...]] = {}
        self.slices_due = 0
        """Of compaction."""
        self._parked_limit = parked_limit
        self._incarnation = 0
        self._last_id = 0
        self._start()

    def _start(self) -> None:
        self._incarnation += 1
        self._timers: dict[Any, int] = {}
        self._replies: list[Reply] = []
        self._appends: list[tuple[BatchHeader, bytes]] = []
        self._is_sync_wanted = False
        self.producers = ProducerStates()
        self.producers.identities.reconfigure(self.config.dedup_window_ms, self.config.dedup_window_count)
        self.producers.replay(((header, dedup_id_of(frame, header)) for header, frame in self.log), self.now)
        self.leader_epoch = self.log[-1][0].leader_epoch + 1 if self.log else 0
        self.machine = PartitionMachine(
            topic="ORDERS",
            partition=0,
            incarnation=self._incarnation,
            config=self.config,
            leader_epoch=self.leader_epoch,
            log_start_offset=self.log_start_offset,
            log_end_offset=self.log_end_offset,
            size_bytes=self.size_bytes,
            producers=self.producers,
            parked=ParkedFetches(self._parked_limit),
            topic_id="t1",
            readers=decode_readers(self.readers_file, self.now),
            disk_reserve_bytes=self._disk_reserve_bytes,
        )
        self.dispatch(Started())

    @property
    def log_end_offset(self) -> int:
        return self.log[-1][0].next_offset if self.log else 0

    @property
    def durable_end_offset(self) -> int:
        return self.log[self.durable_count - 1][0].next_offset if self.durable_count else 0

    @property
    def size_bytes(self) -> int:
        return sum(len(frame) for _, frame in self.log)

    def received(self, request: Request, payload: Any = (), as_json: bool = False) -> Received:
        self._last_id += 1
        return Received(Sender((b"peer",), self._last_id, as_json), request, payload)

    def ask(self, request: Request, payload: Any = (), as_json: bool = False) -> Reply | None:
        """The reply to a request that is alone in its turn; None while it waits."""
        asked = self.received(request, payload, as_json)
        return next((reply for reply in self.turn(asked) if reply.to == asked.sender), None)

    def advance(self, duration_ms: int) -> list[Reply]:
        """Let time pass, timer by timer."""
        end, replies = self.now + duration_ms, []
        while (next_at := min(self._timers.values(), default=end + 1)) <= end:
            self.now = max(self.now, next_at)
            replies += self.turn()
        self.now = end
        return replies

    def turn(self, *events: Any, crash_at: CrashPoint | None = None) -> list[Reply]:
        """One turn of the loop. Raises Crashed, with the partition restarted from what was durable, if told to."""
        for event in events:
            self.dispatch(event)
        for key in [key for key, at in self._timers.items() if at <= self.now]:
            del self._timers[key]
            self.dispatch(TimerFired(key))
        self._end_turn(crash_at)
        replies, self._replies = self._replies, []
        return replies

    def _end_turn(self, crash_at: CrashPoint | None) -> None:
        appends, is_sync_wanted = self._appends, self._is_sync_wanted
        self._appends, self._is_sync_wanted = [], False
        self._crash_if(crash_at == "before the write")
        if appends and self.is_disk_full:
            self.producers.revert()
            refusal = ProtocolError(ErrorCode.STORAGE_FULL, "no space left on device").body
            self.dispatch(AppendFailed(refusal, self.log_end_offset))
            appends = []
        if appends:
            self.log += appends
            self.producers.confirm([header for header, _ in appends], self.now)
        self._crash_if(crash_at == "after the write")
        if is_sync_wanted:
            self.durable_count = len(self.log)
        self._crash_if(crash_at == "after the sync")
        if appends:
            self.dispatch(Appended(self.log_end_offset, self.size_bytes))

    def _crash_if(self, is_due: bool) -> None:
        if is_due:
            self.crash()
            raise Crashed

    def crash(self, is_power_lost: bool = True) -> None:
        """Start again, with the durable part of the log, or with all that was written."""
        if is_power_lost:
            del self.log[self.durable_count :]
        self.durable_count = len(self.log)
        self._start()

    def dispatch(self, event: Any) -> None:
        for effect in self.machine.handle(event, self.now):
            self._take_up(effect)

    def _take_up(self, effect: Any) -> None:
        match effect:
            case Reply():
                self._replies.append(effect)
            case SetTimer(key=key, at=at):
                self._timers[key] = at
            case CancelTimer(key=key):
                self._timers.pop(key, None)
            case Stop():
                self.stopped = True
            case Append(frames=frames, headers=headers):
                run = b"".join(frames)
                assert [each[:3] for each, _ in split(run)] == [header[:3] for header in headers]
                self._appends += [(header, bytes(frame)) for header, frame in split(run)]
            case Sync():
                self._is_sync_wanted = True
            case Read():
                self._read(effect)
            case LookUp(asked=asked, timestamp_ms=timestamp_ms):
                self._look_up(asked, timestamp_ms)
            case DeleteBefore(asked=asked, offset=offset):
                self.log_start_offset = max(self.log_start_offset, offset)
                self.dispatch(Trimmed(self.log_start_offset, self.size_bytes, asked))
            case CompactSlice():
                self.performed.append(effect)
                self.slices_due = max(0, self.slices_due - 1)
                self.dispatch(Compacted(self.slices_due > 0, self.size_bytes))
            case MeasureBacklog(offset=offset):
                behind = sum(len(frame) for header, frame in self.log if header.next_offset > offset)
                self.dispatch(BacklogMeasured(behind))
            case SaveReaders(data=data):
                self.readers_file = data
            case MeasureDisk():
                self.disk_measured += 1
                self.dispatch(DiskMeasured(self.free_bytes))
            case Alarm(about=about, alarms=alarms):
                self._alarms[about] = alarms
                self.alarms = tuple(alarm for each in self._alarms.values() for alarm in each)
            case ApplyRetention() | Checkpoint() | Reconfigure() | Call():
                self.performed.append(effect)
            case _:
                raise AssertionError(f"unknown effect {effect!r}")

    def _read(self, read: Read) -> None:
        offset = read.asked.request.offset  # type: ignore[attr-defined]
        run, next_offset = b"", offset
        for header, frame in self.log:
            if header.next_offset <= offset:
                continue
            if header.next_offset > read.up_to_offset or (run and len(run) + len(frame) > read.max_bytes):
                break
            run += frame
            next_offset = header.next_offset
        self.dispatch(ReadDone(read, run, next_offset))

    def _look_up(self, asked: Received, timestamp_ms: int) -> None:
        for header, _ in self.log:
            if header.max_timestamp_ms >= timestamp_ms:
                self.dispatch(LookedUp(asked, header.base_offset, header.max_timestamp_ms))
                return
        self.dispatch(LookedUp(asked, None))


def offsets_in(run: Any) -> list[int]:
    """Base offsets of the batches in a run."""
    offsets, position = [], 0
    while position < len(run):
        header = parse_header(run, position)
        offsets.append(header.base_offset)
        position += header.size_bytes
    return offsets
