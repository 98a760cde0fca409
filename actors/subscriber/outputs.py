"""Outputs of finished records, kept until the transaction that moves the offset past these is committed. Pure.

    kept        the record is finished, and its messages exist only here
    taken       a commit is ordered whose offset is past the record: its messages go with it
    dropped     that commit was made, or the partition was revoked: then its next owner makes them

A commit includes only outputs of records before its offset: those of later records would be made a second time by a
successor that reads only the offset.
"""

from collections.abc import Sequence

from ...transport.publication import Publication


class Outputs:
    """The outputs of one partition, in the order in which the records were finished."""

    def __init__(self) -> None:
        self._by_offset: dict[int, Sequence[Publication]] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        """Return the number of records with outputs."""
        return len(self._by_offset)

    def keep(self, offset: int, published: Sequence[Publication]) -> None:
        self._by_offset[offset] = published
        self.size_bytes += _size_bytes(published)

    def take(self, before: int) -> list[Publication]:
        """Return the outputs for a commit of this offset; they stay here until that is made."""
        return [each for offset, made in self._by_offset.items() if offset < before for each in made]

    def drop(self, before: int) -> None:
        """Remove the outputs published with a commit of this offset."""
        for offset in [offset for offset in self._by_offset if offset < before]:
            self.size_bytes -= _size_bytes(self._by_offset.pop(offset))


def _size_bytes(published: Sequence[Publication]) -> int:
    return sum(each.size_bytes for each in published)
