"""Compaction: keep the newest record of each key, in slices small enough not to delay other requests.

Owns the current pass: its reads, the segment it writes aside, the moment of each swap. Must never touch the active
segment, nor one that recovery could need to replay: only segments below the older of the two producer snapshots are
compacted, so no producer state and no dedup id is read from compacted segments. Called by `log.py`, a slice at a
time.

    map       the keys of the dirty part (never compacted), until its end or until the map is full
    rewrite   group by group, from the log's start to the end of the map: surviving records go to `<base>.cleaned`,
              which is synced bit by bit; a group is neighbouring segments that together fit into one
    swap      `cleaned.py`; from here on readers see the new segment
    mark      everything below the map's end is clean since now

A tombstone is dropped when the part it lies in has been clean for `delete_retention_ms`: a reader that saw an older
record of its key had that long to reach it. A segment that cannot be opened (damage, a codec without its library) is
left unchanged, and tombstones above it are kept.

A pass is one generator, because it is one sequence of file operations with pauses; state that must survive a crash is
in files.
"""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from ...transport.batch import BatchHeader, parse_header, unpacked_bytes
from ...transport.compression import CodecUnavailable
from .cleaned import (
    Cleaned,
    CleanedSegment,
    CleanMark,
    Swap,
    carry_out,
    cleaned_path,
    save_cleaned,
)
from .errors import StorageFull, Unreadable
from .files import Buffer, Files
from .index import INDEX_INTERVAL_BYTES, NO_TIMESTAMP_MS, IndexPoint, SegmentIndex
from .key_map import KEYS_LIMIT, KeyMap
from .retention import LogConfig
from .scan import Damaged, SegmentReader
from .segment import Segment, segment_path
from .snapshots import SNAPSHOTS_KEPT, snapshot_offsets
from .survivors import records_of, rewritten, survivors
from .transactions import Transactions

RECORD_COST_BYTES = 100
"""Decoding, looking up and encoding a record takes about as long as moving this many bytes."""
WRITE_BYTES = 256 * 1024
SYNC_BYTES = 1024 * 1024
"""Bytes written between syncs: a larger sync would delay the turns behind it."""
GROUP_SEGMENTS = 32
"""Segments merged at once: one slice deletes them all."""

Replace = Callable[[Sequence[Segment], Segment], None]

_SLICE_ENDS = 1 << 40
_log = logging.getLogger(__name__)


