"""The partition's process: one log, one lock, one machine, and a loop around them.

Owns the directory's lock for life and the open log. It makes no decisions: it performs the machine's effects, gathers
the appends of a turn into one write and one sync, and turns the log's errors into the machine's events. Errors that
the machine must not see crash the actor: after a failed write or sync only a recovery can determine the contents of
the disk. Started by the supervisor through `main`.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, assert_never

import msgspec

from ...transport.actor import Actor, ActorContext, PeerDoor
from ...transport.batch import BatchHeader, parse_header
from ...transport.clock import elapsed_ms
from ...transport.compression import Buffer
from ...transport.loop import run_actor
from ...transport.machine import Received
from ...transport.protocol.data import Fetch, ListOffsets, Produce
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Request
from ...transport.protocol.mirrors import REQUESTS_TO_PARTITION
from ...transport.protocol.operations import LogReport
from ...transport.protocol.progress import ReportProgress
from ...transport.protocol.quotas import QuotasInForce
from ...transport.protocol.replication import REQUESTS_TO_REPLICA
from ...transport.protocol.session import Cancel
from ...transport.protocol.topics import (
    ConfigurePartition,
    DeleteRecords,
    DescribePartition,
    HighestEra,
    TopicConfig,
)
from ...transport.protocol.transactions import WriteMarkers
from ...transport.security.key_files import read_key_file
from ..journal.sleep_mark import SleepMark, partition_mark
from ..log.companions import GROUPS_NAME, loss_of_companion
from ..log.errors import CorruptLog, StaleLeaderEpoch, StorageFull
from ..log.files import Files
from ..log.labels import note_unclean_epochs, partition_label_of
from ..log.lock import LOCK_NAME, DirectoryLock
from ..log.log import PartitionLog
from ..log.scan import SearchUnfinished
from .arguments import PartitionArguments
from .divergence import divergence
from .effects import (
    Alarm,
    Append,
    Appended,
    AppendFailed,
    ApplyRetention,
    BacklogMeasured,
    CheckSession,
    Compacted,
    CompactSlice,
    Compare,
    Compared,
    CutFailed,
    CutLog,
    DeleteBefore,
    DiskMeasured,
    GroupsSaved,
    LogCut,
    LogOpened,
    LookedUp,
    LookUp,
    Loss,
    MarkAsleep,
    MeasureBacklog,
    MeasureDisk,
    OpenedLog,
    OwnEffect,
    OwnEvent,
    Read,
    ReadDone,
    ReadUnfinished,
    Reconfigure,
    RequestFailed,
    RoleTaken,
    SaveGroups,
    SessionChecked,
    Sync,
    TakeRole,
    Trimmed,
    WriteCheckpoint,
    Written,
)
from .fetches import fetch_of
from .folder import check_folder
from .fresh import FreshBatches
from .groups import decode_groups
from .log_config import log_config
from .machine import PartitionMachine
from .replica_fetches import offset_of
from .reports import log_report
from .traffic import Traffic

_log = logging.getLogger(__name__)

LOCK_WAIT_MS = 5_000
"""The longest wait for a predecessor that is being killed."""


class PartitionProcess(Actor[OwnEvent, OwnEffect]):
    follows_wall_clock: ClassVar[bool] = True
    requests: ClassVar[tuple[type[Request], ...]] = (
        Produce,
        Fetch,
        ListOffsets,
        DeleteRecords,
        DescribePartition,
        HighestEra,
        ConfigurePartition,
        ReportProgress,
        QuotasInForce,
        WriteMarkers,
        Cancel,
        *REQUESTS_TO_REPLICA,
        *REQUESTS_TO_PARTITION,
    )
    follows_connections: ClassVar[bool] = True
    machine: PartitionMachine

    def __init__(
        self,
        context: ActorContext,
        files: Files | None = None,
        open_log: Callable[..., PartitionLog] = PartitionLog.open,
        lock_directory: Callable[[Path, int], DirectoryLock] = DirectoryLock,
    ) -> None:
        """Create the process. Tests replace the operating system through the last three arguments."""
        super().__init__(context)
        self._arguments = msgspec.convert(context.arguments, PartitionArguments)
        self._open_log = open_log
        self._lock_directory = lock_directory
        self._lock: DirectoryLock
        self._log: PartitionLog
        self._sleep_mark: SleepMark
        self._files = files or Files()
        self._frames: list[Buffer] = []
        self._headers: list[BatchHeader] = []
        self._fresh: FreshBatches | None = None
        self._is_sync_wanted = self._is_shared = False
        self._lost_files: list[str] = []
        self._traffic = Traffic()
        self._alarms: dict[str, tuple[str, ...]] = {}

    def peer_door(self) -> PeerDoor | None:
        arguments = self._arguments
        if not arguments.peer_endpoint:
            return None
        keys = read_key_file(arguments.peer_keys) if arguments.peer_keys else None
        return PeerDoor(arguments.peer_endpoint, keys)

    def start(self) -> None:
        """Open the log. Raises PartitionLost, and LogLocked when another process holds the directory."""
        arguments = self._arguments
        if self.loop.peer_endpoint:
            port = self.loop.peer_endpoint.rpartition(":")[2]
            arguments.reached_at = f"tcp://{arguments.peer_host}:{port}"
        directory = Path(self.context.data_directory) / arguments.directory
        label = partition_label_of(directory, self._files)
        check_folder(arguments.directory, label.topic_id if label else None, arguments.topic_id)
        self._lock = self._lock_directory(directory / LOCK_NAME, LOCK_WAIT_MS)
        self._sleep_mark = SleepMark(partition_mark(directory), self._files)
        self._sleep_mark.clear()
        saved = self._files.read_whole(directory / GROUPS_NAME)
        groups = decode_groups(saved, self.loop.now)
        self._log = self._open_log(
            directory,
            log_config(arguments.config, is_mirrored=arguments.is_mirrored),
            self.loop.now,
            on_progress=lambda _: self.loop.progress(),
        )
        if arguments.leadership == "own":
            # The only replica of a partition leads, in an epoch that it takes itself.
            self._log.lead(arguments.own_epoch(self._log.highest_leader_epoch))
        self._lost_files = list(self._log.lost_files)
        if saved is not None and groups is None:
            self._lost_files.append(GROUPS_NAME)
            _log.error("%s: %s", directory, loss_of_companion(GROUPS_NAME))
        self.machine = PartitionMachine(arguments, self._opened(), self.context.incarnation, groups)
        self.loop.dispatch(LogOpened())

    def _opened(self) -> OpenedLog:
        return OpenedLog(
            leader_epoch=self._log.leader_epoch,
            highest_leader_epoch=self._log.highest_leader_epoch,
            epochs=self._log.epochs,
            log_start_offset=self._log.log_start_offset,
            log_end_offset=self._log.log_end_offset,
            high_watermark=self._log.high_watermark,
            size_bytes=self._log.size_bytes,
            producers=self._log.producers,
            losses=[loss_of(loss) for loss in self._log.losses],
            lost_files=[loss_of_companion(name) for name in self._lost_files],
        )

    def perform(self, effect: OwnEffect) -> None:
        match effect:
            case Append():
                self._frames += effect.frames
                self._headers += effect.headers
                self._is_shared |= effect.is_shared
            case Sync():
                self._is_sync_wanted = True
            case Read():
                self._read(effect)
            case LookUp():
                self._look_up(effect)
            case Compare():
                self._compare(effect)
            case DeleteBefore():
                self._delete_before(effect)
            case ApplyRetention():
                self._log.apply_retention(self.loop.wall, effect.consumed_offset, effect.up_to_offset)
                self.loop.dispatch(Trimmed(self._log.log_start_offset, self._log.size_bytes))
            case CompactSlice():
                limits = (effect.budget_bytes, self.loop.wall, effect.up_to_offset)
                is_more = self._log.compact(self.loop.now, *limits)
                self.loop.dispatch(Compacted(is_more, self._log.size_bytes))
            case TakeRole():
                self._take_role(effect)
            case CutLog():
                self._cut_log(effect)
            case WriteCheckpoint(high_watermark=high_watermark):
                self._log.high_watermark = (
                    self._log.log_end_offset if high_watermark is None else high_watermark
                )
                self._log.checkpoint()
            case Reconfigure():
                self._reconfigure(effect.config)
            case MeasureBacklog():
                self.loop.dispatch(BacklogMeasured(self._log.bytes_from(effect.offset)))
            case MeasureDisk():
                self.loop.dispatch(DiskMeasured(self._files.free_bytes(self._log.directory)))
            case SaveGroups():
                self._save_groups(effect)
            case CheckSession():
                is_trusted = elapsed_ms() < effect.trusted_until_ms
                self.loop.dispatch(SessionChecked(effect.received, is_trusted))
            case Alarm():
                self._alarms[effect.about] = effect.alarms
                self._traffic.on_alarm(effect, self.loop.now)
                self.alarms = tuple(alarm for alarms in self._alarms.values() for alarm in alarms)
            case MarkAsleep():
                self._sleep_mark.set(effect.wake_at_ms)
            case _:
                assert_never(effect)

    def end_turn(self) -> None:
        """Write all appends of the turn at once, sync once, and pass the result to the machine.

        Between the two the machine passes shared batches on to other replicas, which sync meanwhile: nothing of the
        turn that leaves then depends on this sync, since the machine acknowledges only on Appended.
        """
        frames, headers, is_sync_wanted = self._frames, self._headers, self._is_sync_wanted
        self._frames, self._headers, self._is_sync_wanted = [], [], False
        is_shared, self._is_shared = self._is_shared, False
        if headers:
            try:
                self._log.append(frames, headers, self.loop.now)
                self._fresh = FreshBatches(frames, headers)
                self._traffic.on_appended(headers, is_leader=self.machine.role.name == "leader")
            except StorageFull as error:
                refusal = ProtocolError(ErrorCode.STORAGE_FULL, str(error)).body
                self.loop.dispatch(AppendFailed(refusal, self._log.log_end_offset))
                headers = []
        if is_shared and self._fresh is not None:
            self.loop.dispatch(Written(self._log.log_end_offset, self._fresh))
            self.loop.release()
        sync_ms = None
        if is_sync_wanted:
            meters = self.loop.meters
            began_ns = meters.clock_ns()
            self._log.sync()
            sync_ms = meters.on_synced(began_ns) // 1_000
        if headers:
            self.loop.dispatch(Appended(self._log.log_end_offset, self._log.size_bytes, sync_ms))
        self._fresh = None

    def gauges(self) -> dict[str, int]:
        return {"fetches_parked": self.machine.role.parked_count}

    def counters(self) -> dict[str, int]:
        return self._traffic.counters(self.loop.now)

    def log_report(self) -> LogReport:
        return log_report(self.machine.role, self._log.size_bytes)

    def close(self) -> None:
        self._log.close(clean=True)
        self._lock.release()

    def _read(self, effect: Read) -> None:
        offset = offset_of(effect.received)
        try:
            bounds = (offset, effect.max_bytes, effect.up_to_offset)
            found = None if self._fresh is None else self._fresh.read(*bounds)
            batches, next_offset = found or self._log.read(*bounds)
        except SearchUnfinished:
            self.loop.dispatch(ReadUnfinished(effect))
            return
        except CorruptLog as error:
            self._corrupt(effect.received, error)
            return
        self._traffic.on_read(effect, next_offset, len(batches))
        self.loop.dispatch(ReadDone(effect, batches, next_offset))

    def _look_up(self, effect: LookUp) -> None:
        try:
            found = self._log.offset_for_timestamp(effect.timestamp_ms, effect.is_committed)
        except CorruptLog as error:
            self._corrupt(effect.received, error)
            return
        self.loop.dispatch(LookedUp(effect.received, *found) if found else LookedUp(effect.received, None))

    def _compare(self, effect: Compare) -> None:
        log, position = self._log, fetch_of(effect.received).offset

        def header_at(offset: int) -> BatchHeader | None:
            batches, _ = log.read(offset, 1, log.log_end_offset)
            return parse_header(batches) if len(batches) else None

        found = None
        # Records hidden by damage cannot be compared; reads there receive the error.
        with suppress(CorruptLog, SearchUnfinished):
            bounds = (log.log_start_offset, log.log_end_offset)
            found = divergence(header_at, *bounds, position, effect.leader_epoch)
        self.loop.dispatch(Compared(effect.received, found))

    def _delete_before(self, effect: DeleteBefore) -> None:
        try:
            self._log.delete_before(effect.offset)
        except StorageFull as error:
            if effect.received is not None:
                self._fail(effect.received, ErrorCode.STORAGE_FULL, str(error))
            return
        self.loop.dispatch(Trimmed(self._log.log_start_offset, self._log.size_bytes, effect.received))

    def _reconfigure(self, config: TopicConfig) -> None:
        self._log.reconfigure(log_config(config, is_mirrored=self._arguments.is_mirrored))

    def _take_role(self, effect: TakeRole) -> None:
        self.end_turn()
        with suppress(StorageFull):
            # The next role brings them again.
            note_unclean_epochs(self._log.directory, self._files, effect.unclean_epochs)
        self._reconfigure(self._arguments.config)
        if effect.leader_epoch is not None:
            try:
                own_epoch = self._arguments.own_epoch(self._log.highest_leader_epoch)
                self._log.lead(own_epoch if effect.is_own else effect.leader_epoch)
                self._traffic.leaderships += 1
            except StaleLeaderEpoch as error:
                _log.warning("%s: %s", self._log.directory, error)
        else:
            self._log.follow()
        self.loop.dispatch(RoleTaken(self._opened()))

    def _cut_log(self, effect: CutLog) -> None:
        self.end_turn()
        cut = self._log.reset_to if effect.is_reset else self._log.truncate_to
        try:
            cut(effect.offset, self.loop.now)
        except StorageFull as error:
            _log.warning("%s: the log cannot be cut: %s", self._log.directory, error)
            self.loop.dispatch(CutFailed())
            return
        self.loop.dispatch(LogCut(self._opened()))

    def _save_groups(self, effect: SaveGroups) -> None:
        refusal = None
        try:
            self._files.replace(self._log.directory / GROUPS_NAME, effect.data)
            self._log.note_companion(GROUPS_NAME)
        except StorageFull as error:
            refusal = ProtocolError(ErrorCode.STORAGE_FULL, str(error)).body
        self.loop.dispatch(GroupsSaved(effect.received, refusal))

    def _corrupt(self, received: Received, error: CorruptLog) -> None:
        refusal = ProtocolError(ErrorCode.CORRUPT_LOG, str(error), next_offset=error.next_offset)
        self.loop.dispatch(RequestFailed(received, refusal.body, loss_of(error)))

    def _fail(self, received: Received, code: ErrorCode, message: str) -> None:
        self.loop.dispatch(RequestFailed(received, ProtocolError(code, message).body))


def loss_of(error: CorruptLog) -> Loss:
    return Loss(error.offset, error.next_offset, str(error))


def main(context: ActorContext) -> None:
    """Run the process; the entry that a child spec names."""
    run_actor(PartitionProcess(context), context)
