"""Which positions a consumer commits by itself, and when. Pure.

settled     the positions at the start of the last poll: what earlier polls returned
committed   the positions that the group has, as far as this consumer has committed them
due         `interval_s` after the last time, unless a commit is under way
"""

from collections.abc import Iterable, Mapping

from ..addresses import Place


class AutoCommit:
    def __init__(self, is_on: bool, interval_s: float, now_s: float) -> None:
        self.is_on = is_on
        self.settled: dict[Place, int] = {}
        self._interval_s = interval_s
        self._committed: dict[Place, int] = {}
        self._is_under_way = False
        self._next_at_s = now_s + interval_s

    def due(self, now_s: float) -> dict[Place, int]:
        """What is to be committed now."""
        if not self.is_on or self._is_under_way or now_s < self._next_at_s:
            return {}
        self._next_at_s = now_s + self._interval_s
        return self.news(self.settled)

    def news(self, positions: Mapping[Place, int]) -> dict[Place, int]:
        """Those that are not committed."""
        return {place: at for place, at in positions.items() if self._committed.get(place) != at}

    def begin(self) -> None:
        """A commit has been asked for; `end` follows."""
        self._is_under_way = True

    def end(self) -> None:
        self._is_under_way = False

    def committed(self, offsets: Mapping[Place, int]) -> None:
        self._committed.update(offsets)

    def settled_of(self, places: frozenset[Place]) -> dict[Place, int]:
        return {place: self.settled[place] for place in sorted(places & self.settled.keys())}

    def forget(self, places: Iterable[Place]) -> None:
        for place in places:
            self.settled.pop(place, None)
            self._committed.pop(place, None)
