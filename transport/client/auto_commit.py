"""Automatic commits of a consumer: which positions, and when. Pure.

settled     the positions at the start of the last poll: after the messages returned by earlier polls
committed   the group's positions, as far as this consumer has committed them
due         `interval_s` after the last time, unless a commit is in flight
"""

from collections.abc import Iterable, Mapping

from ..addresses import TopicPartition


class AutoCommit:
    def __init__(self, is_on: bool, interval_s: float, now_s: float) -> None:
        self.is_on = is_on
        self.settled: dict[TopicPartition, int] = {}
        self._interval_s = interval_s
        self._committed: dict[TopicPartition, int] = {}
        self._is_under_way = False
        self._next_at_s = now_s + interval_s

    def due(self, now_s: float) -> dict[TopicPartition, int]:
        """Return the positions to commit now."""
        if not self.is_on or self._is_under_way or now_s < self._next_at_s:
            return {}
        self._next_at_s = now_s + self._interval_s
        return self.news(self.settled)

    def news(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Return the positions that are not committed."""
        return {tp: at for tp, at in positions.items() if self._committed.get(tp) != at}

    def begin(self) -> None:
        """Record that a commit was sent. `end` follows."""
        self._is_under_way = True

    def end(self) -> None:
        self._is_under_way = False

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._committed.update(offsets)

    def settled_of(self, tps: frozenset[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self.settled[tp] for tp in sorted(tps & self.settled.keys())}

    def forget(self, tps: Iterable[TopicPartition]) -> None:
        for tp in tps:
            self.settled.pop(tp, None)
            self._committed.pop(tp, None)
