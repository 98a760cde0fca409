"""A member's side of the group protocol. Pure. Lives on the network thread, so a busy program keeps its session.

A heartbeat is always in flight, parked at the coordinator, so a new assignment arrives at once. The assignment goes to
the program's thread as a Target. The member owns, and reports, the partitions that this thread last confirmed: a
partition counts as revoked only when the program has released it.

    state     meaning                                     left by
    out       no member                                   a poll of a program that has seen every refusal -> joining;
                                                          never, once another process has the place of a static member
    joining   the first heartbeat is in flight            its reply -> member; refusal -> out
    member    heartbeats                                  fenced, unknown -> joining; no poll for too long, left -> out

A member that has not reached its coordinator for a whole session timeout may have lost its partitions, so it stops as
if they had been revoked (a lost Target) and joins again owning nothing.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from ..addresses import TopicPartition, coordinator_address
from ..calls.retry import Jitter, RetryPolicy
from ..machine import Answered, Call, CancelTimer, Effect, Event, Failed, SetTimer, TimerFired
from ..protocol.errors import ErrorBody, ErrorCode
from ..protocol.groups import GroupHeartbeat, GroupHeartbeatReply, LeaveGroup
from ..protocol.message import Done, by_topic
from .options import ConsumerOptions

MAX_PARK_MS = 5_000
"""Heartbeats park for a third of the session timeout, at most this long."""

MIN_INTERVAL_MS = 50
"""Minimum interval of heartbeats to a coordinator that replies at once with nothing new."""

_FENCED = frozenset({ErrorCode.UNKNOWN_MEMBER, ErrorCode.FENCED_MEMBER, ErrorCode.STALE_GENERATION})
_LEASE = "lease"
_BEAT_AGAIN = "beat again"
_LEAVE = "leave"


class Polled(Struct, frozen=True):
    """The program polls. A consumer outside its group joins if the program has seen every refusal."""

    refusals: int = 0
    """Refusals that the program has seen."""


class PollChecked(Struct, frozen=True):
    """The time of the program's last poll."""

    at: int


class Confirmed(Struct, frozen=True):
    """The program's thread now owns exactly these partitions."""

    owned: frozenset[TopicPartition]


class LeaveRequested(Struct, frozen=True):
    """The consumer closes. Unless `is_notified` the group is not notified and keeps its place for the session timeout."""

    is_notified: bool = True


class Target(Struct, frozen=True):
    """The partitions that the member should own. `is_lost`: it owns none any more, revoked properly or not."""

    tps: frozenset[TopicPartition]
    is_lost: bool = False


class MemberLeft(Struct, frozen=True):
    """The member has left: the group was notified, could not be reached, or must not be notified."""


class GroupTrouble(Struct, frozen=True):
    """The group refuses this consumer. The next poll tries to join again."""

    error: ErrorBody


class MemberIdentity(NamedTuple):
    """The identity under which the member sends, distinct for each join. The program's side commits under it."""

    member_id: str | None = None
    """None while it is out of its group."""
    generation: int = 0
    losses: int = 0
    """Number of times it lost everything it owned. Positions are committed only if this has not changed
    since they were reached."""


