"""Markers in flight to the participants of decided transactions. Pure.

Owns the participants that still need a marker, and one call at a time to each: markers that gather meanwhile for a
partition are sent together. The exchange repeats a call as long as it may succeed. Must never take a marker for done
without proof. Sending one twice does no harm. Called by machine.py.

    answered                               done
    refused for good (never expected)      markers sent together are sent one by one; one refused alone is put aside,
                                           and sent again after LATER_MS: it delays only its own transaction
    there is no such topic or partition    done: no transaction is open there, and the call is withdrawn. The list of
                                           topics may predate a topic, so only a list received after the marker counts
    a group does not answer                the controller is asked whether there is one; then the call is repeated until
                                           it times out, and so on
    there is no such group                 done: none is deleted while it waits for an end
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from ...transport.addresses import CONTROLLER, Address, TopicPartition, coordinator_address, partition_address
from ...transport.machine import (
    Answered,
    Call,
    CancelCall,
    Failed,
    LoopEffect,
    LoopEvent,
    SetTimer,
    TimerFired,
)
from ...transport.protocol.control import EnsureGroup
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.message import Done, Request
from ...transport.protocol.transactions import EndGroupTransaction, Marker, WriteMarkers
from .transaction import Ended, Transaction

LATER_MS = 1_000
MARKERS_AT_ONCE = 1_000


class QueuedMarker(NamedTuple):
    transactional_id: str | None
    """None: no transaction waits for it."""
    marker: Marker


class Participant(NamedTuple):
    """A partition or a group of a transaction; `partition` is -1 for a group."""

    name: str
    partition: int

    @property
    def is_group(self) -> bool:
        return self.partition < 0

    @property
    def address(self) -> Address:
        if self.is_group:
            return coordinator_address(self.name)
        return partition_address(self.name, self.partition)


class MarkersCall(Struct, frozen=True):
    """The markers in flight to one participant."""

    to: Participant
    number: int
    """Tells it from an earlier call, whose outcome may come in the turn in which it is withdrawn."""


class GroupLookupCall(Struct, frozen=True):
    """The question to the controller whether a group exists."""

    to: Participant


class RefusedRetryTimer(Struct, frozen=True):
    """The next attempt to send refused markers."""

    to: Participant


class Markers:
    def __init__(self) -> None:
        self._waiting: dict[Participant, deque[QueuedMarker]] = {}
        self._in_flight: dict[Participant, list[QueuedMarker]] = {}
        self._calls: dict[Participant, int] = {}
        """The numbers of the calls in flight."""
        self._last_number = 0
        self._one_by_one: set[Participant] = set()
        """Participants that have refused a marker, until none waits."""
        self._refused: dict[Participant, list[QueuedMarker]] = {}
        self._unanswered: dict[str, int] = {}
        """Number of participants that have not answered, by transactional id."""
        self._topics: Mapping[str, int] = {}
        self._lists = 0
        """The number of topic lists received."""
        self._put_at: dict[Participant, int] = {}
        """The value of `_lists` when a marker was last queued for a participant."""

    def send(self, transactional_id: str, transaction: Transaction) -> tuple[list[LoopEffect], list[str]]:
        """Send markers to an ended transaction's participants; return effects, and ids already complete."""
        assert transaction.ended is not None
        participants = [Participant(*tp) for tp in transaction.partitions] + [
            Participant(group, -1) for group in transaction.groups
        ]
        self._unanswered[transactional_id] = len(participants)
        if not participants:
            return [], self._done(transactional_id, 0)
        effects: list[LoopEffect] = []
        finished: list[str] = []
        for to in participants:
            more, done = self._put(to, QueuedMarker(transactional_id, _marker(transaction.ended)))
            effects += more
            finished += done
        return effects, finished

    def send_late(self, ended: Ended, tps: list[TopicPartition], groups: list[str]) -> list[LoopEffect]:
        """Send markers to late participants of a transaction that ended earlier."""
        effects: list[LoopEffect] = []
        for to in [*(Participant(*tp) for tp in tps), *(Participant(group, -1) for group in groups)]:
            effects += self._put(to, QueuedMarker(None, _marker(ended)))[0]
        return effects

    def unanswered(self, transactional_id: str) -> list[str]:
        """Return the addresses of participants that have not answered."""
        found: set[str] = set()
        for table in (self._waiting, self._in_flight, self._refused):
            for to, items in table.items():
                if any(item.transactional_id == transactional_id for item in items):
                    found.add(to.address)
        return sorted(found)

    def set_topics(self, topics: Mapping[str, int]) -> tuple[list[LoopEffect], list[str]]:
        """Set the number of partitions of each topic. Return effects, and the ids of transactions that are complete by
        it."""
        self._topics = topics
        self._lists += 1
        effects: list[LoopEffect] = []
        finished: list[str] = []
        for to in [to for to in self._put_at if self._is_gone(to)]:
            if to in self._calls:
                effects.append(CancelCall(self._calls.pop(to)))
            finished += self._drop(to)
        return effects, finished

    def handle(self, event: LoopEvent, now: int) -> tuple[list[LoopEffect], list[str]]:
        """Return effects, and the transactional ids whose participants have all answered."""
        match event:
            case Answered(key=MarkersCall(to=to, number=number)) if self._calls.get(to) == number:
                return self._on_answered(to)
            case Failed(key=MarkersCall(to=to, number=number), error=error) if self._calls.get(to) == number:
                return self._on_failed(to, error, now), []
            case Answered(key=GroupLookupCall(to=to)):
                return self._call_again(to), []
            case Failed(key=GroupLookupCall(to=to), error=error):
                return (
                    self._on_answered(to)
                    if error.code == ErrorCode.UNKNOWN_GROUP
                    else (self._call_again(to), [])
                )
            case TimerFired(key=RefusedRetryTimer(to=to)) if to in self._refused:
                self._one_by_one.add(to)
                self._waiting.setdefault(to, deque()).extend(self._refused.pop(to))
                return self._call(to), []
        return [], []

    def _on_answered(self, to: Participant) -> tuple[list[LoopEffect], list[str]]:
        items = self._land(to)
        if to not in self._waiting and to not in self._refused:
            del self._put_at[to]
        finished = [name for item in items for name in self._done(item.transactional_id)]
        return self._call(to), finished

    def _on_failed(self, to: Participant, error: ErrorBody, now: int) -> list[LoopEffect]:
        if error.retriable and to.is_group:
            request = EnsureGroup(group=to.name, create=False)
            return [Call(GroupLookupCall(to), CONTROLLER, request, Done, is_endless=True)]
        items = self._land(to)
        if len(items) > 1:
            self._one_by_one.add(to)
            self._waiting.setdefault(to, deque()).extendleft(reversed(items))
            return self._call(to)
        self._refused.setdefault(to, []).extend(items)
        return [SetTimer(RefusedRetryTimer(to), now + LATER_MS), *self._call(to)]

    def _call_again(self, to: Participant) -> list[LoopEffect]:
        """Make the call to a group again, and repeat it for a while."""
        self._waiting.setdefault(to, deque()).extendleft(reversed(self._land(to)))
        return self._call(to, is_retried=True)

    def _land(self, to: Participant) -> list[QueuedMarker]:
        """Return the markers of a call that has ended."""
        del self._calls[to]
        return self._in_flight.pop(to)

    def _put(self, to: Participant, item: QueuedMarker) -> tuple[list[LoopEffect], list[str]]:
        self._put_at[to] = self._lists
        self._waiting.setdefault(to, deque()).append(item)
        return self._call(to), []

    def _is_gone(self, to: Participant) -> bool:
        is_known = to.is_group or to.partition < self._topics.get(to.name, 0)
        return not is_known and self._lists > self._put_at[to]

    def _drop(self, to: Participant) -> list[str]:
        del self._put_at[to]
        self._one_by_one.discard(to)
        tables = (self._in_flight, self._waiting, self._refused)
        items = [item for table in tables for item in table.pop(to, ())]
        return [name for item in items for name in self._done(item.transactional_id)]

    def _done(self, transactional_id: str | None, count: int = 1) -> list[str]:
        if transactional_id is None:
            return []
        self._unanswered[transactional_id] -= count
        if self._unanswered[transactional_id] > 0:
            return []
        del self._unanswered[transactional_id]
        return [transactional_id]

    def _call(self, to: Participant, *, is_retried: bool = False) -> list[LoopEffect]:
        queue = self._waiting.get(to)
        if queue is None or to in self._in_flight:
            return []
        most = 1 if to.is_group or to in self._one_by_one else MARKERS_AT_ONCE
        items = [queue.popleft() for _ in range(min(most, len(queue)))]
        if not queue:
            del self._waiting[to]
            self._one_by_one.discard(to)
        self._in_flight[to] = items
        self._last_number += 1
        self._calls[to] = self._last_number
        return [
            Call(
                MarkersCall(to, self._last_number),
                to.address,
                _request(to, items),
                Done,
                # Not to a group: that would wait for a coordinator that was deleted.
                is_endless=not to.is_group,
                is_retried=is_retried,
                token=self._last_number,
            )
        ]


def _marker(ended: Ended) -> Marker:
    return Marker(ended.producer_id, ended.producer_epoch, ended.is_committed)


def _request(to: Participant, items: list[QueuedMarker]) -> Request:
    if not to.is_group:
        return WriteMarkers(topic=to.name, partition=to.partition, markers=[item.marker for item in items])
    marker: Any = items[0].marker
    return EndGroupTransaction(
        group=to.name,
        producer_id=marker.producer_id,
        producer_epoch=marker.producer_epoch,
        committed=marker.committed,
    )
