"""Walking the batches of a segment, and finding the next good one behind damage.

Decides whether the bytes at a position are a batch. Recovery, index rebuilding, producer replay and `verify` walk
here with every checksum; reads use `whole_batches` on the bytes they return. Never writes.

A batch's head has a checksum of its own, so a damaged body never hides where the next batch begins. A body's fields
(`record_count`, timestamps, producer) may be trusted only after its checksum has been verified. Behind a damaged head
the next batch is searched byte by byte: both of its checksums must hold, and its offset lie between those around it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...transport.batch import (
    HEAD_BYTES,
    HEADER_BYTES,
    MAGIC,
    BatchHeader,
    checksum,
    is_head_intact,
    parse_header,
)
from .errors import Unreadable
from .files import Files

CHUNK_BYTES = 1024 * 1024
HIGHEST_OFFSET = 2**63 - 1
_SHORTEST_LENGTH = HEADER_BYTES - HEAD_BYTES
_MAGIC = bytes((MAGIC,))


class Damaged(Exception):
    """No whole batch at `position`. `resume` is the start of the next one, if the head is intact."""

    def __init__(self, position: int, reason: str, resume: int | None = None) -> None:
        super().__init__(f"byte {position}: {reason}")
        self.position = position
        self.reason = reason
        self.resume = resume


def judge_head(buffer: bytes, at: int, position: int, end: int) -> BatchHeader:
    """Return the header at `buffer[at]`, which is byte `position` of a file that ends at `end`. Raises Damaged."""
    available_bytes = min(end - position, len(buffer) - at)
    if available_bytes < HEADER_BYTES:
        raise Damaged(position, f"{available_bytes} bytes are too short for a batch header")
    header = parse_header(buffer, at)
    if not is_head_intact(buffer, at) or header.length < _SHORTEST_LENGTH:
        raise Damaged(position, "the batch's head does not match its checksum")
    if position + header.size_bytes > end:
        raise Damaged(position, f"the batch needs {header.size_bytes} bytes, {end - position} are there")
    return header


def judge_body(buffer: bytes, at: int, position: int, header: BatchHeader) -> None:
    """Raises Damaged unless the batch's contents, wholly in `buffer`, match their checksum."""
    resume = position + header.size_bytes
    if checksum(buffer[at + HEAD_BYTES : at + header.size_bytes]) != header.crc32c:
        raise Damaged(position, "the batch's body does not match its checksum", resume)
    if header.magic != MAGIC or header.record_count == 0:
        raise Damaged(
            position, f"the batch has magic {header.magic} and {header.record_count} records", resume
        )


class SearchUnfinished(Exception):
    """The search for the next whole batch has used up its budget. A repeated call continues it."""


@dataclass
class Search:
    """A search for the next whole batch behind damage: its progress, and the highest offset it has passed."""

    position: int
    previous_offset: int


