"""Markers on their way to the participants of transactions that have been decided. Pure.

Owns which participants have still to be told, and one call at a time to each: what gathers meanwhile for a partition goes
out together. A marker is repeated until it is answered, over the participant's restarts; a partition whose topic is gone
has nothing to end. The list of topics may be older than a topic, so only one that came after the marker tells that.
Telling twice does no harm. Called by machine.py.
"""

from collections import deque
from typing import Any, NamedTuple

from ...transport.addresses import coordinator_address, partition_address
from ...transport.machine import Answered, Call, Effect, Event, Failed, PeerUp, SetTimer, TimerFired
from ...transport.protocol.message import Done, Request
from ...transport.protocol.transactions import EndGroupTransaction, Marker, WriteMarkers
from .entry import Ended, Entry

MARKERS = "markers"
RETRY_MS = 100
MARKERS_AT_ONCE = 1_000


class _Item(NamedTuple):
    transactional_id: str | None
    """None: nobody waits for it."""
    marker: Marker


class _Way(NamedTuple):
    """To one participant; `partition` is -1 for a group."""

    name: str
    partition: int

    @property
    def address(self) -> str:
        is_group = self.partition < 0
        return coordinator_address(self.name) if is_group else partition_address(self.name, self.partition)


class Markers:
    def __init__(self) -> None:
        self._waiting: dict[_Way, deque[_Item]] = {}
        self._under_way: dict[_Way, list[_Item]] = {}
        self._paused: set[_Way] = set()
        self._left: dict[str, int] = {}
        """Participants that have still to answer, by transactional id."""
        self._topics: frozenset[str] = frozenset()
        self._lists = 0
        """How many lists of the topics have come."""
        self._put_at: dict[_Way, int] = {}
        """How many had come when a participant last had something to be told."""

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._under_way

    def send(self, transactional_id: str, entry: Entry) -> tuple[list[Effect], list[str]]:
        """Tell the participants of what has ended; effects, and the ids that are complete already."""
        assert entry.ended is not None
        ways = [_Way(*place) for place in entry.partitions] + [_Way(group, -1) for group in entry.groups]
        self._left[transactional_id] = len(ways)
        if not ways:
            return [], self._done(transactional_id, 0)
        effects: list[Effect] = []
        finished: list[str] = []
        for way in ways:
            more, done = self._put(way, _Item(transactional_id, _marker(entry.ended)))
            effects += more
            finished += done
        return effects, finished

    def send_late(self, ended: Ended, places: list[tuple[str, int]], groups: list[str]) -> list[Effect]:
        """Tell who has come late of what has ended long since."""
        effects: list[Effect] = []
        for way in [*(_Way(*place) for place in places), *(_Way(group, -1) for group in groups)]:
            effects += self._put(way, _Item(None, _marker(ended)))[0]
        return effects

    def set_topics(self, topics: frozenset[str]) -> tuple[list[Effect], list[str]]:
        self._topics = topics
        self._lists += 1
        finished: list[str] = []
        for way in [way for way in self._waiting if self._is_gone(way) and way not in self._under_way]:
            finished += self._drop(way)
        return [], finished

    def handle(self, event: Event, now: int) -> tuple[list[Effect], list[str]]:
        """Effects, and the transactional ids whose participants all know."""
        match event:
            case Answered(key=(first, way)) if first == MARKERS:
                items = self._under_way.pop(way)
                if way not in self._waiting:
                    del self._put_at[way]
                finished = [name for item in items for name in self._done(item.transactional_id)]
                return self._call(way), finished
            case Failed(key=(first, way), error=error) if first == MARKERS:
                self._waiting.setdefault(way, deque()).extendleft(reversed(self._under_way.pop(way)))
                if self._is_gone(way) or not error.retriable:
                    return [], self._drop(way)
                self._paused.add(way)
                return [SetTimer((MARKERS, way), now + RETRY_MS)], []
            case TimerFired(key=(first, way)) if first == MARKERS:
                self._paused.discard(way)
                return self._call(way), []
            case PeerUp(address=address):
                ways = [way for way in self._paused if way.address == address]
                self._paused.difference_update(ways)
                return [effect for way in ways for effect in self._call(way)], []
        return [], []

    def _put(self, way: _Way, item: _Item) -> tuple[list[Effect], list[str]]:
        self._put_at[way] = self._lists
        self._waiting.setdefault(way, deque()).append(item)
        return self._call(way), []

    def _is_gone(self, way: _Way) -> bool:
        return way.partition >= 0 and self._lists > self._put_at[way] and way.name not in self._topics

    def _drop(self, way: _Way) -> list[str]:
        self._paused.discard(way)
        self._put_at.pop(way, None)
        items = self._waiting.pop(way, deque())
        return [name for item in items for name in self._done(item.transactional_id)]

    def _done(self, transactional_id: str | None, count: int = 1) -> list[str]:
        if transactional_id is None:
            return []
        self._left[transactional_id] -= count
        if self._left[transactional_id] > 0:
            return []
        del self._left[transactional_id]
        return [transactional_id]

    def _call(self, way: _Way) -> list[Effect]:
        queue = self._waiting.get(way)
        if queue is None or way in self._under_way or way in self._paused:
            return []
        most = MARKERS_AT_ONCE if way.partition >= 0 else 1
        items = [queue.popleft() for _ in range(min(most, len(queue)))]
        if not queue:
            del self._waiting[way]
        self._under_way[way] = items
        return [Call((MARKERS, way), way.address, _request(way, items), Done)]


def _marker(ended: Ended) -> Marker:
    return Marker(ended.producer_id, ended.producer_epoch, ended.is_committed)


def _request(way: _Way, items: list[_Item]) -> Request:
    if way.partition >= 0:
        return WriteMarkers(topic=way.name, partition=way.partition, markers=[item.marker for item in items])
    marker: Any = items[0].marker
    return EndGroupTransaction(
        group=way.name,
        producer_id=marker.producer_id,
        producer_epoch=marker.producer_epoch,
        committed=marker.committed,
    )
