"""Walking the batches of a segment, and finding the next good one behind damage.

Owns the judgement whether bytes at a position are a batch. Recovery, index rebuilding, producer replay and `verify`
walk here with every checksum; reads use `whole_batches` on what they are about to hand out. Never writes.

A batch's head has a checksum of its own, so a damaged body never hides where the next batch begins. A body's fields
(`record_count`, timestamps, producer) may be believed only after its checksum has been.
"""

from collections.abc import Callable, Iterator

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
_SHORTEST_LENGTH = HEADER_BYTES - HEAD_BYTES


class Damaged(Exception):
    """No whole batch at `position`. `resume` is where the next one begins, if the head survived."""

    def __init__(self, position: int, reason: str, resume: int | None = None) -> None:
        super().__init__(f"byte {position}: {reason}")
        self.position = position
        self.reason = reason
        self.resume = resume


def judge_head(buffer: bytes, at: int, position: int, end: int) -> BatchHeader:
    """The header at `buffer[at]`, which is byte `position` of a file that ends at `end`. Raises Damaged."""
    available_bytes = min(end - position, len(buffer) - at)
    if available_bytes < HEADER_BYTES:
        raise Damaged(position, f"{available_bytes} bytes are too few for a batch header")
    header = parse_header(buffer, at)
    if not is_head_intact(buffer, at) or header.length < _SHORTEST_LENGTH:
        raise Damaged(position, "the batch's head does not match its checksum")
    if position + header.size_bytes > end:
        raise Damaged(position, f"the batch needs {header.size_bytes} bytes, {end - position} are there")
    return header


def judge_body(buffer: bytes, at: int, position: int, header: BatchHeader) -> None:
    """Raises Damaged unless the batch's contents, wholly in `buffer`, are what their checksum says."""
    resume = position + header.size_bytes
    if checksum(buffer[at + HEAD_BYTES : at + header.size_bytes]) != header.crc32c:
        raise Damaged(position, "the batch's body does not match its checksum", resume)
    if header.magic != MAGIC or header.record_count == 0:
        raise Damaged(
            position, f"the batch has magic {header.magic} and {header.record_count} records", resume
        )


class SegmentReader:
    """One segment's bytes, from 0 to `end`, read in chunks."""

    def __init__(self, files: Files, descriptor: int, end: int) -> None:
        self._files = files
        self._descriptor = descriptor
        self.end = end
        self._chunk = b""
        self._chunk_start = 0

    def _at(self, position: int, size_bytes: int, chunk_bytes: int) -> int:
        """Make `size_bytes` (or all up to the end) available from `position`; where in the chunk that is."""
        at = position - self._chunk_start
        wanted = min(size_bytes, self.end - position)
        if at < 0 or at + wanted > len(self._chunk):
            size_bytes = min(max(wanted, chunk_bytes), self.end - position)
            try:
                self._chunk = self._files.read(self._descriptor, size_bytes, position)
            except Unreadable:
                # Perhaps only what was to be read ahead: then what is needed can be read alone.
                self._chunk = self._files.read(self._descriptor, wanted, position)
            self._chunk_start = position
            at = 0
        return at

    def head(self, position: int, chunk_bytes: int = CHUNK_BYTES) -> BatchHeader:
        """The header at `position`, its body unread. Raises Damaged."""
        at = self._at(position, HEADER_BYTES, chunk_bytes)
        return judge_head(self._chunk, at, position, self.end)

    def batch(self, position: int) -> BatchHeader:
        """The header at `position` of a batch that is whole. Raises Damaged."""
        header = self.head(position)
        at = self._at(position, header.size_bytes, CHUNK_BYTES)
        judge_body(self._chunk, at, position, header)
        return header

    def frame(self, position: int, header: BatchHeader) -> bytes:
        at = self._at(position, header.size_bytes, CHUNK_BYTES)
        return self._chunk[at : at + header.size_bytes]

    def walk(self, position: int) -> Iterator[tuple[BatchHeader, int]]:
        """Every batch from `position` with its own position, checked wholly. Raises Damaged at a bad one."""
        while position < self.end:
            header = self.batch(position)
            yield header, position
            position += header.size_bytes

    def walk_intact(
        self, position: int, on_damage: Callable[[Damaged], None] | None = None
    ) -> Iterator[tuple[BatchHeader, int]]:
        """Every batch from `position` that is whole, stepping over the others and telling `on_damage` of them."""
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
                position = self.resume_after(damage, previous_offset)

    def resume_after(self, damage: Damaged, previous_offset: int) -> int:
        """Where the first batch behind the damage begins; the end when there is none."""
        if damage.resume is not None:
            return damage.resume
        position = damage.position + 1
        while self.end - position >= HEADER_BYTES:
            at = self._at(position, HEADER_BYTES, CHUNK_BYTES)
            # Only a byte of the right magic can be byte 24 of a header: one search in C skips nearly everything.
            magic = self._chunk.find(bytes((MAGIC,)), at + HEAD_BYTES)
            if magic < 0:
                position = max(position + 1, self._chunk_start + len(self._chunk) - HEAD_BYTES)
                continue
            position = self._chunk_start + magic - HEAD_BYTES
            if self._is_batch(position, previous_offset):
                return position
            position += 1
        return self.end

    def _is_batch(self, position: int, previous_offset: int) -> bool:
        try:
            return self.head(position).base_offset > previous_offset
        except Damaged:
            return False


def whole_batches(chunk: bytes, up_to_offset: int) -> tuple[int, int]:
    """How many leading bytes of `chunk` are whole, undamaged batches below `up_to_offset`, and the offset after them.

    (0, -1) when not even one is whole or visible. Raises Damaged, with the position in the chunk, only for the first
    one: damage further on ends the run, and the next read will meet it.
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
