"""A partition's log in memory: the interface of `PartitionLog` for the partition's process, over a list of batches.

The first `durable` batches of a MemoryDisk survive a loss of power. A subclass defines the steps between two system
calls: `_step` is called before and after each, and may raise.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from planaria.actors.log.epochs import EpochTable
from planaria.actors.log.errors import CorruptLog, OffsetOutOfRange, StaleLeaderEpoch, StorageFull
from planaria.actors.log.key_versions import writes_of
from planaria.actors.log.producers import ProducerStates
from planaria.transport.batch import BatchHeader, split
from planaria.transport.compression import Buffer
from planaria.transport.deduplication import dedup_id_of

Step = Literal["append", "batch", "appended", "sync", "synced", "checkpoint", "cut"]


class MemoryDisk:
    def __init__(self) -> None:
        self.batches: list[tuple[BatchHeader, bytes]] = []
        self.durable = 0
        self.leader_epoch = -1
        self.log_start_offset = 0
        self.snapshot: tuple[bytes, int] | None = None
        """Snapshot of the producers, and its offset."""
        self.high_watermark = 0
        self.may_have_gaps = False

    @property
    def end_offset(self) -> int:
        return self.batches[-1][0].next_offset if self.batches else self.log_start_offset

    @property
    def durable_end_offset(self) -> int:
        return self.batches[self.durable - 1][0].next_offset if self.durable else 0

    @property
    def size_bytes(self) -> int:
        return sum(len(frame) for _, frame in self.batches)


class MemoryLog:
    """Opening recovers: existing batches are durable from then on."""

    def __init__(self, disk: MemoryDisk, config: Any, now_ms: int) -> None:
        self._disk = disk
        self._config = config
        self.directory = Path("/nowhere/log")
        self.producers = ProducerStates()
        self.producers.dedup_ids.reconfigure(config.dedup_window_ms, config.dedup_window_count)
        self.producers.key_versions.is_kept = config.keeps_key_versions
        self._replay(now_ms)
        self.leader_epoch = -1
        self.high_watermark = disk.high_watermark
        self.losses: list[CorruptLog] = []
        self.lost_files: list[str] = []

    def _replay(self, now_ms: int) -> None:
        disk = self._disk
        start = 0
        if disk.snapshot is not None and disk.snapshot[1] <= disk.end_offset:
            start = disk.snapshot[1]
            assert self.producers.load(*disk.snapshot)
            self.producers.bound_times(now_ms)
        behind = [(header, frame) for header, frame in disk.batches if header.base_offset >= start]
        is_kept = self.producers.key_versions.is_kept
        self.producers.replay(
            (
                (header, dedup_id_of(frame, header), writes_of(frame, header) if is_kept else ())
                for header, frame in behind
            ),
            now_ms,
        )
        disk.durable = len(disk.batches)
        self.epochs = EpochTable()
        for header, _ in disk.batches:
            self.epochs.note(header.leader_epoch, header.base_offset)

    # Extension points of a subclass.

    def _step(self, step: Step, header: BatchHeader | None = None) -> None:
        """A system call is about to be made, or has just been made."""

    def _is_full(self) -> bool:
        return False

    # Calls of the process.

    def note_companion(self, name: str) -> None:
        """A log in memory has no other files."""

    @property
    def last_leader_epoch(self) -> int:
        return self._disk.batches[-1][0].leader_epoch if self._disk.batches else -1

    @property
    def highest_leader_epoch(self) -> int:
        taken = self._disk.leader_epoch
        return taken if self._config.has_source_epochs else max(taken, self.last_leader_epoch)

    def lead(self, leader_epoch: int) -> None:
        if leader_epoch <= self.highest_leader_epoch:
            raise StaleLeaderEpoch(leader_epoch, self.highest_leader_epoch)
        self._disk.leader_epoch = self.leader_epoch = leader_epoch

    def follow(self) -> None:
        self.leader_epoch = -1

    def truncate_to(self, offset: int, now_ms: int) -> None:
        self._step("cut")
        disk = self._disk
        disk.leader_epoch = self.highest_leader_epoch
        disk.batches = [each for each in disk.batches if each[0].next_offset <= offset]
        self._recover(now_ms)

    def reset_to(self, offset: int, now_ms: int) -> None:
        self._step("cut")
        disk = self._disk
        disk.leader_epoch = self.highest_leader_epoch
        disk.batches, disk.snapshot, disk.log_start_offset = [], None, offset
        self._recover(now_ms)

    def _recover(self, now_ms: int) -> None:
        disk = self._disk
        disk.high_watermark = self.high_watermark = min(self.high_watermark, disk.end_offset)
        if disk.snapshot is not None and disk.snapshot[1] > disk.end_offset:
            disk.snapshot = None
        self.producers.clear()
        self._replay(now_ms)

    @property
    def log_start_offset(self) -> int:
        return self._disk.log_start_offset

    @property
    def log_end_offset(self) -> int:
        return self._disk.end_offset

    @property
    def size_bytes(self) -> int:
        return self._disk.size_bytes

    def append(self, frames: Sequence[Buffer], headers: Sequence[BatchHeader], now_ms: int) -> None:
        self._step("append")
        if self._is_full():
            self.producers.revert()
            raise StorageFull("no space left in memory")
        found = [
            (header, bytes(frame)) for header, frame in split(b"".join(bytes(frame) for frame in frames))
        ]
        assert [each[:3] for each, _ in found] == [header[:3] for header in headers]
        for each in found:
            is_next = each[0].base_offset == self._disk.end_offset
            assert is_next or self._disk.may_have_gaps, "the log's offsets are not dense"
            assert each[0].leader_epoch >= self.last_leader_epoch, "the log's epochs go back"
            self._step("batch", each[0])
            self._disk.batches.append(each)
            self.epochs.note(each[0].leader_epoch, each[0].base_offset)
        self.producers.confirm(headers, now_ms)
        self._step("appended")

    def sync(self) -> None:
        self._step("sync")
        if self._disk.durable == len(self._disk.batches):
            return
        self._disk.durable = len(self._disk.batches)
        self._step("synced")

    def read(self, offset: int, max_bytes: int, up_to_offset: int) -> tuple[Buffer, int]:
        if not 0 <= offset <= self.log_end_offset:
            raise OffsetOutOfRange(offset, 0, self.log_end_offset)
        run, next_offset = b"", offset
        for header, frame in self._disk.batches:
            if header.next_offset <= offset:
                continue
            if header.next_offset > up_to_offset or (run and len(run) + len(frame) > max_bytes):
                break
            run += frame
            next_offset = header.next_offset
        return run, next_offset

    def offset_for_timestamp(self, timestamp_ms: int, is_committed: bool = False) -> tuple[int, int] | None:
        found = ((h.base_offset, h.max_timestamp_ms) for h, _ in self._disk.batches)
        return next((each for each in found if each[1] >= timestamp_ms), None)

    def bytes_from(self, offset: int) -> int:
        return sum(len(frame) for header, frame in self._disk.batches if header.next_offset > offset)

    def delete_before(self, offset: int) -> None:
        self._disk.log_start_offset = max(self._disk.log_start_offset, offset)

    def apply_retention(
        self, now_ms: int, consumed_offset: int | None = None, up_to_offset: int | None = None
    ) -> int:
        return 0

    def compact(self, now_ms: int, budget_bytes: int, wall_ms: int, up_to_offset: int | None) -> bool:
        return False  # never due: tests/log and tests/coordinator compact real logs

    def checkpoint(self) -> bool:
        self.sync()
        if self._is_full():
            return False
        self._disk.high_watermark = min(self.high_watermark, self.log_end_offset)
        self._disk.snapshot = (self.producers.encode(self.log_end_offset), self.log_end_offset)
        self._step("checkpoint")
        return True

    def reconfigure(self, config: Any) -> None:
        self._config = config
        self.producers.dedup_ids.reconfigure(config.dedup_window_ms, config.dedup_window_count)

    def close(self, clean: bool = True) -> None:
        self.checkpoint()


def opener(make: Callable[[Any, int], MemoryLog]) -> Any:
    """Return the function with which the partition's process opens its log."""

    def open_log(directory: Path, config: Any, now_ms: int, on_progress: Callable[[int], None]) -> MemoryLog:
        on_progress(0)
        return make(config, now_ms)

    return open_log
