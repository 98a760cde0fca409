"""Serving a share group: acquisitions, acknowledgements, dead records. Pure.

Owns the partitions' decided state, the requests that wait for records, and the group's settings. Must never answer with
state that is not durable: a change marks its partition, the machine's next flush records it (`settle`), and the answer
waits for that. Called by the coordinator's machine, which owns the phases and the recorder.

    acquire       takes available records; without any, parked until there are some or `max_wait_ms` are over, and at
                  least until that is known. A member's newer acquire ends the older one
    acknowledge   checked range by range; successful ranges are answered when durable, `renew` and refusals at once
    configure     creates the group, or changes it
    due timer     locks and delays that are over, and requests that have waited long enough

A group never changes its kind: the first request that needs a kind decides, the others are refused INVALID_GROUP.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import UNSET, Struct
from msgspec.structs import replace

from ....transport.addresses import TopicPartition, is_internal
from ....transport.machine import (
    Answered,
    CancelTimer,
    Effect,
    Event,
    Failed,
    Received,
    Reply,
    Sender,
    SetTimer,
)
from ....transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ....transport.protocol.groups import DescribeGroupReply
from ....transport.protocol.message import Request
from ....transport.protocol.operations import RetryReport
from ....transport.protocol.shares import (
    Acknowledge,
    Acknowledgement,
    AcknowledgeReply,
    AcknowledgeResult,
    Acquire,
    AcquiredRange,
    AcquireReply,
    ConfigureShareGroup,
)
from ....transport.protocol.topics import CatalogTopic
from .answers import Answers
from .description import describe, retry_alarms, retry_report
from .letters import Letters
from .news import LogNews
from .partition import SharePartition
from .reading import Acquired, Reading
from .records import ShareProgress, ShareSettings
from .requests import check_topics
from .spans import Span
from .tails import SHARE

REQUESTS: tuple[type[Request], ...] = (Acquire, Acknowledge, ConfigureShareGroup)
MAX_PARKED = 1_000
TOPIC_GRACE_MS = 1_000
"""Time for which a topic may be unknown here after its creation."""
DUE = (SHARE, "due")


class _Parked(Struct):
    sender: Sender
    request: Acquire
    deadline: int
    topic_deadline: int
    heard: set[TopicPartition]
    """Partitions that have answered since the request arrived, with records or without."""


class ShareServing:
    def __init__(
        self,
        group: str,
        settings: ShareSettings | None,
        progress: Mapping[TopicPartition, ShareProgress],
        why_not: Callable[[], str | None],
        is_younger: Callable[[TopicPartition, str], bool],
    ) -> None:
        """`why_not` returns the reason why the group cannot become a share group, if any; `is_younger`: news.py."""
        self._group = group
        self._settings = settings
        self._why_not = why_not
        self._partitions = {tp: SharePartition(each) for tp, each in progress.items()}
        self._news = LogNews(self._partitions, is_younger)
        self._reading = Reading(self._partitions)
        self._answers = Answers()
        self._letters = Letters(group, self._partitions)
        for tp, each in progress.items():
            self._letters.on_durable(tp, each)
        self._topics: Mapping[str, CatalogTopic] | None = None
        self._parked: dict[str, _Parked] = {}
        """Waiting requests by member."""
        self._dirty: dict[TopicPartition, None] = {}
        self._are_settings_dirty = False
        self._turn = 0
        self._due_at: int | None = None
        self._is_stirred = True
        """True if a change may concern a waiting request."""

    @property
    def is_share(self) -> bool:
        return self._settings is not None

    @property
    def is_dirty(self) -> bool:
        return bool(self._dirty) or self._are_settings_dirty

    @property
    def is_quiet(self) -> bool:
        """True if no request waits, no record is locked or delayed, and no dead letter is to be written."""
        return not self._parked and self._due_at is None and not self._letters.has_work and not self.is_dirty

    def take(self, now: int) -> tuple[ShareSettings | None, dict[TopicPartition, ShareProgress | None]]:
        """Return the changes to record now: the settings if they are new, and partitions; None deletes one."""
        settings = self._settings if self._are_settings_dirty else None
        self._are_settings_dirty = False
        changed = {
            tp: self._partitions[tp].progress(now) if tp in self._partitions else None for tp in self._dirty
        }
        self._dirty = {}
        return settings, changed

    # Requests.

    def on_request(self, event: Received, now: int) -> tuple[list[Effect], Any]:
        """Return effects, and the body of an answer that has to wait until the decision is durable."""
        match event.request:
            case Acquire():
                return self._on_acquire(event.sender, event.request, now), None
            case Acknowledge():
                return self._on_acknowledge(event.sender, event.request, now)
            case ConfigureShareGroup():
                return [], self._configure(event.request).reply
        raise AssertionError(f"{event.request!r} is not for a share group")

    def _on_acquire(self, sender: Sender, request: Acquire, now: int) -> list[Effect]:
        check_topics(request, self._settings.dead_letter if self._settings is not None else None)
        self._become_share()
        effects = self._end_parked(request.member_id)
        if len(self._parked) >= MAX_PARKED:
            raise ProtocolError(ErrorCode.OVERLOADED, f"{MAX_PARKED} members wait for records")
        self._parked[request.member_id] = _Parked(
            sender, request, now + request.max_wait_ms, now + TOPIC_GRACE_MS, set()
        )
        self._is_stirred = True
        return effects

    def _on_acknowledge(self, sender: Sender, request: Acknowledge, now: int) -> tuple[list[Effect], Any]:
        if self._settings is None:
            message = f"{self._group!r} is not a share group: it has no records to acknowledge"
            raise ProtocolError(ErrorCode.INVALID_GROUP, message)
        results = [self._acknowledge(request.member_id, said, now) for said in request.acknowledgements]
        self._is_stirred = True
        body = AcknowledgeReply(results=results)
        is_changing = any(
            result.error is None and said.verdict != "renew"
            for said, result in zip(request.acknowledgements, results, strict=True)
        )
        return ([], body) if is_changing else ([Reply(sender, body)], None)

    def _acknowledge(self, member: str, said: Acknowledgement, now: int) -> AcknowledgeResult:
        assert self._settings is not None
        tp = TopicPartition(said.topic, said.partition)
        part = self._partitions.get(tp)
        try:
            if part is None:
                message = f"{member} holds no records of {said.topic}/{said.partition}"
                raise ProtocolError(ErrorCode.NOT_ACQUIRED, message)
            until = now + (said.lock_ms or self._settings.lock_ms)
            part.acknowledge(member, said, now, until, self._settings.max_deliveries)
        except ProtocolError as error:
            return AcknowledgeResult(error.body)
        if said.verdict != "renew":
            self._dirty[tp] = None
        return AcknowledgeResult()

    def _configure(self, request: ConfigureShareGroup) -> ShareSettings:
        if request.dead_letter:
            self._check_dead_letter(request.dead_letter)
        self._become_share()
        assert self._settings is not None
        given = {
            name: value
            for name in ("lock_ms", "max_deliveries", "start")
            if (value := getattr(request, name)) is not None
        }
        if request.dead_letter is not None:
            given["dead_letter"] = request.dead_letter or None
        self._settings = replace(self._settings, **given)
        self._are_settings_dirty = True
        return self._settings

    def _check_dead_letter(self, topic: str) -> None:
        if is_internal(topic):
            raise ProtocolError(ErrorCode.INVALID_TOPIC, f"dead_letter: {topic!r} is the broker's own")
        if any(topic == consumed for consumed, _ in self._partitions):
            message = f"dead_letter: {topic!r} is a topic that the group consumes"
            raise ProtocolError(ErrorCode.INVALID_REQUEST, message)
        if self._topics is None:
            raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, "the group does not know the topics yet")
        if topic not in self._topics:
            raise ProtocolError(ErrorCode.UNKNOWN_TOPIC, f"dead_letter: there is no topic {topic[:250]!r}")

    def _become_share(self) -> None:
        if self._settings is not None:
            return
        reason = self._why_not()
        if reason is not None:
            raise ProtocolError(ErrorCode.INVALID_GROUP, reason)
        self._settings = ShareSettings()
        self._are_settings_dirty = True

    def refuse(self) -> ErrorBody:
        """Return the refusal of a consumer's request to a share group."""
        message = (
            f"{self._group!r} is a share group: its members acquire and acknowledge, and hold no partitions"
        )
        return ErrorBody(ErrorCode.INVALID_GROUP, message)

    def check_unused(self) -> None:
        """Raise ProtocolError while records are held or waited for."""
        members = self._members()
        if members:
            message = f"the group is not empty; members that hold records or wait for some: {len(members)}"
            raise ProtocolError(ErrorCode.GROUP_NOT_EMPTY, message)

    def forget(self) -> None:
        """Drop all state: the group is deleted."""
        self._partitions.clear()
        self._dirty = {}
        self._settings, self._are_settings_dirty = None, False

    def describe(self, wall_offset_ms: int) -> DescribeGroupReply:
        assert self._settings is not None
        return describe(self._group, self._settings, self._members(), self._partitions, wall_offset_ms)

    def retrying(self) -> RetryReport:
        return retry_report(self._partitions)

    def _members(self) -> list[str]:
        holders = set(self._parked).union(*(part.members() for part in self._partitions.values()))
        return sorted(holders)

    def topics_in_use(self) -> frozenset[str]:
        """Return the topics whose records members hold or wait for."""
        held = {tp[0] for tp, part in self._partitions.items() if part.is_held}
        return frozenset(held.union(*(parked.request.topics for parked in self._parked.values())))

    def cancel(self, is_gone: Callable[[Sender], bool], *, also_told: bool) -> None:
        """Cancel the requests of senders that are gone; deliveries that were not answered do not count."""
        for member in [member for member, parked in self._parked.items() if is_gone(parked.sender)]:
            del self._parked[member]
        for acquired in self._answers.void(lambda each: is_gone(each.sender), also_told=also_told):
            for tp, span in acquired.taken:
                if (part := self._partitions.get(tp)) is not None:
                    part.return_unread(span)
                    self._dirty[tp] = None
        self._is_stirred = True

    def leave(self, member: str, now: int, *, is_charged: bool) -> list[Effect]:
        """Release the records of a member that ends. Deliveries count unless the member itself left."""
        effects = self._end_parked(member)
        self._answers.void(lambda each: each.request.member_id == member, also_told=True)
        limit = self._settings.max_deliveries if is_charged and self._settings is not None else None
        for tp, part in self._partitions.items():
            if part.take_back(member, limit, now):
                self._dirty[tp] = None
        self._is_stirred = True
        return effects

    def close(self) -> list[Effect]:
        """Answer the waiting requests with a retriable error."""
        error = ErrorBody(ErrorCode.SHUTTING_DOWN, "the coordinator is stopping", True)
        effects: list[Effect] = [Reply(parked.sender, error) for parked in self._parked.values()]
        self._parked = {}
        return effects

    # Events.

    def set_topics(self, topics: Mapping[str, CatalogTopic]) -> None:
        self._topics = topics
        self._is_stirred = True
        for tp in list(self._partitions):
            entry = topics.get(tp[0])
            if entry is None or entry.topic_id != self._partitions[tp].topic_id:
                del self._partitions[tp]
                self._dirty[tp] = None

    def on_up(self, tp: TopicPartition) -> None:
        self._news.on_up(tp)
        self._is_stirred = True

    def on_durable(self, tp: TopicPartition, progress: ShareProgress | None) -> None:
        self._letters.on_durable(tp, progress)

    def tell(self, acquired: Acquired) -> list[Effect]:
        """Answer an acquisition that has become durable."""
        if not self._answers.tell(acquired):
            return []
        request, sender = acquired.request, acquired.sender
        if request.format == "records" or (request.format is None and sender.is_json):
            return self._reading.begin(acquired)
        ranges = [self._range(tp, span) for tp, span in acquired.taken]
        return [Reply(sender, AcquireReply(lock_ms=acquired.lock_ms, ranges=ranges))]

    def _range(self, tp: TopicPartition, span: Span) -> AcquiredRange:
        part = self._partitions.get(tp)
        topic_id = "" if part is None else part.topic_id
        leader_epoch = UNSET if part is None or part.leader_epoch is None else part.leader_epoch
        return AcquiredRange(*tp, span.first, span.end - 1, span.deliveries, topic_id, leader_epoch)

    def handle(self, event: Event, now: int) -> list[Effect]:
        """Handle timers and answers whose key begins with SHARE."""
        match event.key:
            case (_, "due"):
                self._due_at = None
                self._expire(now)
                return []
            case (_, "again", tp):
                self._news.on_rested(tp)
                self._is_stirred = True
                return []
            case (_, "read", number):
                effects = self._reading.handle(number, event)
                self._note_changes(self._reading.changed)
                return effects
            case (_, "letter_read" | "letter_write" | "letter_again" as kind, tp, offset):
                return self._on_letter(kind, tp, offset, event, now)
            case (_, kind, tp):
                return self._on_tail(kind, tp, event, now)
        raise AssertionError(f"unknown key {event.key!r}")

    def _note_changes(self, changed: set[TopicPartition]) -> None:
        self._dirty.update(dict.fromkeys(changed))
        changed.clear()
        self._is_stirred = True

    def _on_letter(self, kind: str, tp: TopicPartition, offset: int, event: Event, now: int) -> list[Effect]:
        settings = self._settings or ShareSettings()
        effects, is_done = self._letters.handle(kind, tp, offset, event, now, settings, self._entry)
        if is_done:
            self._dirty[tp] = None
        return effects

    def _on_tail(self, kind: str, tp: TopicPartition, event: Answered | Failed, now: int) -> list[Effect]:
        self._is_stirred = True
        is_cut = isinstance(event, Failed) and event.error.code == ErrorCode.LOG_TRUNCATED
        if not is_cut and (kind == "tail" or isinstance(event, Failed)):
            for parked in self._parked.values():
                parked.heard.add(tp)
        effects = self._news.handle(kind, tp, event, self._entry(tp[0]), now)
        self._note_changes(self._news.changed)
        return effects

    def _expire(self, now: int) -> None:
        self._is_stirred = True
        for tp, part in self._partitions.items():
            assert self._settings is not None
            if part.expire(now, self._settings.max_deliveries):
                self._dirty[tp] = None

    # Waiting requests.

    def advance(self, now: int) -> tuple[list[Effect], list[Acquired]]:
        """Serve waiting requests, fetch log ends, write dead letters and set the timer; called after every event.

        Return effects, and the acquisitions, to be answered by `tell` once they are durable.
        """
        if self._settings is None:
            return [], []
        effects: list[Effect] = []
        given: list[Acquired] = []
        if self._is_stirred:
            self._is_stirred = False
            giving = {tp for tp, part in self._partitions.items() if part.can_give(now)}
            for parked in list(self._parked.values()):
                taken = self._acquire(parked.request, giving, now) if giving else []
                if taken:
                    del self._parked[parked.request.member_id]
                    lock_ms = parked.request.lock_ms or self._settings.lock_ms
                    given.append(Acquired(parked.sender, parked.request, taken, lock_ms))
                    self._answers.give(given[-1])
                else:
                    effects += self._wait(parked, now)
        effects += self._letters.advance(self._settings)
        return effects + self._set_timer(now), given

    def alarms(self, now: int) -> tuple[str, ...]:
        if self._settings is None:
            return ()
        return self._letters.alarms(self._settings) + retry_alarms(self._partitions, now)

    def _acquire(
        self, request: Acquire, giving: set[TopicPartition], now: int
    ) -> list[tuple[TopicPartition, Span]]:
        """Acquire from the partitions that have available records; those without any more are removed from `giving`."""
        assert self._settings is not None
        until = now + (request.lock_ms or self._settings.lock_ms)
        tps = self._tps(request)
        self._turn += 1
        taken: list[tuple[TopicPartition, Span]] = []
        left = request.max_records
        for index in range(len(tps)):
            tp = tps[(index + self._turn) % len(tps)]
            part = self._partitions.get(tp)
            if part is None or tp not in giving or left <= 0:
                continue
            for span in part.acquire(request.member_id, left, now, until):
                taken.append((tp, span))
                self._dirty[tp] = None
                left -= span.count
            if left > 0 or not part.can_give(now):
                giving.discard(tp)
        return taken

    def _wait(self, parked: _Parked, now: int) -> list[Effect]:
        """Request the missing log ends, or answer that there are no records."""
        assert self._settings is not None
        effects: list[Effect] = []
        is_unknown = False
        for tp in self._tps(parked.request):
            part = self._partitions.get(tp)
            is_heard = tp in parked.heard
            if (part is not None and not part.wants_tail) or (is_heard and now >= parked.deadline):
                continue
            entry = self._entry(tp[0])
            assert entry is not None
            asked = self._news.ask(tp, entry, self._settings.start, parked.deadline - now)
            effects += asked
            is_unknown |= not is_heard and (bool(asked) or self._news.is_coming(tp))
        return effects + self._end_if_over(parked, now, is_unknown)

    def _end_if_over(self, parked: _Parked, now: int, is_unknown: bool) -> list[Effect]:
        missing = [topic for topic in parked.request.topics if self._entry(topic) is None]
        if self._topics is None or (missing and now < parked.topic_deadline):
            return []
        if missing:
            del self._parked[parked.request.member_id]
            error = ErrorBody(ErrorCode.UNKNOWN_TOPIC, f"there is no topic {missing[0][:250]!r}")
            return [Reply(parked.sender, error)]
        if now < parked.deadline or is_unknown:
            return []
        return self._end_parked(parked.request.member_id)

    def _end_parked(self, member: str) -> list[Effect]:
        parked = self._parked.pop(member, None)
        if parked is None:
            return []
        assert self._settings is not None
        request = parked.request
        is_inline = request.format == "records" or (request.format is None and parked.sender.is_json)
        body = AcquireReply(lock_ms=request.lock_ms or self._settings.lock_ms)
        if is_inline:
            body.records = []
        else:
            body.ranges = []
        return [Reply(parked.sender, body)]

    def _set_timer(self, now: int) -> list[Effect]:
        times = [due for part in self._partitions.values() if (due := part.next_due(now)) is not None]
        for parked in self._parked.values():
            times += [at for at in (parked.deadline, parked.topic_deadline) if at > now]
        due_at = min(times, default=None)
        if due_at == self._due_at:
            return []
        self._due_at = due_at
        return [CancelTimer(DUE)] if due_at is None else [SetTimer(DUE, due_at)]

    def _tps(self, request: Acquire) -> list[TopicPartition]:
        return [
            TopicPartition(topic, partition)
            for topic in dict.fromkeys(request.topics)
            if (entry := self._entry(topic)) is not None
            for partition in range(entry.partitions)
        ]

    def _entry(self, topic: str) -> CatalogTopic | None:
        return self._topics.get(topic) if self._topics is not None else None
