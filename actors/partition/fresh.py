"""The batches of the turn that is ending, as they were written. Pure; called by `process.py` and `replicas.py`.

Fetches that wait at the end of the log, those of followers above all, are answered a moment after the write. The disk
is not asked for the batches: their checksums were verified before they were placed. Forgotten at the end of the turn, so
that every later read notices damage of the file.
"""

from collections.abc import Sequence

from ...transport.batch import BatchHeader
from ...transport.compression import Buffer


class FreshBatches:
    def __init__(self, frames: Sequence[Buffer], headers: Sequence[BatchHeader]) -> None:
        """Take batches that were appended: `frames`, one after the other, are the bytes that `headers` describe."""
        self._frames = frames
        self._base_offset, self._next_offset = headers[0].base_offset, headers[-1].next_offset
        self._run: bytes | None = None
        """The frames in one buffer, once a read has asked for them."""

    def read(self, offset: int, max_bytes: int, up_to_offset: int) -> tuple[Buffer, int] | None:
        """Return what `PartitionLog.read` returns, if that is all of these batches; else None."""
        is_whole = offset == self._base_offset and up_to_offset >= self._next_offset
        if not is_whole:
            return None
        if self._run is None:
            self._run = b"".join(self._frames)
        return (self._run, self._next_offset) if len(self._run) <= max_bytes else None
