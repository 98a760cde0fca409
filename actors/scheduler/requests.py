"""The requests to a scheduler: to schedule, list and cancel messages. Pure.

Owns the decisions that wait for the disk and their ids. A refusal is raised before any state has changed; success is
answered once it is durable. Called by machine.py, which flushes.

    request             durable state before            effect
    schedule            its id is pending, or was       answered as a duplicate, once the first is durable
                        delivered recently
                        otherwise, also cancelled       Scheduled, in the log behind the cancellation
    cancel_scheduled    pending, not in flight          Cancelled; from then on it is not delivered
                        cancelled recently              done
                        otherwise                       UNKNOWN_SCHEDULED_ID
    list_scheduled                                      a page, once all earlier decisions are durable
"""

from typing import TypeAlias

from msgspec import Struct

from ...transport.machine import LoopEffect, Received, Reply, Sender
from ...transport.protocol.delayed import (
    CancelScheduled,
    ListScheduled,
    Schedule,
    ScheduleRecord,
    ScheduleReply,
    ScheduleResult,
    page_of,
)
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done, Request
from ...transport.protocol.message import Reply as ReplyBody
from ..journal.recorder import Durable, Recorder
from . import pending_messages as limits
from .listing import Listing
from .moves import Moves
from .pending_messages import Clocks, PendingMessages, digest_of, entry_of
from .records import Cancelled, Change, Message, ProducerChosen, Scheduled, record_count

REQUESTS: tuple[type[Request], ...] = (Schedule, ListScheduled, CancelScheduled)


class ParkedList(Struct, frozen=True):
    """A list request that waits until the messages it lists are durable."""

    sender: Sender
    request: ListScheduled


Answer: TypeAlias = ParkedList


class SchedulerRequests:
    def __init__(
        self, pending: PendingMessages, moves: Moves, listing: Listing, recorder: Recorder[Change, Answer]
    ) -> None:
        self._pending = pending
        self._moves = moves
        self._listing = listing
        self._recorder = recorder
        self._decided: list[Change] = []
        self._undurable: dict[bytes, list[bool]] = {}
        """Messages without an offset yet, by the hash of their id, in the order of their decisions; False: already
        cancelled.

        A cancelled id may be reused at once, so there may be several.
        """

    def take(self) -> list[Change]:
        decided, self._decided = self._decided, []
        return decided

    def choose(self, producer_id: int) -> None:
        """Deliver messages under this producer id from now on."""
        self._decided.append(ProducerChosen(producer_id))

    def on_request(self, event: Received, now: int) -> list[LoopEffect]:
        sender, request = event.sender, event.request
        try:
            self._recorder.check_room(sender, len(self._decided))
            match request:
                case Schedule():
                    results = [self._schedule(record, now) for record in request.records]
                    return self._reply(sender, ScheduleReply(results=results))
                case CancelScheduled(scheduled_id=scheduled_id):
                    self._cancel(scheduled_id, now)
                    return self._reply(sender, Done())
                case ListScheduled():
                    page_of(request.after)
                    return self._list(sender, request)
        except ProtocolError as error:
            return [Reply(sender, error.body)]
        raise AssertionError(f"{request!r} is not for a scheduler")

    def on_durable(self, durable: Durable[Change, Answer], now: int) -> list[LoopEffect]:
        """Note the offsets of durable messages, and send the answers that waited."""
        effects: list[LoopEffect] = []
        for offset, change in offsets_of(durable):
            if isinstance(change, Scheduled):
                digest = digest_of(change.scheduled_id)
                entry = entry_of(change.message.due_ms, offset, change.message.is_delay)
                self._pending.add(digest, entry)
                decided = self._undurable[digest]
                if not decided.pop(0):
                    self._pending.withdraw(digest)
                if not decided:
                    del self._undurable[digest]
            elif isinstance(change, Cancelled):
                self._pending.end(digest_of(change.scheduled_id), now, "cancelled")
        for answer in durable.answers:
            effects += self._begin_list(answer.sender, answer.request)
        return effects

    def _schedule(self, record: ScheduleRecord, now: int) -> ScheduleResult:
        digest = digest_of(record.scheduled_id)
        is_pending = self._is_undurable(digest) or self._pending.find(digest) is not None
        if is_pending or self._pending.ending(digest, now) == "delivered":
            return ScheduleResult(duplicate=True)
        if len(self._pending) + len(self._undurable) >= limits.PENDING_LIMIT:
            why = f"{limits.PENDING_LIMIT} messages are scheduled here, which is the limit"
            return ScheduleResult(error=ProtocolError(ErrorCode.OVERLOADED, why).body)
        message = _message(record, self._moves.clocks(now))
        self._undurable.setdefault(digest, []).append(True)
        self._decided.append(Scheduled(record.scheduled_id, message))
        return ScheduleResult()

    def _cancel(self, scheduled_id: str, now: int) -> None:
        digest = digest_of(scheduled_id)
        if self._is_undurable(digest):
            self._undurable[digest][-1] = False
        else:
            entry = self._pending.find(digest)
            if entry is None:
                ending = self._pending.ending(digest, now)
                if ending == "cancelled" or digest in self._undurable or self._pending.is_withdrawn(digest):
                    return
                why = "has been delivered" if ending == "delivered" else "is not scheduled"
                raise _unknown(scheduled_id, why)
            if not self._moves.withdraw(entry):
                raise _unknown(scheduled_id, "is being delivered")
            self._pending.withdraw(digest)
        self._decided.append(Cancelled(scheduled_id))

    def _is_undurable(self, digest: bytes) -> bool:
        """Return True if the latest message of an id is scheduled, and not durable yet."""
        return digest in self._undurable and self._undurable[digest][-1]

    def _list(self, sender: Sender, request: ListScheduled) -> list[LoopEffect]:
        if not self._decided and self._recorder.is_idle:
            return self._begin_list(sender, request)
        self._recorder.wait(ParkedList(sender, request), is_gathered=bool(self._decided))
        return []

    def _begin_list(self, sender: Sender, request: ListScheduled) -> list[LoopEffect]:
        _, offset = page_of(request.after)
        try:
            return self._listing.begin(sender, request, offset)
        except ProtocolError as error:
            return [Reply(sender, error.body)]

    def _reply(self, sender: Sender, body: ReplyBody) -> list[LoopEffect]:
        return self._recorder.reply(sender, body, is_gathered=bool(self._decided))


def _message(record: ScheduleRecord, clocks: Clocks) -> Message:
    due_ms = record.deliver_at_ms
    if record.delay_ms is not None:
        due_ms = clocks.elapsed_ms + record.delay_ms
    assert due_ms is not None, "a record for a scheduler has a time or a delay"
    return Message(
        topic=record.topic,
        partition=record.partition,
        due_ms=due_ms,
        delay_ms=record.delay_ms,
        scheduled_at_ms=clocks.wall_ms,
        key=record.key,
        value=record.value,
        headers=record.headers,
        timestamp_ms=record.timestamp_ms,
    )


def offsets_of(durable: Durable[Change, Answer]) -> list[tuple[int, Change]]:
    """Return each change with the offset of its first record."""
    found: list[tuple[int, Change]] = []
    offset = durable.mark.base_offset
    for change in durable.changes:
        found.append((offset, change))
        offset += record_count(change)
    return found


def _unknown(scheduled_id: str, why: str) -> ProtocolError:
    return ProtocolError(ErrorCode.UNKNOWN_SCHEDULED_ID, f"message {scheduled_id[:250]!r} {why}")
