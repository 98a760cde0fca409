"""What handlers made of finished records, kept until the transaction that moves the offset past them is committed. Pure.

    kept        the record is finished, and its messages are nowhere but here
    taken       a commit is ordered that says the record is done: its messages go with it
    dropped     that commit was made, or the partition has gone: then somebody else makes them

A commit says what is done by an offset and by ranges beyond it. Nothing goes with it but what belongs to records that it
says are done: the others would be made once more by a successor that does not know of them.
"""

from bisect import bisect_right
from collections.abc import Sequence

from ...transport.context import Publication
from .progress import Ranges


class Outputs:
    """Those of one partition, in the order in which the records were finished."""

    def __init__(self) -> None:
        self._by_offset: dict[int, Sequence[Publication]] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        """Of how many records."""
        return len(self._by_offset)

    def keep(self, offset: int, published: Sequence[Publication]) -> None:
        self._by_offset[offset] = published
        self.size_bytes += _size_bytes(published)

    def take(self, before: int, ranges: Ranges) -> list[Publication]:
        """What goes with a commit that says this; it stays here until that is made."""
        return [each for offset in self._of(before, ranges) for each in self._by_offset[offset]]

    def drop(self, before: int, ranges: Ranges) -> None:
        """That commit was made."""
        for offset in self._of(before, ranges):
            self.size_bytes -= _size_bytes(self._by_offset.pop(offset))

    def _of(self, before: int, ranges: Ranges) -> list[int]:
        firsts = [first for first, _ in ranges]

        def is_done(offset: int) -> bool:
            at = bisect_right(firsts, offset) - 1
            return offset < before or (at >= 0 and offset < ranges[at][1])

        return [offset for offset in self._by_offset if is_done(offset)]


def _size_bytes(published: Sequence[Publication]) -> int:
    return sum(each.size_bytes for each in published)
