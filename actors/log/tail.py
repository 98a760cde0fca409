"""The tail of a log's last segment, as its last owner left it: checked, cut, and written again after a failed sync.

Owns the decision where a torn write begins. It is cut; if good batches lie behind the cut, this was more than a write
torn by a crash, and the cut bytes are kept as `<segment>.torn` (the latest only, at most TORN_COPY_BYTES). Called by
`recovery.py`.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ...transport.batch import BatchHeader
from .errors import StorageFull, Unreadable
from .files import Files
from .scan import CHUNK_BYTES, Damaged, Search, SegmentReader
from .segment import Segment

TORN_SUFFIX = ".torn"
TORN_COPY_BYTES = 16 * 1024 * 1024

_log = logging.getLogger(__name__)


class Tail:
    """The bytes of the segment `last`, which is open, that were written after its last checkpoint."""

    def __init__(self, directory: Path, files: Files, last: Segment) -> None:
        self._directory = directory
        self._files = files
        self._last = last

    def check(self, position: int, on_header: Callable[[BatchHeader], None]) -> None:
        """Check everything from `position` and cut the file at the first batch that is not whole."""
        last, reader = self._last, self._last.reader()
        try:
            for header, found in reader.walk(position):
                # A gap is no damage: a replica has copied batches that compaction has left (`log.py`).
                if header.base_offset < last.next_offset:
                    raise Damaged(found, f"offset {header.base_offset} follows {last.next_offset - 1}")
                last.note(header, found)
                last.next_offset = header.next_offset
                on_header(header)
        except Damaged as damage:
            self._cut(reader, damage)

    def _cut(self, reader: SegmentReader, damage: Damaged) -> None:
        last = self._last
        if self._is_room(damage.position):
            last.cut(damage.position)
            return
        _log.warning(
            "%s: cutting %d bytes at byte %d, offset %d: %s",
            last.path,
            last.size_bytes - damage.position,
            damage.position,
            last.next_offset,
            damage.reason,
        )
        if reader.next_whole(Search(damage.position, last.next_offset)) < reader.end:
            self._keep_aside(damage.position)
        last.cut(damage.position)

    def _is_room(self, position: int) -> bool:
        """Return True if only zeros follow: preallocated room, and no damage."""
        last = self._last
        while position < last.size_bytes:
            try:
                data = last.bytes_at(position, min(CHUNK_BYTES, last.size_bytes - position))
            except Unreadable:
                return False
            if data.count(0) < len(data):
                return False
            position += len(data)
        return True

    def _keep_aside(self, position: int) -> None:
        last = self._last
        for name in self._files.names(self._directory):
            if name.endswith(TORN_SUFFIX):
                self._files.unlink(self._directory / name)
        path = last.path.with_suffix(TORN_SUFFIX)
        size_bytes = min(last.size_bytes - position, TORN_COPY_BYTES)
        _log.error("%s: intact batches follow the damage; keeping the removed bytes as %s", last.path, path)
        with suppress(StorageFull):  # a full disk must not prevent the log from opening
            self._files.write_aside(path, last.bytes_at(position, size_bytes))

    def rewrite(self, position: int) -> None:
        """Write the tail again: the kernel's cache may show bytes that are not on the medium."""
        last = self._last
        while position < last.size_bytes:
            data = last.bytes_at(position, min(CHUNK_BYTES, last.size_bytes - position))
            self._files.rewrite(last.path, data, position)
            position += len(data)
