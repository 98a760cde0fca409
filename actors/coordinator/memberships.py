"""The members of a consumer group: heartbeats, sessions, and the answers that wait for a new assignment. Pure.

Owns the members' sessions, their last reports and their parked heartbeats. Must never answer from the decided state: an
answer has to survive a crash. decisions.py makes the decisions, the recorder orders records and answers. Called by
consumer_group.py.

    heartbeat, member known      touches the session; with changes: recorded, then as without
                                 without: answered at once if the member's assignment is newer, else parked
    heartbeat, joining           recorded; answered when durable
    heartbeat, member unknown    UNKNOWN_MEMBER; FENCED_MEMBER for the earlier process of a static member
    parked                       answered by a newer assignment, a newer heartbeat, its deadline, or the member's end
    session timer                the member is removed as if it had left; late by LATE_MS: the coordinator itself was
                                 asleep, and members whose sessions expired meanwhile start new ones
    connection lost              the session ends early, unless a heartbeat comes before (early_leaving.py)
    leave                        recorded, and answered when durable
"""

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from ...transport.addresses import TopicPartition
from ...transport.machine import CancelTimer, LoopEffect, Received, Reply, Sender, SetTimer
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.groups import (
    DescribeGroupReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    LeaveGroup,
    MemberDescription,
)
from ...transport.protocol.message import Done, by_topic
from ..journal.recorder import Durable, Recorder
from .decisions import Decisions
from .early_leaving import EarlyLeaving
from .members import Member, flattened, preferred_assignor
from .offsets import selected
from .parked import ParkedHeartbeat, ParkedHeartbeats
from .records import Change, MemberKey
from .state import GroupState

SHUTTING_DOWN = ErrorBody(ErrorCode.SHUTTING_DOWN, "the coordinator is stopping", True)
LATE_MS = 500
"""Delay of a session timer from which the coordinator itself must have been stopped."""


class SessionTimer(Struct, frozen=True):
    """The end of a member's session."""

    member_id: str


class MemberReport(Struct, frozen=True):
    """A member's last report; lost with the coordinator, and then sent again."""

    generation: int
    owned: frozenset[TopicPartition] | None
    """The owned partitions among those granted; other claims are ignored."""


