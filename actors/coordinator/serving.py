"""Serving a group: requests in, decisions recorded, answers out once they are durable.

Owns the members' sessions, their parked heartbeats and the durable state, from which every request is answered. Must
never answer from the decided state: an answer has to survive a crash. decisions.py makes the decisions, recorder.py
orders records and answers. Called by machine.py.

    heartbeat, member known      touches the session; with changes: recorded, then as without
                                 without: answered at once if the member's assignment is newer, else parked
    heartbeat, joining           recorded; answered when durable
    heartbeat, member unknown    UNKNOWN_MEMBER; FENCED_MEMBER for the earlier process of a static member
    parked                       answered by a newer assignment, a newer heartbeat, its deadline, or the member's end
    session timer                the member is removed as if it had left; late by LATE_MS: the coordinator itself was
                                 asleep, and members whose sessions expired meanwhile start new ones
    commit, leave, delete        refused at once, or recorded and answered when durable
    reset                        likewise; waits a moment for topics and partitions not known yet (resets.py)
    fetch_offsets                answered once all earlier decisions are durable; UNSTABLE_OFFSETS while a transaction is
                                 about to move the requested offsets
    end_group_transaction        recorded and answered when durable
    describe                     answered at once
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec import Struct

from ...transport.addresses import TopicPartition
from ...transport.machine import CancelTimer, Effect, Received, Reply, Sender, SetTimer
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.groups import (
    CommitOffsets,
    CommitOffsetsReply,
    DeleteGroup,
    DescribeGroup,
    DescribeGroupReply,
    FetchOffsets,
    FetchOffsetsReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    LeaveGroup,
    MemberDescription,
    ResetOffsets,
)
from ...transport.protocol.message import Done, Request
from ...transport.protocol.message import Reply as ReplyBody
from ...transport.protocol.transactions import EndGroupTransaction, TransactionId
from ..journal.recorder import Durable, Recorder, Waiting
from .decisions import Decisions
from .effects import RemoveSnapshot
from .members import Member, by_topic, flattened, preferred_assignor
from .offsets import selected
from .parked import ParkedHeartbeat, ParkedHeartbeats
from .records import Change, MemberKey
from .resets import WaitingReset, WaitingResets
from .share.reading import Acquired
from .state import GroupState

LATE_MS = 500
"""Delay of a session timer from which the coordinator itself must have been stopped."""
DELETED_MS = 5_000
"""Time for which a deleted group refuses to be created again: the time to stop its coordinator."""

REQUESTS: tuple[type[Request], ...] = (
    GroupHeartbeat,
    CommitOffsets,
    FetchOffsets,
    LeaveGroup,
    DescribeGroup,
    ResetOffsets,
    DeleteGroup,
    EndGroupTransaction,
)


Answer: TypeAlias = Waiting | ParkedHeartbeat | Acquired


class _Report(Struct, frozen=True):
    """A member's last report; lost with the coordinator, and then sent again."""

    generation: int
    owned: frozenset[TopicPartition] | None
    """The owned partitions among those granted; other claims are ignored."""