class Compactor:
    """Compaction of one log. `replace` is called when one segment has been swapped in for several."""

    def __init__(
        self, directory: Path, files: Files, cleaned: Cleaned, replace: Replace, transactions: Transactions
    ) -> None:
        self.transactions = transactions
        self._directory = directory
        self._files = files
        self.cleaned = cleaned
        self._replace = replace
        self._pass: _Pass | None = None
        self._slices: Generator[int, None, None] | None = None
        self._is_unfinished = False
        """True if the last pass could not take all keys that were due."""

    def step(
        self,
        config: LogConfig,
        segments: Sequence[Segment],
        now_ms: int,
        wall_ms: int | None,
        budget_bytes: int,
    ) -> bool:
        """Continue the current pass, or begin one that is due; return True if there is more to do now.

        `segments` are the log's, the active one last. The age of tombstones is counted by `now_ms`, the clock that
        never steps, because readers with a snapshot of the log rely on it. The age of records is counted by
        wall-clock time, as their timestamps are: `wall_ms`, where it is not `now_ms`.

        Raises StorageFailed; a full disk ends the pass.
        """
        if self._slices is None:
            self._pass = self._due(config, segments, now_ms, now_ms if wall_ms is None else wall_ms)
            if self._pass is None:
                return False
            self._slices = self._pass.run()
        assert self._pass is not None
        self._pass.now_ms = now_ms
        spent_bytes = 0
        try:
            while spent_bytes < budget_bytes:
                cost_bytes = next(self._slices, None)
                if cost_bytes is None:
                    self._is_unfinished = self._pass.is_map_full
                    self._slices = self._pass = None
                    return True
                spent_bytes += cost_bytes
        except StorageFull as error:
            _log.warning("%s: compaction waits for room: %s", self._directory, error)
            self.stop()
            return False
        return True

    def stop(self) -> None:
        """Abort the current pass, and delete its output."""
        ended = self._pass
        self.release()
        if ended is not None:
            ended.discard()

    def release(self) -> None:
        """Abort the current pass and close its descriptors; recovery deletes the rest."""
        if self._slices is not None and self._pass is not None:
            self._slices.close()
            self._pass.release()
        self._slices = self._pass = None

    def on_deleted(self, segment: Segment) -> None:
        """Note that the log has deleted a segment."""
        if self._pass is not None:
            self._pass.gone.add(segment.base_offset)

    def _due(
        self, config: LogConfig, segments: Sequence[Segment], now_ms: int, wall_ms: int
    ) -> "_Pass | None":
        if 0 <= self.cleaned.held_from < segments[0].base_offset:
            self.cleaned = msgspec.structs.replace(self.cleaned, held_from=-1)  # retention took the segment
        cleanable = self._cleanable(config, segments, wall_ms)
        dirty_bytes = sum(segment.size_bytes for segment in cleanable if self._is_dirty(segment))
        all_bytes = sum(segment.size_bytes for segment in cleanable)
        least_bytes = 0 if self._is_unfinished else config.min_cleanable_ratio * all_bytes
        is_dirty = dirty_bytes > 0 and dirty_bytes >= least_bytes
        since_ms = self.cleaned.tombstones_since_ms
        is_ripe = since_ms >= 0 and since_ms + config.delete_retention_ms <= now_ms
        if not (is_dirty or is_ripe):
            return None
        return _Pass(self, self._directory, self._files, config, cleanable, self._replace, now_ms)

    def _is_dirty(self, segment: Segment) -> bool:
        return segment.next_offset > self.cleaned.cleaned_offset

    def _cleanable(self, config: LogConfig, segments: Sequence[Segment], wall_ms: int) -> list[Segment]:
        snapshots = snapshot_offsets(self._directory, self._files)
        safe_offset = snapshots[0] if len(snapshots) >= SNAPSHOTS_KEPT else 0
        unstable_offset = self.transactions.first_unstable_offset()
        if unstable_offset is not None:
            safe_offset = min(safe_offset, unstable_offset)
        found: list[Segment] = []
        for segment in segments[:-1]:
            if segment.next_offset > safe_offset:
                break
            if config.min_compaction_lag_ms > 0 and self._is_dirty(segment):
                newest_ms = segment.max_timestamp_ms
                if newest_ms is not None and newest_ms > wall_ms - config.min_compaction_lag_ms:
                    break
            found.append(segment)
        return found


