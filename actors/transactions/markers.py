"""Markers in flight to the participants of decided transactions. Pure.

Owns the participants that still need a marker, and one call at a time to each: markers that gather meanwhile for a
partition are sent together. Must never take a marker for done without proof. Sending one twice does no harm. Called
by machine.py.

    answered                               done
    failed, may succeed later              again after RETRY_MS, or when the participant is up; if a group's is not, the
                                           controller is asked before that whether there is one
    refused for good (never expected)      markers sent together are sent one by one; one refused alone is put aside,
                                           and sent again after LATER_MS: it delays only its own transaction
    there is no such topic or partition    done: no transaction is open there. The list of topics may predate a topic, so
                                           only a list received after the marker counts
    there is no such group                 done: none is deleted while it waits for an end
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...transport.addresses import CONTROLLER, TopicPartition, coordinator_address, partition_address
from ...transport.machine import Answered, Call, Effect, Event, Failed, PeerUp, SetTimer, TimerFired
from ...transport.protocol.control import EnsureGroup
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.message import Done, Request
from ...transport.protocol.transactions import EndGroupTransaction, Marker, WriteMarkers
from .entry import Ended, TransactionEntry

MARKERS, GROUP, REFUSED = "markers", "marker_group", "marker_refused"
RETRY_MS = 100
LATER_MS = 1_000
MARKERS_AT_ONCE = 1_000


class _Item(NamedTuple):
    transactional_id: str | None
    """None: no transaction waits for it."""
    marker: Marker


class _Way(NamedTuple):
    """The route to one participant; `partition` is -1 for a group."""

    name: str
    partition: int

    @property
    def is_group(self) -> bool:
        return self.partition < 0

    @property
    def address(self) -> str:
        if self.is_group:
            return coordinator_address(self.name)
        return partition_address(self.name, self.partition)


class Markers:
    def __init__(self) -> None:
        self._waiting: dict[_Way, deque[_Item]] = {}
        self._under_way: dict[_Way, list[_Item]] = {}
        self._paused: set[_Way] = set()
        self._one_by_one: set[_Way] = set()
        """Routes on which a marker was refused, until none waits."""
        self._refused: dict[_Way, list[_Item]] = {}
        self._left: dict[str, int] = {}
        """Number of participants that have not answered, by transactional id."""
        self._topics: Mapping[str, int] = {}
        self._lists = 0
        """The number of topic lists received."""
        self._put_at: dict[_Way, int] = {}
        """The value of `_lists` when a marker was last queued for a participant."""

    def send(self, transactional_id: str, entry: TransactionEntry) -> tuple[list[Effect], list[str]]:
        """Send markers to an ended transaction's participants; return effects, and ids already complete."""
        assert entry.ended is not None
        ways = [_Way(*tp) for tp in entry.partitions] + [_Way(group, -1) for group in entry.groups]
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

    def send_late(self, ended: Ended, tps: list[TopicPartition], groups: list[str]) -> list[Effect]:
        """Send markers to late participants of a transaction that ended earlier."""
        effects: list[Effect] = []
        for way in [*(_Way(*tp) for tp in tps), *(_Way(group, -1) for group in groups)]:
            effects += self._put(way, _Item(None, _marker(ended)))[0]
        return effects

    def unheard(self, transactional_id: str) -> list[str]:
        """Return the addresses of participants that have not answered."""
        found: set[str] = set()
        for table in (self._waiting, self._under_way, self._refused):
            for way, items in table.items():
                if any(item.transactional_id == transactional_id for item in items):
                    found.add(way.address)
        return sorted(found)

    def set_topics(self, topics: Mapping[str, int]) -> tuple[list[Effect], list[str]]:
        """Set the number of partitions of each topic."""
        self._topics = topics
        self._lists += 1
        finished: list[str] = []
        known = [*self._waiting, *self._refused]
        for way in [way for way in known if self._is_gone(way) and way not in self._under_way]:
            finished += self._drop(way)
        return [], finished

    def handle(self, event: Event, now: int) -> tuple[list[Effect], list[str]]:
        """Return effects, and the transactional ids whose participants have all answered."""
        match event:
            case Answered(key=(first, way)) if first == MARKERS:
                return self._on_told(way)
            case Failed(key=(first, way), error=error) if first == MARKERS:
                return self._on_failed(way, error, now)
            case Answered(key=(first, way)) if first == GROUP:
                return self._pause(way, now + RETRY_MS), []
            case Failed(key=(first, way), error=error) if first == GROUP:
                is_gone = error.code == ErrorCode.UNKNOWN_GROUP
                return self._on_told(way) if is_gone else (self._pause(way, now + RETRY_MS), [])
            case TimerFired(key=(first, way)) if first == MARKERS:
                self._paused.discard(way)
                return self._call(way), []
            case TimerFired(key=(first, way)) if first == REFUSED and way in self._refused:
                self._one_by_one.add(way)
                self._waiting.setdefault(way, deque()).extend(self._refused.pop(way))
                return self._call(way), []
            case PeerUp(address=address):
                ways = [way for way in self._paused if way.address == address]
                self._paused.difference_update(ways)
                return [effect for way in ways for effect in self._call(way)], []
        return [], []

    def _on_told(self, way: _Way) -> tuple[list[Effect], list[str]]:
        items = self._under_way.pop(way)
        if way not in self._waiting and way not in self._refused:
            del self._put_at[way]
        finished = [name for item in items for name in self._done(item.transactional_id)]
        return self._call(way), finished

    def _on_failed(self, way: _Way, error: ErrorBody, now: int) -> tuple[list[Effect], list[str]]:
        if error.code == ErrorCode.ACTOR_UNAVAILABLE and way.is_group:
            return [Call((GROUP, way), CONTROLLER, EnsureGroup(group=way.name, create=False), Done)], []
        if error.retriable:
            effects = self._pause(way, now + RETRY_MS)
            return ([], self._drop(way)) if self._is_gone(way) else (effects, [])
        return self._on_refused(way, now), []

    def _on_refused(self, way: _Way, now: int) -> list[Effect]:
        items = self._under_way.pop(way)
        if len(items) > 1:
            self._one_by_one.add(way)
            self._waiting.setdefault(way, deque()).extendleft(reversed(items))
            return self._call(way)
        self._refused.setdefault(way, []).extend(items)
        return [SetTimer((REFUSED, way), now + LATER_MS), *self._call(way)]

    def _pause(self, way: _Way, until: int) -> list[Effect]:
        """Schedule the next attempt."""
        self._waiting.setdefault(way, deque()).extendleft(reversed(self._under_way.pop(way)))
        self._paused.add(way)
        return [SetTimer((MARKERS, way), until)]

    def _put(self, way: _Way, item: _Item) -> tuple[list[Effect], list[str]]:
        self._put_at[way] = self._lists
        self._waiting.setdefault(way, deque()).append(item)
        return self._call(way), []

    def _is_gone(self, way: _Way) -> bool:
        is_known = way.is_group or way.partition < self._topics.get(way.name, 0)
        return not is_known and self._lists > self._put_at[way]

    def _drop(self, way: _Way) -> list[str]:
        self._paused.discard(way)
        self._put_at.pop(way, None)
        items = [*self._waiting.pop(way, ()), *self._refused.pop(way, ())]
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
        most = 1 if way.is_group or way in self._one_by_one else MARKERS_AT_ONCE
        items = [queue.popleft() for _ in range(min(most, len(queue)))]
        if not queue:
            del self._waiting[way]
            self._one_by_one.discard(way)
        self._under_way[way] = items
        return [Call((MARKERS, way), way.address, _request(way, items), Done)]


def _marker(ended: Ended) -> Marker:
    return Marker(ended.producer_id, ended.producer_epoch, ended.is_committed)


def _request(way: _Way, items: list[_Item]) -> Request:
    if not way.is_group:
        return WriteMarkers(topic=way.name, partition=way.partition, markers=[item.marker for item in items])
    marker: Any = items[0].marker
    return EndGroupTransaction(
        group=way.name,
        producer_id=marker.producer_id,
        producer_epoch=marker.producer_epoch,
        committed=marker.committed,
    )
