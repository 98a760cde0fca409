"""The segment that compaction writes aside, and its index.

Owns the file `<base offset>.cleaned` from its creation until it is discarded or swapped in. Written and synced in
pieces, so that no sync delays the turns behind it. Called by `compaction_pass.py`.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ...transport.batch import parse_header
from .cleaned import CleanedSegment, cleaned_path
from .errors import StorageFull
from .files import Buffer, Files
from .index import INDEX_INTERVAL_BYTES, NO_TIMESTAMP_MS, IndexPoint, SegmentIndex
from .segment import Segment, segment_path

WRITE_BYTES = 256 * 1024
SYNC_BYTES = 1024 * 1024
"""Bytes written between syncs: a larger sync would delay the turns behind it."""


class Output:
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
