"""The progress of a log's compaction, and its steps: each is committed by one replacement of the file `compaction`.

Owns the value of that file (`cleaned.py` has its format and the swap of files). Called by `compaction_pass.py`, with
the output of a step written and synced.
"""

from collections.abc import Container, Iterable, Sequence
from pathlib import Path

import msgspec

from .cleaned import Cleaned, CleanedSegment, CleanMark, Swap, carry_out, save_cleaned
from .compaction_output import Output
from .files import Files
from .segment import Segment


class CompactionState:
    def __init__(self, directory: Path, files: Files, cleaned: Cleaned) -> None:
        self.cleaned = cleaned
        self._directory = directory
        self._files = files

    def is_dirty(self, segment: Segment) -> bool:
        return segment.next_offset > self.cleaned.cleaned_offset

    def hold_tombstones(self, offset: int) -> None:
        """Keep tombstones from `offset` on: a segment there cannot be opened, and may hold older records.

        Saved with the next swap or mark, and so before any tombstone above can be dropped.
        """
        if self.cleaned.held_from < 0 or offset < self.cleaned.held_from:
            self.cleaned = msgspec.structs.replace(self.cleaned, held_from=offset)

    def on_log_start(self, base_offset: int) -> None:
        """Note the base offset of the first segment: retention may have deleted the one that held tombstones back."""
        if 0 <= self.cleaned.held_from < base_offset:
            self.cleaned = msgspec.structs.replace(self.cleaned, held_from=-1)

    def swap(self, group: Sequence[Segment], output: Output) -> Segment:
        """Commit that the output replaces the group, and carry it out; return the new segment."""
        base_offset, next_offset = group[0].base_offset, group[-1].next_offset
        replaced = tuple(segment.base_offset for segment in group[1:])
        entry = CleanedSegment(output.size_bytes, max(output.end_offset, base_offset), next_offset)
        known = {base: old for base, old in self.cleaned.segments.items() if base not in replaced}
        swap = Swap(base_offset, output.size_bytes, replaced)
        self._save(
            msgspec.structs.replace(
                self.cleaned,
                segments={**known, base_offset: entry},
                swap=swap,
                leader_epoch=max(self.cleaned.leader_epoch, output.leader_epoch),
            )
        )
        for segment in group:
            segment.close()
        carry_out(self._directory, self._files, swap)
        return output.segment(entry)

    def forget_swap(self, deleted: Container[int]) -> None:
        """Drop a finished swap, so that the next write of the file does not repeat it."""
        if self.cleaned.swap is not None:
            self._save(self.cleaned.without_swap(self._existing(deleted)))

    def mark(
        self, mark: CleanMark, expiry_ms: int, tombstones_since_ms: int, deleted: Container[int]
    ) -> None:
        """Commit the end of a pass."""
        done = self.cleaned.without_swap(self._existing(deleted)).with_mark(mark, expiry_ms)
        self._save(msgspec.structs.replace(done, tombstones_since_ms=tombstones_since_ms))

    def _existing(self, deleted: Container[int]) -> Iterable[int]:
        return [base for base in self.cleaned.segments if base not in deleted]

    def _save(self, cleaned: Cleaned) -> None:
        save_cleaned(self._directory, self._files, cleaned)
        self.cleaned = cleaned
