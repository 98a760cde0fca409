"""What handlers made of finished records, kept until the transaction that moves the offset past them is committed. Pure.

    kept        the record is finished, and its messages are nowhere but here
    taken       a commit is ordered whose offset is past the record: its messages go with it
    dropped     that commit was made, or the partition has gone: then somebody else makes them

Nothing goes with a commit but what was made of records before its offset: of those beyond it would be made once more, by
a successor that knows of the offset alone.
"""

from collections.abc import Sequence

from ...transport.context import Publication


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

    def take(self, before: int) -> list[Publication]:
        """What goes with a commit of this offset; it stays here until that is made."""
        return [each for offset, made in self._by_offset.items() if offset < before for each in made]

    def drop(self, before: int) -> None:
        """That commit was made."""
        for offset in [offset for offset in self._by_offset if offset < before]:
            self.size_bytes -= _size_bytes(self._by_offset.pop(offset))


def _size_bytes(published: Sequence[Publication]) -> int:
    return sum(each.size_bytes for each in published)