class _Pass:
    """One pass over the given segments. `run` yields the cost of each piece of work, in bytes."""

    def __init__(
        self,
        compactor: Compactor,
        directory: Path,
        files: Files,
        config: LogConfig,
        segments: Sequence[Segment],
        replace: Replace,
        now_ms: int,
    ) -> None:
        self.now_ms = now_ms
        self.gone: set[int] = set()
        """Base offsets of segments that were deleted during the pass."""
        self._compactor = compactor
        self._directory = directory
        self._files = files
        self._config = config
        self._segments = list(segments)
        self._replace = replace
        self._expiry_ms = now_ms - config.delete_retention_ms
        self._keys = KeyMap(KEYS_LIMIT)
        self._end_offset = compactor.cleaned.cleaned_offset
        self._left: set[int] = set()
        self._tombstones_since_ms = -1
        self._output: _Output | None = None

    @property
    def is_map_full(self) -> bool:
        return self._keys.is_full

    def run(self) -> Generator[int, None, None]:
        yield from self._map()
        for group in self._groups():
            yield from self._rewrite(group)
        self._mark()

    def release(self) -> None:
        if self._output is not None:
            self._output.close()

    def discard(self) -> None:
        """Delete output that was not swapped in."""
        if self._output is not None:
            output, self._output = self._output, None
            output.discard()

    # -- map

    def _map(self) -> Iterator[int]:
        start_offset = self._end_offset
        for segment in self._segments:
            if segment.next_offset <= start_offset or segment.base_offset in self.gone:
                continue
            try:
                for header, frame in self._batches(segment):
                    if header.next_offset <= start_offset:
                        continue
                    records = None if self._is_aborted(header) else records_of(frame, header)
                    if records is not None:
                        self._keys.add(header, records)
                    self._end_offset = header.next_offset
                    if self._keys.is_full:
                        return
                    yield _cost(header, frame)
            except (Damaged, Unreadable, CodecUnavailable) as fault:
                self._leave(segment, fault)
            self._end_offset = segment.next_offset

    def _leave(self, segment: Segment, fault: Exception) -> None:
        _log.warning("%s is not compacted: %s", segment.path, fault)
        self._left.add(segment.base_offset)
        cleaned = self._compactor.cleaned
        if cleaned.held_from < 0 or segment.base_offset < cleaned.held_from:
            # Saved with the next swap or mark, and so before any tombstone above can be dropped.
            self._compactor.cleaned = msgspec.structs.replace(cleaned, held_from=segment.base_offset)

    def _batches(self, segment: Segment) -> Iterator[tuple[BatchHeader, bytes]]:
        """Yield every batch, checked, through a descriptor of its own: the log may close its own at any time."""
        descriptor = self._files.open_read(segment.path)
        try:
            reader = SegmentReader(self._files, descriptor, segment.size_bytes)
            end_offset = segment.base_offset
            for header, position in reader.walk(0):
                end_offset = header.next_offset
                yield header, reader.frame(position, header)
            if end_offset != (segment.end_offset if segment.is_compacted else segment.next_offset):
                raise Damaged(reader.end, "the file ends before the next segment begins")
        finally:
            self._files.close(descriptor)

    # -- rewrite

    def _groups(self) -> list[list[Segment]]:
        """Return groups of neighbouring segments that fit into one, without those that are left unchanged."""
        groups: list[list[Segment]] = []
        size_bytes = 0
        is_open = False
        for segment in self._segments:
            if segment.base_offset >= self._end_offset:
                break
            if segment.base_offset in self._left:
                is_open = False
                continue
            fits = size_bytes + segment.size_bytes <= self._config.segment_bytes
            if not is_open or not fits or len(groups[-1]) >= GROUP_SEGMENTS:
                groups.append([])
                size_bytes, is_open = 0, True
            groups[-1].append(segment)
            size_bytes += segment.size_bytes
        return groups

    def _rewrite(self, group: list[Segment]) -> Iterator[int]:
        group = [segment for segment in group if segment.base_offset not in self.gone]
        if not group:
            return
        self._forget_swap()
        output = self._output = _Output(self._directory, group[0].base_offset, self._files)
        yield _SLICE_ENDS  # a sync of the directory
        for at, segment in enumerate(group):
            if segment.base_offset in self.gone:
                self.discard()
                yield from self._rewrite(group)
                return
            try:
                for header, frame in self._batches(segment):
                    output.add(self._survivors(header, frame, output))
                    yield _cost(header, frame)
                    if output.write_some():
                        yield _SLICE_ENDS
            except (Damaged, Unreadable, CodecUnavailable) as fault:
                self._leave(segment, fault)
                self.discard()
                yield from self._rewrite(group[:at])
                yield from self._rewrite(group[at + 1 :])
                return
        output.finish()
        yield _SLICE_ENDS
        if any(segment.base_offset in self.gone for segment in group):
            self.discard()
            yield from self._rewrite(group)
        elif len(group) == 1 and not output.is_shorter:
            self.discard()
        else:
            self._swap(group, output)
            yield _SLICE_ENDS

    def _forget_swap(self) -> None:
        """Drop a finished swap, so that the next write of the file does not repeat it."""
        if self._compactor.cleaned.swap is not None:
            bases = [base for base in self._compactor.cleaned.segments if base not in self.gone]
            self._save(self._compactor.cleaned.without_swap(bases))

    def _save(self, cleaned: Cleaned) -> None:
        save_cleaned(self._directory, self._files, cleaned)
        self._compactor.cleaned = cleaned

    def _survivors(self, header: BatchHeader, frame: bytes, output: "_Output") -> list[bytes]:
        output.leader_epoch = max(output.leader_epoch, header.leader_epoch)
        if self._is_aborted(header):
            output.is_shorter = True
            return []
        records = records_of(frame, header)
        if records is None:
            return [frame]
        kept = survivors(header, records, self._keys, self._is_expired)
        if len(kept) == len(records):
            return [frame]
        output.is_shorter = True
        return rewritten(header, records, kept)

    def _is_aborted(self, header: BatchHeader) -> bool:
        """Return True for a batch of an aborted transaction: it is never read, and its records replace no older ones."""
        is_of_records = header.is_transactional and not header.is_control
        return is_of_records and self._compactor.transactions.is_aborted(header)

    def _is_expired(self, offset: int) -> bool:
        cleaned = self._compactor.cleaned
        if 0 <= cleaned.held_from <= offset:
            return False
        since_ms = cleaned.clean_since(offset)
        if since_ms is not None and since_ms <= self._expiry_ms:
            return True
        since_ms = self.now_ms if since_ms is None else since_ms
        if self._tombstones_since_ms < 0 or since_ms < self._tombstones_since_ms:
            self._tombstones_since_ms = since_ms
        return False

    # -- swap and mark

    def _swap(self, group: Sequence[Segment], output: "_Output") -> None:
        base_offset, next_offset = group[0].base_offset, group[-1].next_offset
        replaced = tuple(segment.base_offset for segment in group[1:])
        entry = CleanedSegment(output.size_bytes, max(output.end_offset, base_offset), next_offset)
        before = self._compactor.cleaned
        known = {base: old for base, old in before.segments.items() if base not in replaced}
        swap = Swap(base_offset, output.size_bytes, replaced)
        self._save(
            msgspec.structs.replace(
                before,
                segments={**known, base_offset: entry},
                swap=swap,
                leader_epoch=max(before.leader_epoch, output.leader_epoch),
            )
        )
        for segment in group:
            segment.close()
        carry_out(self._directory, self._files, swap)
        self._output = None
        self._replace(group, output.segment(entry))

    def _mark(self) -> None:
        mark = CleanMark(self._end_offset, self.now_ms)
        cleaned = self._compactor.cleaned
        bases = [base for base in cleaned.segments if base not in self.gone]
        done = cleaned.without_swap(bases).with_mark(mark, self._expiry_ms)
        self._save(msgspec.structs.replace(done, tombstones_since_ms=self._tombstones_since_ms))


