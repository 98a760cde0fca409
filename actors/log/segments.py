"""The list of a log's segments: lookup by offset, size, and a bound on open descriptors.

Owns the list and which sealed segments are open. Decides nothing about their contents; `log.py` appends to the active
segment, which is the last of the list, and says when segments are added, deleted or replaced.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence

from .segment import Segment

OPEN_SEGMENTS_LIMIT = 32


class SegmentList:
    def __init__(self, segments: Sequence[Segment]) -> None:
        """Take a log's segments, at least one, in the order of their offsets."""
        self.all = list(segments)
        self.active = self.all[-1]
        self._bases = [segment.base_offset for segment in self.all]
        self._sealed_bytes = sum(segment.size_bytes for segment in self.all[:-1])
        self._opened: OrderedDict[int, Segment] = OrderedDict()

    def __len__(self) -> int:
        return len(self.all)

    @property
    def size_bytes(self) -> int:
        return self._sealed_bytes + self.active.size_bytes

    def holding(self, offset: int) -> Segment:
        """Return the segment whose range of offsets includes `offset`; the active one includes the log's end."""
        return self.all[self._index_of(offset)]

    def starting_with(self, offset: int) -> Sequence[Segment]:
        """Return that segment and all later ones."""
        return self.all[self._index_of(offset) :]

    def _index_of(self, offset: int) -> int:
        return bisect_right(self._bases, offset) - 1

    def after_gap(self, offset: int) -> int:
        """Skip to the next segment if compaction left no record from `offset` to its segment's end."""
        while offset < self.active.next_offset:
            segment = self.holding(offset)
            if not segment.has_only_gap_from(offset):
                break
            offset = segment.next_offset
        return offset

    def keep_open(self, segment: Segment) -> None:
        """Note that a segment is being read. The least recently read one is closed when too many are open."""
        if segment is self.active:
            return
        self._opened[segment.base_offset] = segment
        self._opened.move_to_end(segment.base_offset)
        if len(self._opened) > OPEN_SEGMENTS_LIMIT:
            self._opened.popitem(last=False)[1].close()

    def roll(self, successor: Segment) -> None:
        """Seal the active segment; appends go to its successor."""
        sealed, self.active = self.active, successor
        sealed.seal(successor.base_offset)
        self._sealed_bytes += sealed.size_bytes
        self.all.append(successor)
        self._bases.append(successor.base_offset)
        self.keep_open(sealed)

    def remove_first(self) -> Segment:
        """Remove the oldest sealed segment from the list, and return it."""
        segment = self.all.pop(0)
        self._bases.pop(0)
        self._sealed_bytes -= segment.size_bytes
        self._opened.pop(segment.base_offset, None)
        return segment

    def replace(self, replaced: Sequence[Segment], successor: Segment) -> None:
        """Replace neighbouring sealed segments by the one that compaction made of them."""
        first = self.all.index(replaced[0])
        self.all[first : first + len(replaced)] = [successor]
        self._bases = [segment.base_offset for segment in self.all]
        self._sealed_bytes += successor.size_bytes - sum(segment.size_bytes for segment in replaced)
        for segment in replaced:
            self._opened.pop(segment.base_offset, None)

    def close(self) -> None:
        for segment in self.all:
            segment.close()
