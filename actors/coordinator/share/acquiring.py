"""The requests for a share group's records, which wait until there are some. Pure.

Owns the waiting requests, one of each member, and the acquisitions that are recorded. Called by group.py.

A first delivery is answered at once, and recorded while the member has the records: with the member's verdict at the
latest. A coordinator that dies before has forgotten it, so the record is delivered for the first time again. Must never
answer before that is durable when this could make a record be delivered without end, or deliver one that is done:

    delivered before, or lost with its member      the delivery waits for its record, so a crash of the coordinator
                                                   forgets one delivery at most
    another coordinator may have taken over        every delivery waits for its record, which the log refuses then
    the start in the partition is not durable      the delivery waits: a successor might start behind the record
    the end of a pause is not durable              the delivery waits: the group is shown as paused

    request     waits until there are records or `max_wait_ms` are over, and at least until that is known; one that
                acknowledges does not wait. A member's newer request ends the older one
    advance     the waiting requests acquire available records in turn, or the missing ends of the logs are requested
"""

from collections.abc import Callable
from typing import Any

from msgspec import UNSET, Struct

from ....transport.addresses import TopicPartition
from ....transport.machine import LoopEffect, Reply, Sender
from ....transport.protocol.errors import ErrorBody, ErrorCode
from ....transport.protocol.shares import AcknowledgeResult, Acquire, AcquiredRange, AcquireReply
from ...journal.recorder import Recorder
from ...journal.room import check_share
from .acquire_replies import Acquired, AcquireReplies
from .keyed import acquire_chosen
from .log_bounds import LogBounds
from .lookahead import Lookahead
from .partition import SharePartition
from .partitions import SharePartitions
from .reading import RecordReading
from .records import ShareSettings
from .spans import Span

MAX_WAITING = 2_000
"""Members that wait for records; shared by the connections (journal/room.py)."""
TOPIC_GRACE_MS = 1_000
"""Time for which a topic may be unknown here after its creation."""
LOOK_MS = 100


class WaitingAcquire(Struct):
    sender: Sender
    request: Acquire
    deadline: int
    topic_deadline: int
    answered: set[TopicPartition]
    """Partitions that have answered since the request arrived, with records or without."""