class GroupRequests:
    def __init__(self, durable: GroupState, decisions: Decisions, recorder: Recorder[Change, Answer]) -> None:
        self._durable = durable
        self._decisions = decisions
        self._recorder = recorder
        self._parked = ParkedHeartbeats()
        self._resets = WaitingResets()
        self._sessions: dict[str, int] = {}
        self._latest: dict[str, int] = {}
        """The serial of each member's newest heartbeat."""
        self._reports: dict[str, _Report] = {}
        self._heartbeats = 0
        self._deleted_until = 0
        self._handlers: dict[type[Request], Callable[[Sender, Any, int], list[Effect]]] = {
            GroupHeartbeat: self._on_group_heartbeat,
            CommitOffsets: self._on_commit_offsets,
            FetchOffsets: self._on_fetch_offsets,
            LeaveGroup: self._on_leave_group,
            DescribeGroup: self._on_describe_group,
            ResetOffsets: self._on_reset_offsets,
            DeleteGroup: self._on_delete_group,
            EndGroupTransaction: self._on_end_transaction,
        }

    def start(self, now: int) -> list[Effect]:
        """Start a full session for every member: no heartbeat could arrive before."""
        return [effect for member in self._durable.members.values() for effect in self._touch(member, now)]

    @property
    def has_waiting_resets(self) -> bool:
        """True if requests were read and are not answered yet; falling asleep now would leave them unanswered."""
        return len(self._resets) > 0

    def is_deleted(self, now: int) -> bool:
        return now < self._deleted_until

    def on_request(self, event: Received, now: int) -> list[Effect]:
        try:
            self.check_served(event.request, now)
            return self._handlers[type(event.request)](event.sender, event.request, now)
        except ProtocolError as error:
            return [Reply(event.sender, error.body)]

    def on_session_timer(self, member_id: str, now: int) -> list[Effect]:
        member = self._decisions.state.members.get(member_id)
        if member is None:
            return []
        if now < self._sessions[member_id]:
            return [SetTimer(("session", member_id), self._sessions[member_id])]
        if now - self._sessions[member_id] > LATE_MS:
            return self._touch(member, now)
        self._decisions.remove(member_id)
        return self._forget(member_id)

    def on_parked_timer(self, member_id: str) -> list[Effect]:
        return self._unpark(member_id)

    def on_durable(self, durable: Durable[Change, Answer], now: int) -> list[Effect]:
        """Apply changes that have become durable, then send the answers that waited for them."""
        for change in durable.changes:
            self._durable.apply(change)
        effects: list[Effect] = []
        for answer in durable.waiting:
            if isinstance(answer, Waiting):
                effects.append(Reply(answer.sender, answer.body))
            elif isinstance(answer, ParkedHeartbeat):
                effects += self._park_or_answer(answer, now)
        if any(isinstance(change.key, MemberKey) for change in durable.changes):
            for heartbeat in self._parked.all():
                member = self._durable.members.get(heartbeat.member_id)
                if member is None or heartbeat.generation < member.generation:
                    effects += self._unpark(heartbeat.member_id)
        return effects

    def forget(self, is_gone: Callable[[Sender], bool]) -> list[Effect]:
        """Drop the parked heartbeats of senders that are gone. The members stay until their sessions expire."""
        self._resets.forget(is_gone)
        gone = [heartbeat.member_id for heartbeat in self._parked.all() if is_gone(heartbeat.sender)]
        return [effect for member_id in gone for effect in self._parked.unpark(member_id)]

    def close(self) -> list[Effect]:
        """Refuse parked heartbeats: the next coordinator will answer the retries."""
        error = ErrorBody(ErrorCode.SHUTTING_DOWN, "the coordinator is stopping", True)
        waiting, effects = self._resets.take()
        effects += [Reply(each.sender, error) for each in waiting]
        for heartbeat in self._parked.all():
            effects += [*self._parked.unpark(heartbeat.member_id), Reply(heartbeat.sender, error)]
        return effects

    def check_served(self, request: Any, now: int) -> None:
        """Raise ProtocolError unless the request names this group, and the group is not being deleted."""
        if request.group != self._durable.group:
            message = f"this is the coordinator of {self._durable.group!r}, not of {request.group[:250]!r}"
            raise ProtocolError(ErrorCode.INVALID_GROUP, message)
        if self.is_deleted(now) and not isinstance(request, DeleteGroup):
            raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, "the group has just been deleted")

    def _on_group_heartbeat(self, sender: Sender, request: GroupHeartbeat, now: int) -> list[Effect]:
        effects: list[Effect] = []
        member = self._decided_member(request.member_id)
        if member is None:
            self._check_joins(request)
            self._check_room()
            member = self._decisions.join(request)
            if member.replaced is not None:
                effects += self._forget(member.replaced)
            effects += self._touch(member, now)
            is_changed = True
        else:
            effects += self._touch(member, now)
            try:
                self._check_generation(request.generation)
                self._check_room()
                is_changed = self._decisions.heartbeat(request)
            except ProtocolError as error:
                return [*effects, Reply(sender, error.body)]
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
            self._wait(heartbeat)
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
            owned = flattened(request.owned) & member.held.keys()
        generation = min(max(request.generation, 0), self._durable.generation)
        self._reports[member.member_id] = _Report(generation, owned)
        self._heartbeats += 1
        self._latest[member.member_id] = self._heartbeats

    def _check_joins(self, request: GroupHeartbeat) -> None:
        """Check that an unknown member may join: without a name, or with its own, so that a repeat is recognized."""
        if request.member_id is None:
            return
        is_joining = request.generation == 0 and request.topics is not None and request.member_id != ""
        if not is_joining or self._decisions.state.is_replaced(request.member_id):
            raise self._absent(request.member_id)

    def _park_or_answer(self, heartbeat: ParkedHeartbeat, now: int) -> list[Effect]:
        member = self._durable.members.get(heartbeat.member_id)
        is_superseded = self._latest.get(heartbeat.member_id) != heartbeat.serial
        is_due = heartbeat.deadline <= now
        if member is None or is_superseded or is_due or heartbeat.generation < member.generation:
            return [self._heartbeat_reply(heartbeat)]
        return self._parked.park(heartbeat)

    def _unpark(self, member_id: str) -> list[Effect]:
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

    def _on_commit_offsets(self, sender: Sender, request: CommitOffsets, now: int) -> list[Effect]:
        if request.member_id is not None:
            self._present(request.member_id)
            self._check_generation(request.generation)
        self._check_room()
        self._decisions.commit(request)
        return self._answer_when_durable(sender, CommitOffsetsReply())

    def _on_leave_group(self, sender: Sender, request: LeaveGroup, now: int) -> list[Effect]:
        self._present(request.member_id)
        self._check_room()
        self._decisions.remove(request.member_id)
        return self._forget(request.member_id) + self._answer_when_durable(sender, Done())

    def _on_reset_offsets(self, sender: Sender, request: ResetOffsets, now: int) -> list[Effect]:
        self._check_room()
        if self._decisions.missing(request.offsets) is not None:
            return self._resets.wait(sender, request, now)
        self._decisions.reset(request.offsets)
        return self._answer_when_durable(sender, Done())

    def retry_resets(self, now: int) -> list[Effect]:
        """Check the waiting resets again: topics have changed, or a reset has reached its deadline."""
        waiting, effects = self._resets.take()
        for each in waiting:
            effects += self._retry_reset(each, now)
        return effects

    def _retry_reset(self, waiting: WaitingReset, now: int) -> list[Effect]:
        refusal = self._decisions.missing(waiting.request.offsets)
        if refusal is None:
            try:
                return self._on_reset_offsets(waiting.sender, waiting.request, now)
            except ProtocolError as error:
                refusal = error
        elif now < waiting.deadline:
            return self._resets.put_back(waiting)
        return [Reply(waiting.sender, refusal.body)]

    def _on_delete_group(self, sender: Sender, request: DeleteGroup, now: int) -> list[Effect]:
        self._check_room()
        self._decisions.delete()
        self._deleted_until = now + DELETED_MS
        return [RemoveSnapshot(), *self._answer_when_durable(sender, Done())]

    def _on_fetch_offsets(self, sender: Sender, request: FetchOffsets, now: int) -> list[Effect]:
        # From the decided state, answered once that is durable: a fetch after a commit must not return an earlier
        # offset.
        self._check_room()
        partitions = request.partitions
        tps = None
        if partitions is not None:
            tps = [TopicPartition(topic, n) for topic in partitions for n in partitions[topic]]
        if request.require_stable and self._decisions.state.pending.is_touching(tps):
            message = "an open transaction is about to move these offsets"
            raise ProtocolError(ErrorCode.UNSTABLE_OFFSETS, message)
        self._decisions.note_reading(partitions or ())
        state = self._decisions.state
        body = FetchOffsetsReply(
            offsets=selected(state.offsets, partitions, state.resets.floor),
            reset_epoch=state.resets.floor,
            topic_ids={
                topic: known
                for topic, known in state.topic_ids.items()
                if known and (partitions is None or topic in partitions)
            },
        )
        return self._answer_when_durable(sender, body)

    def _on_end_transaction(self, sender: Sender, request: EndGroupTransaction, now: int) -> list[Effect]:
        key = TransactionId(request.producer_id, request.producer_epoch)
        self._decisions.end_transaction(key, request.committed, now)
        return self._answer_when_durable(sender, Done())

    def _on_describe_group(self, sender: Sender, request: DescribeGroup, now: int) -> list[Effect]:
        members = sorted(self._durable.members.values(), key=lambda member: member.order)
        is_stable = self._durable.is_settled
        body = DescribeGroupReply(
            group=self._durable.group,
            state="empty" if not members else "stable" if is_stable else "rebalancing",
            generation=self._durable.generation,
            assignor=preferred_assignor(members),
            members=[self._description(member) for member in members],
            offsets=selected(self._durable.offsets, None, self._durable.resets.floor),
        )
        return [Reply(sender, body)]

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

    def _answer_when_durable(self, sender: Sender, body: ReplyBody) -> list[Effect]:
        if not self._decisions.gathered and self._recorder.is_idle:
            return [Reply(sender, body)]
        self._wait(Waiting(sender, body))
        return []

    def _wait(self, answer: Answer) -> None:
        self._recorder.wait(answer, is_gathered=bool(self._decisions.gathered))

    def _touch(self, member: Member, now: int) -> list[Effect]:
        self._sessions[member.member_id] = now + member.session_timeout_ms
        return [SetTimer(("session", member.member_id), now + member.session_timeout_ms)]

    def _forget(self, member_id: str) -> list[Effect]:
        """End the session of a member decided to be removed; its parked heartbeat is answered once that is durable."""
        for table in (self._sessions, self._latest, self._reports):
            table.pop(member_id, None)
        return [CancelTimer(("session", member_id))]

    def _decided_member(self, member_id: str | None) -> Member | None:
        return None if member_id is None else self._decisions.state.members.get(member_id)

    def _present(self, member_id: str) -> None:
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

    def _check_generation(self, generation: int) -> None:
        if generation > self._durable.generation:
            message = f"generation {generation} is ahead of the group's {self._durable.generation}"
            raise ProtocolError(ErrorCode.STALE_GENERATION, message)

    def _check_room(self) -> None:
        self._recorder.check_room(len(self._decisions.gathered))