class Memberships:
    def __init__(
        self,
        durable: GroupState,
        decisions: Decisions,
        recorder: Recorder[Change, Any],
        disconnect_grace_ms: int,
    ) -> None:
        self._durable = durable
        self._decisions = decisions
        self._recorder = recorder
        self.early = EarlyLeaving(disconnect_grace_ms)
        self._parked = ParkedHeartbeats()
        self._sessions: dict[str, int] = {}
        """The end of each member's session."""
        self._latest: dict[str, int] = {}
        """The serial of each member's newest heartbeat."""
        self._reports: dict[str, MemberReport] = {}
        self._heartbeats = 0

    def start(self, now: int) -> list[LoopEffect]:
        """Start a full session for every member: no heartbeat could arrive before."""
        return [effect for member in self._durable.members.values() for effect in self._touch(member, now)]

    def on_session_timer(self, member_id: str, now: int) -> list[LoopEffect]:
        member = self._decisions.state.members.get(member_id)
        if member is None:
            return []
        if now < self._sessions[member_id]:
            return [SetTimer(SessionTimer(member_id), self._sessions[member_id])]
        if now - self._sessions[member_id] > LATE_MS:
            return self._touch(member, now)
        self.early.on_expired(member_id, now)
        self._decisions.members.remove(member_id)
        return self._forget(member_id)

    def on_connections_lost(self, member_ids: Iterable[str], now: int) -> list[LoopEffect]:
        """End the sessions of these members early, unless they come back."""
        effects: list[LoopEffect] = []
        for member_id in member_ids:
            member = self._decisions.state.members.get(member_id)
            if member is None:
                continue
            count = len(self._decisions.state.members)
            ends_at = self.early.begin(member, self._sessions[member_id], count, now)
            if ends_at is not None:
                self._sessions[member_id] = ends_at
                effects.append(SetTimer(SessionTimer(member_id), ends_at))
        return effects

    def on_parked_timer(self, member_id: str) -> list[LoopEffect]:
        return self._unpark(member_id)

    def on_durable(self, durable: Durable[Change, Any], now: int) -> list[LoopEffect]:
        """Answer the heartbeats that waited for these changes, which have been applied to the durable state."""
        effects: list[LoopEffect] = []
        for answer in durable.answers:
            if isinstance(answer, ParkedHeartbeat):
                effects += self._park_or_answer(answer, now)
        for change in durable.changes:
            if isinstance(change.key, MemberKey):
                return effects + self._answer_outdated()
        return effects

    def _answer_outdated(self) -> list[LoopEffect]:
        """Answer the parked heartbeats of members whose durable state is newer."""
        effects: list[LoopEffect] = []
        for heartbeat in self._parked.all():
            member = self._durable.members.get(heartbeat.member_id)
            if member is None or heartbeat.generation < member.generation:
                effects += self._unpark(heartbeat.member_id)
        return effects

    def forget_senders(self, is_gone: Callable[[Sender], bool]) -> list[LoopEffect]:
        """Drop the parked heartbeats of senders that are gone. The members stay until their sessions expire."""
        gone = [heartbeat.member_id for heartbeat in self._parked.all() if is_gone(heartbeat.sender)]
        return [effect for member_id in gone for effect in self._parked.unpark(member_id)]

    def close(self) -> list[LoopEffect]:
        """Refuse parked heartbeats: the next coordinator will answer the retries."""
        effects: list[LoopEffect] = []
        for heartbeat in self._parked.all():
            refusal = Reply(heartbeat.sender, SHUTTING_DOWN)
            effects += [*self._parked.unpark(heartbeat.member_id), refusal]
        return effects

    def on_heartbeat(self, event: Received, request: GroupHeartbeat, now: int) -> list[LoopEffect]:
        effects: list[LoopEffect] = []
        sender = event.sender
        member = self._decided_member(request.member_id)
        if member is None:
            self._check_joins(request)
            self._recorder.check_room(sender, len(self._decisions.gathered))
            member = self._decisions.members.join(request)
            if member.replaced is not None:
                effects += self._forget(member.replaced)
            effects += self._touch(member, now)
            is_changed = True
        else:
            effects += self._touch(member, now)
            try:
                self.check_generation(request.generation)
                self._recorder.check_room(sender, len(self._decisions.gathered))
                is_changed = self._decisions.members.heartbeat(request)
            except ProtocolError as error:
                return [*effects, Reply(sender, error.body)]
        self.early.connections.note(member.member_id, event)
        self._note(member, request)
        effects += self._unpark(member.member_id)
        heartbeat = ParkedHeartbeat(
            sender=sender,
            member_id=member.member_id,
            generation=request.generation,
            deadline=now + min(request.max_wait_ms, member.heartbeat_interval_ms),
            serial=self._latest[member.member_id],
        )
        if is_changed or self._is_outdated(member):
            self._recorder.wait(heartbeat, is_gathered=bool(self._decisions.gathered))
            return effects
        return effects + self._park_or_answer(heartbeat, now)

    def _is_outdated(self, decided: Member) -> bool:
        """Return True if the durable state would grant partitions already decided to be free: the member has rejoined."""
        durable = self._durable.members.get(decided.member_id)
        return durable is None or not durable.assignment <= decided.held.keys()

    def _note(self, member: Member, request: GroupHeartbeat) -> None:
        before = self._reports.get(member.member_id)
        owned = before.owned if before is not None else None
        if request.owned is not None:
            owned = flattened(request.owned).intersection(member.held)
        generation = min(max(request.generation, 0), self._durable.generation)
        self._reports[member.member_id] = MemberReport(generation, owned)
        self._heartbeats += 1
        self._latest[member.member_id] = self._heartbeats

    def _check_joins(self, request: GroupHeartbeat) -> None:
        """Check that an unknown member may join: without a name, or with its own, so that a repeat is recognized."""
        if request.member_id is None:
            return
        is_joining = request.generation == 0 and request.topics is not None and request.member_id != ""
        if not is_joining or self._decisions.state.is_replaced(request.member_id):
            raise self._absent(request.member_id)

    def _park_or_answer(self, heartbeat: ParkedHeartbeat, now: int) -> list[LoopEffect]:
        member = self._durable.members.get(heartbeat.member_id)
        is_superseded = self._latest.get(heartbeat.member_id) != heartbeat.serial
        is_due = heartbeat.deadline <= now
        if member is None or is_superseded or is_due or heartbeat.generation < member.generation:
            return [self._heartbeat_reply(heartbeat)]
        return self._parked.park(heartbeat)

    def _unpark(self, member_id: str) -> list[LoopEffect]:
        heartbeat = self._parked.get(member_id)
        if heartbeat is None:
            return []
        return [*self._parked.unpark(member_id), self._heartbeat_reply(heartbeat)]

    def _heartbeat_reply(self, heartbeat: ParkedHeartbeat) -> Reply:
        member = self._durable.members.get(heartbeat.member_id)
        if member is None:
            return Reply(heartbeat.sender, self._absent(heartbeat.member_id).body)
        # A heartbeat that waited for the disk may be answered after its partitions have been decided to be free.
        decided = self._decisions.state.members.get(heartbeat.member_id)
        still_held = decided.held.keys() if decided is not None else frozenset[TopicPartition]()
        body = GroupHeartbeatReply(
            member_id=member.member_id,
            generation=self._durable.generation,
            assignment=by_topic(member.assignment & still_held),
            heartbeat_interval_ms=member.heartbeat_interval_ms,
        )
        return Reply(heartbeat.sender, body)

    def on_leave(self, sender: Sender, request: LeaveGroup, now: int) -> list[LoopEffect]:
        self.check_present(request.member_id)
        self._recorder.check_room(sender, len(self._decisions.gathered))
        self._decisions.members.remove(request.member_id)
        is_gathered = bool(self._decisions.gathered)
        return self._forget(request.member_id) + self._recorder.reply(sender, Done(), is_gathered=is_gathered)

    def describe(self) -> DescribeGroupReply:
        """Describe the group from its durable state."""
        members = sorted(self._durable.members.values(), key=lambda member: member.order)
        is_stable = self._durable.is_settled
        return DescribeGroupReply(
            group=self._durable.group,
            state="empty" if not members else "stable" if is_stable else "rebalancing",
            generation=self._durable.generation,
            assignor=preferred_assignor(members),
            members=[self._description(member) for member in members],
            offsets=selected(self._durable.offsets, None, self._durable.resets.floor),
        )

    def _description(self, member: Member) -> MemberDescription:
        report = self._reports.get(member.member_id)
        owned = report.owned if report is not None and report.owned is not None else member.held.keys()
        return MemberDescription(
            member_id=member.member_id,
            instance_id=member.instance_id,
            client_id=member.client_id,
            topics=list(member.topics),
            generation=report.generation if report is not None else member.generation,
            assignment=by_topic(member.assignment),
            owned=by_topic(owned),
        )

    def _touch(self, member: Member, now: int) -> list[LoopEffect]:
        self.early.on_alive(member.member_id)
        self._sessions[member.member_id] = now + member.session_timeout_ms
        return [SetTimer(SessionTimer(member.member_id), now + member.session_timeout_ms)]

    def _forget(self, member_id: str) -> list[LoopEffect]:
        """End the session of a member decided to be removed; its parked heartbeat is answered once that is durable."""
        for table in (self._sessions, self._latest, self._reports):
            table.pop(member_id, None)
        self.early.forget(member_id)
        return [CancelTimer(SessionTimer(member_id))]

    def _decided_member(self, member_id: str | None) -> Member | None:
        return None if member_id is None else self._decisions.state.members.get(member_id)

    def check_present(self, member_id: str) -> None:
        if member_id not in self._decisions.state.members:
            raise self._absent(member_id)

    def _absent(self, member_id: str) -> ProtocolError:
        if self._decisions.state.is_replaced(member_id):
            return ProtocolError(
                ErrorCode.FENCED_MEMBER, f"{member_id[:250]} was replaced by a newer process of its instance"
            )
        return ProtocolError(
            ErrorCode.UNKNOWN_MEMBER, f"{member_id[:250]} is not a member; it has to join again"
        )

    def check_generation(self, generation: int) -> None:
        if generation > self._durable.generation:
            message = f"generation {generation} is ahead of the group's {self._durable.generation}"
            raise ProtocolError(ErrorCode.STALE_GENERATION, message)