class Membership:
    """Joins a group, sends heartbeats, leaves."""

    def __init__(
        self,
        group: str,
        topics: Sequence[str],
        options: ConsumerOptions,
        *,
        name: str,
        jitter: Jitter,
    ) -> None:
        """Take `name`, unique to this member: the member id of each join is made from it.

        So a join whose reply is lost is recognised on the next attempt, and a member that ends before the
        reply can still leave.
        """
        self.state: Literal["out", "joining", "member"] = "out"
        self.identity = MemberIdentity()
        assert topics, "a member of a group has topics"
        self._group = group
        self._address = coordinator_address(group)
        self._name = name
        self._joins = 0
        self._topics = list(topics)
        self._options = options
        self._session_timeout_ms = options.session_timeout_ms
        self._retry = RetryPolicy()
        self._jitter = jitter
        self._owned: frozenset[TopicPartition] = frozenset()
        self._target: frozenset[TopicPartition] = frozenset()
        self._beat = 0
        self._sent_at = 0
        self._failures = 0
        self._refusals = 0
        self._is_replaced = False
        """True if another process has this member's place: joining again would take it back."""

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Polled(refusals=refusals):
                is_joining = self.state == "out" and refusals == self._refusals and not self._is_replaced
                return self._join(now) if is_joining else []
            case PollChecked(at=at):
                return self._on_poll_checked(at, now)
            case Confirmed(owned=owned):
                return self._on_confirmed(owned, now)
            case LeaveRequested(is_notified=is_notified):
                return self._leave(MemberLeft(), is_notified=is_notified)
            case Answered(key=("beat", number), reply=GroupHeartbeatReply() as reply):
                return self._on_reply(reply, now) if number == self._beat and self.state != "out" else []
            case Failed(key=("beat", number), error=error):
                return self._on_refusal(error, now) if number == self._beat and self.state != "out" else []
            case Answered(key=key) | Failed(key=key) if key == _LEAVE:
                return [MemberLeft()]
            case TimerFired(key=key) if key == _BEAT_AGAIN:
                return self._send(now) if self.state != "out" else []
            case TimerFired(key=key) if key == _LEASE:
                return self._on_lease_over(now)
        raise AssertionError(f"no such event: {event!r}")

    def _join(self, now: int) -> list[Effect]:
        self._take_name()
        return self._send(now)

    def _take_name(self) -> None:
        self.state = "joining"
        self._joins += 1
        self._become(f"{self._name}-{self._joins}")

    def _become(self, member_id: str | None, generation: int = 0) -> None:
        self.identity = MemberIdentity(member_id, generation, self.identity.losses)

    def _send(self, now: int) -> list[Effect]:
        member_id, generation, _ = self.identity
        # After a failure keeping the session comes before fast updates: a peer that dies often never
        # answers parked requests.
        is_urgent = self.state == "joining" or self._failures > 0
        wait_ms = 0 if is_urgent else min(MAX_PARK_MS, self._session_timeout_ms // 3)
        self._beat += 1
        self._sent_at = now
        request = GroupHeartbeat(
            group=self._group,
            member_id=member_id,
            instance_id=self._options.instance_id,
            generation=generation,
            topics=self._topics,
            owned=by_topic(self._owned),
            session_timeout_ms=self._session_timeout_ms,
            assignor=self._options.assignor,
            max_wait_ms=wait_ms,
            client_id=self._options.client_id,
        )
        timeout_ms = wait_ms + max(1_000, self._session_timeout_ms // 3)
        return [
            Call(
                ("beat", self._beat),
                self._address,
                request,
                GroupHeartbeatReply,
                timeout_ms=timeout_ms,
                is_retried=False,
            )
        ]

    def _on_reply(self, reply: GroupHeartbeatReply, now: int) -> list[Effect]:
        generation = self.identity.generation
        self._failures = 0
        self.state = "member"
        self._become(reply.member_id, reply.generation)
        effects: list[Effect] = [SetTimer(_LEASE, self._sent_at + self._session_timeout_ms)]
        target = frozenset(
            TopicPartition(topic, partition)
            for topic, partitions in reply.assignment.items()
            for partition in partitions
        )
        is_news = target != self._target or reply.generation != generation
        if target != self._target:
            effects.append(Target(target))
        self._target = target
        if is_news or now - self._sent_at >= MIN_INTERVAL_MS:
            return effects + self._send(now)
        return [*effects, SetTimer(_BEAT_AGAIN, now + MIN_INTERVAL_MS)]

    def _on_confirmed(self, owned: frozenset[TopicPartition], now: int) -> list[Effect]:
        if self.state != "member" or owned == self._owned or not owned <= self._owned | self._target:
            return []
        self._owned = owned
        return self._send(now)

    def _on_refusal(self, error: ErrorBody, now: int) -> list[Effect]:
        if error.retriable:
            self._failures += 1
            return [SetTimer(_BEAT_AGAIN, now + self._retry.delay_ms(self._failures, self._jitter))]
        self._is_replaced = error.code == ErrorCode.FENCED_MEMBER and self._options.instance_id is not None
        if error.code in _FENCED and not self._is_replaced:
            if self.state == "member":
                return [*self._lose(), *self._join(now)]
            self._take_name()
            self._failures += 1
            return [SetTimer(_BEAT_AGAIN, now + self._retry.delay_ms(self._failures, self._jitter))]
        self._refusals += 1
        effects = [*self._lose(), GroupTrouble(error)]
        self.state = "out"
        self._become(None)
        return effects

    def _on_lease_over(self, now: int) -> list[Effect]:
        if self.state != "member":
            return []
        self._become(self.identity.member_id)
        return [*self._lose(), *self._send(now)]

    def _on_poll_checked(self, at: int, now: int) -> list[Effect]:
        if self.state == "out" or now - at <= self._options.max_poll_interval_ms:
            return []
        return [*self._lose(), *self._leave(None)]

    def _lose(self) -> list[Effect]:
        """Lose everything that was owned."""
        had = self._owned | self._target
        self._owned = self._target = frozenset()
        if not had:
            return [CancelTimer(_LEASE)]
        self.identity = self.identity._replace(losses=self.identity.losses + 1)
        return [CancelTimer(_LEASE), Target(frozenset(), is_lost=True)]

    def _leave(self, otherwise: Effect | None, *, is_notified: bool = True) -> list[Effect]:
        member_id = self.identity.member_id
        self.state = "out"
        self._become(None)
        self._beat += 1
        self._owned = self._target = frozenset()
        effects: list[Effect] = [CancelTimer(_LEASE), CancelTimer(_BEAT_AGAIN)]
        if member_id is None or not is_notified:
            return [*effects, *([otherwise] if otherwise is not None else [])]
        request = LeaveGroup(group=self._group, member_id=member_id)
        timeout_ms = min(2_000, self._session_timeout_ms)
        return [*effects, Call(_LEAVE, self._address, request, Done, timeout_ms=timeout_ms, is_retried=False)]