class _Output:
    """The segment that is written aside, and its index."""

    def __init__(self, directory: Path, base_offset: int, files: Files) -> None:
        self.size_bytes = 0
        self.end_offset = -1
        self.leader_epoch = -1
        self.is_shorter = False
        """True if some record was dropped."""
        self._directory = directory
        self._base_offset = base_offset
        self._files = files
        self._path = cleaned_path(directory, base_offset)
        self._index = SegmentIndex(segment_path(directory, base_offset), base_offset, files)
        self._newest_ms = NO_TIMESTAMP_MS
        self._waiting: list[Buffer] = []
        self._waiting_bytes = 0
        self._unsynced_bytes = 0
        files.unlink(self._path)
        self._descriptor = files.open_append(self._path)
        files.sync_directory(directory)

    def add(self, batches: Sequence[bytes]) -> None:
        for batch in batches:
            header = parse_header(batch)
            if self.size_bytes - self._index.last.position >= INDEX_INTERVAL_BYTES:
                self._index.add(IndexPoint(header.base_offset, self.size_bytes, self._newest_ms))
            self._newest_ms = max(self._newest_ms, header.max_timestamp_ms)
            self.end_offset = header.next_offset
            self.size_bytes += len(batch)
            self._waiting_bytes += len(batch)
        self._waiting += batches

    def write_some(self) -> bool:
        """Write the gathered batches if they are worth a call; return True if that took long."""
        if self._waiting_bytes < WRITE_BYTES:
            return False
        self._write()
        if self._unsynced_bytes < SYNC_BYTES:
            return False
        self._sync()
        return True

    def _write(self) -> None:
        if self._waiting:
            self._files.append(self._descriptor, self._waiting, self._waiting_bytes)
            self._unsynced_bytes += self._waiting_bytes
            self._waiting, self._waiting_bytes = [], 0

    def _sync(self) -> None:
        self._files.sync_data(self._descriptor)
        self._unsynced_bytes = 0

    def finish(self) -> None:
        """Sync the remaining output."""
        self._write()
        self._sync()
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            self._files.close(descriptor)

    def discard(self) -> None:
        self.close()
        self._files.unlink(self._path)

    def segment(self, entry: CleanedSegment) -> Segment:
        """Return the segment as it lies in its place after the swap."""
        segment = Segment(self._directory, self._base_offset, self.size_bytes, self._files)
        segment.seal(entry.next_offset)
        segment.end_offset = entry.end_offset
        segment.take_index(self._index, self._newest_ms)
        with suppress(StorageFull):  # the next incarnation rebuilds an index that cannot be stored
            segment.write_index()
        return segment


def _cost(header: BatchHeader, frame: Buffer) -> int:
    return (unpacked_bytes(frame, header) or header.size_bytes) + RECORD_COST_BYTES * header.record_count