class SegmentReader:
    """One segment's bytes, from 0 to `end`, read in chunks. Every offset in it is below `end_offset`."""

    def __init__(self, files: Files, descriptor: int, end: int, end_offset: int = HIGHEST_OFFSET) -> None:
        self.end_offset = end_offset
        self._files = files
        self._descriptor = descriptor
        self.end = end
        self._chunk = b""
        self._chunk_start = 0

    def _at(self, position: int, size_bytes: int, chunk_bytes: int) -> int:
        """Make `size_bytes` (or all up to the end) available from `position`; return its place in the chunk."""
        at = position - self._chunk_start
        wanted = min(size_bytes, self.end - position)
        if at < 0 or at + wanted > len(self._chunk):
            size_bytes = min(max(wanted, chunk_bytes), self.end - position)
            try:
                self._chunk = self._files.read(self._descriptor, size_bytes, position)
            except Unreadable:
                # Perhaps only the read-ahead part is unreadable: read the needed part alone.
                self._chunk = self._files.read(self._descriptor, wanted, position)
            self._chunk_start = position
            at = 0
        return at

    def head(self, position: int, chunk_bytes: int = CHUNK_BYTES) -> BatchHeader:
        """Return the header at `position`, without reading its body. Raises Damaged."""
        at = self._at(position, HEADER_BYTES, chunk_bytes)
        return judge_head(self._chunk, at, position, self.end)

    def batch(self, position: int) -> BatchHeader:
        """Return the header at `position` of a batch that is whole. Raises Damaged."""
        header = self.head(position)
        at = self._at(position, header.size_bytes, CHUNK_BYTES)
        judge_body(self._chunk, at, position, header)
        return header

    def frame(self, position: int, header: BatchHeader) -> bytes:
        at = self._at(position, header.size_bytes, CHUNK_BYTES)
        return self._chunk[at : at + header.size_bytes]

    def walk(self, position: int) -> Iterator[tuple[BatchHeader, int]]:
        """Yield every batch from `position` with its own position, checked wholly. Raises Damaged at a bad one."""
        while position < self.end:
            header = self.batch(position)
            yield header, position
            position += header.size_bytes

    def walk_intact(
        self, position: int, on_damage: Callable[[Damaged], None] | None = None
    ) -> Iterator[tuple[BatchHeader, int]]:
        """Yield every whole batch from `position`, skipping the others after passing them to `on_damage`."""
        previous_offset = -1
        while position < self.end:
            try:
                for header, found in self.walk(position):
                    yield header, found
                    previous_offset = header.base_offset
                return
            except Damaged as damage:
                if on_damage is not None:
                    on_damage(damage)
                position = self.next_whole(Search(damage.position, previous_offset))

    def next_whole(self, search: Search, budget_bytes: int | None = None) -> int:
        """Return the position of the first whole batch behind damage; the end when there is none.

        With a budget, raises SearchUnfinished after about that many bytes; a call with the same `search` continues
        it.
        """
        stop = self.end if budget_bytes is None else search.position + budget_bytes
        while search.position < self.end:
            if search.position >= stop:
                raise SearchUnfinished(search.position)
            try:
                header = self.batch(search.position)
                if self._is_plausible(header, search.previous_offset):
                    return search.position
                search.position += 1
            except Damaged as damage:
                search.position = damage.position + 1
                if damage.resume is not None:
                    header = self.head(damage.position)
                    if self._is_plausible(header, search.previous_offset):
                        search.position, search.previous_offset = damage.resume, header.base_offset
                        continue
            search.position = self._next_head(search.position, search.previous_offset, stop)
        return self.end

    def _is_plausible(self, header: BatchHeader, previous_offset: int) -> bool:
        return previous_offset < header.base_offset < self.end_offset

    def _next_head(self, position: int, previous_offset: int, stop: int) -> int:
        """Return the next position of an intact, plausible head, or one at or beyond `stop` before which there is
        none.

        Two byte searches in C take turns, so that neither zeros nor random bytes cost a step of Python for each byte:
        for the leading bytes that all offsets between the bounds share, and for the magic at byte 24.
        """
        prefix = _shared_prefix(previous_offset + 1, self.end_offset - 1)
        while position < stop and self.end - position >= HEADER_BYTES:
            start = self._at(position, HEADER_BYTES, CHUNK_BYTES)
            at, last = start, min(len(self._chunk) - HEADER_BYTES, stop - 1 - self._chunk_start)
            while (at := self._chunk.find(prefix, at, last + len(prefix))) >= 0:
                magic = self._chunk.find(_MAGIC, at + HEAD_BYTES) - HEAD_BYTES
                if magic < at:
                    break
                if magic == at:
                    if self._is_head(self._chunk_start + at, previous_offset):
                        return self._chunk_start + at
                    magic += 1
                at = magic
            position = max(position + 1, self._chunk_start + last + 1)
        return position if self.end - position >= HEADER_BYTES else self.end

    def _is_head(self, position: int, previous_offset: int) -> bool:
        try:
            header = judge_head(self._chunk, position - self._chunk_start, position, self.end)
        except Damaged:
            return False
        return self._is_plausible(header, previous_offset)


def _shared_prefix(lowest: int, highest: int) -> bytes:
    """Return the leading bytes that every offset from `lowest` to `highest` has in common."""
    low, high = max(0, lowest).to_bytes(8, "big"), max(0, highest).to_bytes(8, "big")
    differing = next((at for at in range(8) if low[at] != high[at]), 8)
    return low[:differing]


def whole_batches(chunk: bytes, up_to_offset: int) -> tuple[int, int]:
    """Return the size of the leading whole, undamaged batches of `chunk` below `up_to_offset`, and the offset after
    them.

    (0, -1) when not even one is whole or visible. Raises Damaged, with the position in the chunk, only for the first
    one: later damage ends the run, and the next read will meet it.
    """
    at, next_offset = 0, -1
    try:
        while len(chunk) - at >= HEADER_BYTES:
            header = parse_header(chunk, at)
            if not is_head_intact(chunk, at) or header.length < _SHORTEST_LENGTH:
                raise Damaged(at, "the batch's head does not match its checksum")
            if at + header.size_bytes > len(chunk):
                break
            judge_body(chunk, at, at, header)
            if header.next_offset > up_to_offset:
                break
            at += header.size_bytes
            next_offset = header.next_offset
    except Damaged:
        if at == 0:
            raise
    return at, next_offset