class Acquisitions:
    def __init__(
        self,
        partitions: SharePartitions,
        log_bounds: LogBounds,
        recorder: Recorder[Any, Any],
        is_paused: Callable[[], bool],
        is_settled: Callable[[TopicPartition], bool],
    ) -> None:
        self._partitions = partitions
        self._log_bounds = log_bounds
        self._recorder = recorder
        self._is_paused = is_paused
        self._is_settled = is_settled
        """Return True if first deliveries from the partition need not wait for anything."""
        self._waiting: dict[str, WaitingAcquire] = {}
        """By member."""
        self._replies = AcquireReplies()
        self.reading = RecordReading(partitions)
        self.lookahead = Lookahead(partitions)
        self._turn = 0
        self._is_stirred = True

    @property
    def is_waiting(self) -> bool:
        return bool(self._waiting)

    @property
    def members(self) -> set[str]:
        """The members that wait."""
        return set(self._waiting)

    @property
    def topics(self) -> set[str]:
        """The topics that members wait for."""
        return {topic for waiting in self._waiting.values() for topic in waiting.request.topics}

    def stir(self) -> None:
        """Note a change that may concern a waiting request."""
        self._is_stirred = True

    def request(
        self, sender: Sender, request: Acquire, settings: ShareSettings, now: int
    ) -> list[LoopEffect]:
        """Let a request wait. Raises ProtocolError if too many do."""
        effects = self.end(request.member_id, settings)
        own = sum(each.sender.route[0] == sender.route[0] for each in self._waiting.values())
        check_share(own, len(self._waiting), MAX_WAITING, "members wait for records")
        deadline, topic_deadline = now + request.max_wait_ms, now + TOPIC_GRACE_MS
        self._waiting[request.member_id] = WaitingAcquire(sender, request, deadline, topic_deadline, set())
        self.stir()
        return effects

    def request_at_once(
        self,
        sender: Sender,
        request: Acquire,
        results: list[AcknowledgeResult],
        settings: ShareSettings,
        now: int,
        *,
        is_changed: bool,
    ) -> list[LoopEffect]:
        """Acquire the records that are known, for a request whose acknowledgements have been applied.

        It is answered when that is durable, with the `results` of the acknowledgements; at once if there is nothing
        to record."""
        effects = self.end(request.member_id, settings)
        self.stir()
        effects += self.advance(settings, now)  # those that wait come first
        giving = self._giving(now)
        taken = self._acquire(request, giving, settings, now) if giving else []
        for tp, _ in taken:
            self._partitions.mark(tp)
        acquired = Acquired(sender, request, taken, request.lock_ms or settings.lock_ms, results)
        self._replies.add(acquired)
        if not taken and not is_changed:
            return effects + self.on_durable(acquired)
        self._recorder.wait(acquired, is_gathered=True)
        effects += self._look_behind(taken, now)
        return effects

    def on_partition_answered(self, tp: TopicPartition) -> None:
        for waiting in self._waiting.values():
            waiting.answered.add(tp)

    def advance(self, settings: ShareSettings, now: int) -> list[LoopEffect]:
        """Acquire records for the waiting requests, and request the log ends that are missing."""
        if not self._is_stirred:
            return []
        self._is_stirred = False
        effects: list[LoopEffect] = []
        effects += self.lookahead.advance()
        giving = self._giving(now) if self._waiting else set()
        for waiting in list(self._waiting.values()):
            taken = self._acquire(waiting.request, giving, settings, now) if giving else []
            if taken:
                del self._waiting[waiting.request.member_id]
                lock_ms = waiting.request.lock_ms or settings.lock_ms
                effects += self._give(Acquired(waiting.sender, waiting.request, taken, lock_ms), now)
                effects += self._look_behind(taken, now)
            else:
                effects += self._wait(waiting, settings, now)
        return effects

    def _give(self, acquired: Acquired, now: int) -> list[LoopEffect]:
        """Answer an acquisition: at once if all its records are delivered for the first time."""
        self._replies.add(acquired)
        if not all(self._is_settled(tp) and self._is_first(tp, span) for tp, span in acquired.taken):
            for tp, _ in acquired.taken:
                self._partitions.mark(tp)
            self._recorder.wait(acquired, is_gathered=True)
            return []
        for tp, _ in acquired.taken:
            self._partitions.mark_delivered(tp, now)
        return self.on_durable(acquired)

    def _is_first(self, tp: TopicPartition, span: Span) -> bool:
        part = self._partitions.get(tp)
        assert part is not None, "records were acquired from it"
        return span.deliveries == 1 and not part.retries.losses.has(span)

    def _look_behind(self, taken: list[tuple[TopicPartition, Span]], now: int) -> list[LoopEffect]:
        """Ask for records behind those that are known, although these wait: a new one may have the next key in turn.

        A look costs about as much as a delivery of a few records, so there is one every LOOK_MS."""
        effects: list[LoopEffect] = []
        for tp in dict.fromkeys(tp for tp, _ in taken):
            part = self._partitions.get(tp)
            if part is None or part.queue is None or part.queue.end < part.tail:
                continue
            if not part.looked_ms <= now < part.looked_ms + LOOK_MS:
                part.looked_ms = now
                effects += self._log_bounds.request_tail(tp, part)
        return effects

    def _giving(self, now: int) -> set[TopicPartition]:
        """Return the partitions that have available records; none while the group is paused."""
        if self._is_paused():
            return set()
        return {tp for tp, part in self._partitions.items() if part.can_give(now)}

    def _acquire(
        self, request: Acquire, giving: set[TopicPartition], settings: ShareSettings, now: int
    ) -> list[tuple[TopicPartition, Span]]:
        """Acquire from the partitions that have available records; those that are found empty are removed from
        `giving`."""
        until = now + (request.lock_ms or settings.lock_ms)
        tps = self._topic_partitions(request)
        self._turn += 1
        taken: list[tuple[TopicPartition, Span]] = []
        room = request.max_records
        for index in range(len(tps)):
            tp = tps[(index + self._turn) % len(tps)]
            part = self._partitions.get(tp)
            if part is None or tp not in giving or room <= 0:
                continue
            for span in self._take(part, request.member_id, room, now, until):
                taken.append((tp, span))
                room -= span.count
            if room > 0:
                giving.discard(tp)
        return taken

    def _take(self, part: SharePartition, member: str, limit: int, now: int, until: int) -> list[Span]:
        if part.queue is None:
            return part.acquire(member, limit, now, until)
        wall_ms = now + self._partitions.wall_offset_ms
        return acquire_chosen(part, member, limit, now, until, wall_ms)

    def _wait(self, waiting: WaitingAcquire, settings: ShareSettings, now: int) -> list[LoopEffect]:
        """Request the missing log ends, or answer that there are no records."""
        effects: list[LoopEffect] = []
        is_unknown = False
        for tp in self._topic_partitions(waiting.request):
            part = self._partitions.get(tp)
            is_answered = tp in waiting.answered
            is_unknown |= self.lookahead.is_behind(tp)
            if (part is not None and not part.wants_tail) or (is_answered and now >= waiting.deadline):
                continue
            requested = self._log_bounds.request(tp, settings.start, waiting.deadline - now)
            effects += requested
            is_unknown |= not is_answered and (bool(requested) or self._log_bounds.is_behind(tp))
        return effects + self._end_if_over(waiting, settings, now, is_unknown)

    def _end_if_over(
        self, waiting: WaitingAcquire, settings: ShareSettings, now: int, is_unknown: bool
    ) -> list[LoopEffect]:
        missing = [topic for topic in waiting.request.topics if self._partitions.topic(topic) is None]
        if self._partitions.topics is None or (missing and now < waiting.topic_deadline):
            return []
        if missing:
            del self._waiting[waiting.request.member_id]
            error = ErrorBody(ErrorCode.UNKNOWN_TOPIC, f"there is no topic {missing[0][:250]!r}")
            return [Reply(waiting.sender, error)]
        if now < waiting.deadline or is_unknown:
            return []
        return self.end(waiting.request.member_id, settings)

    def end(self, member: str, settings: ShareSettings) -> list[LoopEffect]:
        """Answer the member's waiting request, if there is one, with no records."""
        waiting = self._waiting.pop(member, None)
        if waiting is None:
            return []
        body = AcquireReply(lock_ms=waiting.request.lock_ms or settings.lock_ms)
        if _is_inline(waiting.request, waiting.sender):
            body.records = []
        else:
            body.ranges = []
        return [Reply(waiting.sender, body)]

    def next_due(self, now: int) -> int | None:
        """Return the next time at which a request has waited long enough."""
        times = [at for each in self._waiting.values() for at in (each.deadline, each.topic_deadline)]
        return min((at for at in times if at > now), default=None)

    def on_durable(self, acquired: Acquired) -> list[LoopEffect]:
        """Answer an acquisition that is durable, or need not be."""
        if not self._replies.send(acquired):
            return []
        if _is_inline(acquired.request, acquired.sender):
            return self.reading.begin(acquired)
        ranges = [self._range(tp, span) for tp, span in acquired.taken]
        body = AcquireReply(lock_ms=acquired.lock_ms, ranges=ranges, results=acquired.results)
        return [Reply(acquired.sender, body)]

    def _range(self, tp: TopicPartition, span: Span) -> AcquiredRange:
        part = self._partitions.get(tp)
        topic_id = "" if part is None else part.topic_id
        leader_epoch = UNSET if part is None or part.leader_epoch is None else part.leader_epoch
        return AcquiredRange(*tp, span.first, span.end - 1, span.deliveries, topic_id, leader_epoch)

    def cancel(self, is_gone: Callable[[Sender], bool], *, also_sent: bool) -> None:
        """Cancel the requests of senders that are gone; deliveries that were not answered do not count."""
        for member in [member for member, each in self._waiting.items() if is_gone(each.sender)]:
            del self._waiting[member]
        for acquired in self._replies.void(lambda each: is_gone(each.sender), also_sent=also_sent):
            for tp, span in acquired.taken:
                if (part := self._partitions.get(tp)) is not None:
                    part.return_unread(span)
                    self._partitions.mark(tp)
        self.stir()

    def drop_replies(self, member: str) -> None:
        """Do not answer the member any more: it ends."""
        self._replies.void(lambda each: each.request.member_id == member, also_sent=True)

    def close(self) -> list[LoopEffect]:
        """Answer the waiting requests with a retriable error."""
        error = ErrorBody(ErrorCode.SHUTTING_DOWN, "the coordinator is stopping", True)
        waiting, self._waiting = self._waiting, {}
        return [Reply(each.sender, error) for each in waiting.values()]

    def _topic_partitions(self, request: Acquire) -> list[TopicPartition]:
        return [
            TopicPartition(topic, partition)
            for topic in dict.fromkeys(request.topics)
            if (known := self._partitions.topic(topic)) is not None
            for partition in range(known.partitions)
        ]


def _is_inline(request: Acquire, sender: Sender) -> bool:
    return request.format == "records" or (request.format is None and sender.is_json)
