"""One pass of compaction: map the newest record of each key, rewrite the segments group by group, mark them clean.

    map       the keys of the dirty part (never compacted), until its end or until the map is full
    rewrite   group by group, from the log's start to the end of the map: surviving records go to `<base>.cleaned`,
              which is synced bit by bit; a group is neighbouring segments that together fit into one
    swap      `compaction_state.py`; from here on readers see the new segment
    mark      everything below the map's end is clean since now

A tombstone is dropped when the part it lies in has been clean for `delete_retention_ms`: a reader that saw an older
record of its key had that long to reach it. A segment that cannot be opened (damage, a codec without its library) is
left unchanged, and tombstones above it are kept.

A pass is one generator, because it is one sequence of file operations with pauses; state that must survive a crash is
in files. Called by `compaction.py`, a slice at a time.
"""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from ...transport.batch import BatchHeader, unpacked_bytes
from ...transport.compression import CodecUnavailable
from .cleaned import CleanMark
from .compaction_output import Output
from .compaction_plan import groups
from .compaction_state import CompactionState
from .errors import Unreadable
from .files import Buffer, Files
from .key_map import KEYS_LIMIT, KeyMap
from .retention import LogConfig
from .scan import Damaged, SegmentReader
from .segment import Segment
from .survivors import records_of, rewritten, survivors
from .transactions import Transactions

RECORD_COST_BYTES = 100
"""Decoding, looking up and encoding a record takes about as long as moving this many bytes."""
SLICE_ENDS = 1 << 40
"""A cost that exceeds every budget: the next piece of work belongs to another slice."""

Replace = Callable[[Sequence[Segment], Segment], None]
"""Called when one segment has been swapped in for several."""

_log = logging.getLogger(__name__)


class CompactionPass:
    """One pass over the given segments. `run` yields the cost of each piece of work, in bytes."""

    def __init__(
        self,
        directory: Path,
        files: Files,
        config: LogConfig,
        segments: Sequence[Segment],
        state: CompactionState,
        transactions: Transactions,
        replace: Replace,
        now_ms: int,
    ) -> None:
        self.now_ms = now_ms
        self.deleted: set[int] = set()
        """Base offsets of segments that the log deleted during the pass."""
        self._directory = directory
        self._files = files
        self._config = config
        self._segments = list(segments)
        self._state = state
        self._transactions = transactions
        self._replace = replace
        self._expiry_ms = now_ms - config.delete_retention_ms
        self._keys = KeyMap(KEYS_LIMIT)
        self._end_offset = state.cleaned.cleaned_offset
        self._unopened: set[int] = set()
        """Base offsets of segments that cannot be opened and are left unchanged."""
        self._tombstones_since_ms = -1
        self._output: Output | None = None

    @property
    def is_map_full(self) -> bool:
        return self._keys.is_full

    def run(self) -> Generator[int, None, None]:
        yield from self._map()
        for group in groups(self._segments, self._end_offset, self._unopened, self._config.segment_bytes):
            yield from self._rewrite(group)
        mark = CleanMark(self._end_offset, self.now_ms)
        self._state.mark(mark, self._expiry_ms, self._tombstones_since_ms, self.deleted)

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
            if segment.next_offset <= start_offset or segment.base_offset in self.deleted:
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
                self._leave_unchanged(segment, fault)
            self._end_offset = segment.next_offset

    def _leave_unchanged(self, segment: Segment, fault: Exception) -> None:
        _log.warning("%s is not compacted: %s", segment.path, fault)
        self._unopened.add(segment.base_offset)
        self._state.hold_tombstones(segment.base_offset)

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

    def _rewrite(self, group: list[Segment]) -> Iterator[int]:
        group = [segment for segment in group if segment.base_offset not in self.deleted]
        if not group:
            return
        self._state.forget_swap(self.deleted)
        output = self._output = Output(self._directory, group[0].base_offset, self._files)
        yield SLICE_ENDS  # a sync of the directory
        for at, segment in enumerate(group):
            if segment.base_offset in self.deleted:
                self.discard()
                yield from self._rewrite(group)
                return
            try:
                for header, frame in self._batches(segment):
                    output.add(self._survivors(header, frame, output))
                    yield _cost(header, frame)
                    if output.write_some():
                        yield SLICE_ENDS
            except (Damaged, Unreadable, CodecUnavailable) as fault:
                self._leave_unchanged(segment, fault)
                self.discard()
                yield from self._rewrite(group[:at])
                yield from self._rewrite(group[at + 1 :])
                return
        output.finish()
        yield SLICE_ENDS
        if any(segment.base_offset in self.deleted for segment in group):
            self.discard()
            yield from self._rewrite(group)
        elif len(group) == 1 and not output.is_shorter:
            self.discard()
        else:
            successor = self._state.swap(group, output)
            self._output = None
            self._replace(group, successor)
            yield SLICE_ENDS

    def _survivors(self, header: BatchHeader, frame: bytes, output: Output) -> list[bytes]:
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
        return is_of_records and self._transactions.is_aborted(header)

    def _is_expired(self, offset: int) -> bool:
        cleaned = self._state.cleaned
        if 0 <= cleaned.held_from <= offset:
            return False
        since_ms = cleaned.clean_since(offset)
        if since_ms is not None and since_ms <= self._expiry_ms:
            return True
        since_ms = self.now_ms if since_ms is None else since_ms
        if self._tombstones_since_ms < 0 or since_ms < self._tombstones_since_ms:
            self._tombstones_since_ms = since_ms
        return False


def _cost(header: BatchHeader, frame: Buffer) -> int:
    return (unpacked_bytes(frame, header) or header.size_bytes) + RECORD_COST_BYTES * header.record_count
