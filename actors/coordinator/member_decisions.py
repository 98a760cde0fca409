"""Decisions about a group's members: who they are, and which partitions each is granted. Pure.

Owns the targets that are due. A refusal is raised as ProtocolError before any change is made. Called by memberships.py.

    join, heartbeat, remove    members and what they hold
    settle                     once for each flush: targets, grants, and one generation for all of them
"""

from msgspec.structs import replace

from ...transport.addresses import TopicPartition
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.groups import GroupHeartbeat
from .assignors import ASSIGNORS, Assignment
from .decided import DecidedGroup
from .members import MAX_MEMBERS, Member, check_identity, checked_topics, flattened, preferred_assignor
from .reconcile import reconcile, released_by
from .records import Change, GroupKey, GroupProgress, MemberKey
from .topic_decisions import TopicDecisions


class MemberDecisions:
    def __init__(self, decided: DecidedGroup, topics: TopicDecisions) -> None:
        self._decided = decided
        self._topics = topics
        self._are_targets_stale = True
        self._are_grants_due = True
        self._joined = 0

    def join(self, request: GroupHeartbeat) -> Member:
        """Add a member; a static one inherits the partitions of its earlier process, and fences it."""
        if request.topics is None:
            raise ProtocolError(ErrorCode.INVALID_REQUEST, "topics: a member names its topics when it joins")
        check_identity(request)
        topics = checked_topics(request.topics)
        before = (
            self._decided.state.instance(request.instance_id) if request.instance_id is not None else None
        )
        if before is None and len(self._decided.state.members) >= MAX_MEMBERS:
            raise ProtocolError(ErrorCode.GROUP_FULL, f"the group has {MAX_MEMBERS} members")
        # Every join is a generation, so that a member not answered yet can be distinguished from all that have been.
        generation = self._next_generation()
        self._decided.record(Change(GroupKey(self._decided.state.group), GroupProgress(generation)))
        member = Member(
            member_id=request.member_id or self._new_member_id(),
            instance_id=request.instance_id,
            client_id=request.client_id,
            topics=topics,
            session_timeout_ms=request.session_timeout_ms,
            assignor=request.assignor,
            generation=generation,
        )
        if before is not None:
            member = self._take_over(before, member)
        self._record_member(member)
        self._are_targets_stale = True
        return member

    def _take_over(self, before: Member, member: Member) -> Member:
        self._forget_member(before.member_id)
        return replace(
            member,
            replaced=before.member_id,
            target=before.target,
            held=dict.fromkeys(before.held, member.generation),
        )

    def heartbeat(self, request: GroupHeartbeat) -> bool:
        """Apply a member's heartbeat; return True if the group changed."""
        assert request.member_id is not None
        before = self._decided.state.members[request.member_id]
        topics = before.topics if request.topics is None else checked_topics(request.topics)
        assignor = before.assignor if request.assignor is None else request.assignor
        held = before.held
        # A report counts only if the member knows its latest assignment: an earlier report may cross a grant in flight.
        if request.owned is not None and request.generation >= before.generation:
            released = released_by(held.keys(), before.target, flattened(request.owned))
            if released:
                held = {item: generation for item, generation in held.items() if item not in released}
                self._are_grants_due = True
        member = replace(before, topics=topics, assignor=assignor, held=held)
        if member == before:
            return False
        if (topics, assignor) != (before.topics, before.assignor):
            self._are_targets_stale = True
        self._record_member(member)
        return True

    def remove(self, member_id: str) -> None:
        """Remove a member that has left or whose session has expired; its partitions become free."""
        self._forget_member(member_id)
        self._are_targets_stale = True

    def retarget(self) -> None:
        """Compute the targets again: the group has been paused or resumed."""
        self._are_targets_stale = True

    def settle(self) -> None:
        """Update the targets and grant the free partitions; all resulting changes share one generation."""
        if not self._is_retargeting_due and not self._are_grants_due:
            return
        self._topics.replace_gone()
        targets: Assignment = {}
        if self._is_retargeting_due:
            targets = self._targets()
            self._are_targets_stale = self._topics.is_retargeting_due = False
        self._are_grants_due = False
        generation = self._next_generation()
        # A member gains only partitions that another has already released, so any order is safe.
        steps = [self._step(member, targets, generation) for member in self._members()]
        changed = [member for member in steps if member != self._decided.state.members[member.member_id]]
        if changed:
            self._decided.record(Change(GroupKey(self._decided.state.group), GroupProgress(generation)))
        for member in changed:
            self._record_member(member)

    @property
    def _is_retargeting_due(self) -> bool:
        is_stale = self._are_targets_stale or self._topics.is_retargeting_due
        return is_stale and self._topics.topics is not None

    def _step(self, member: Member, targets: Assignment, generation: int) -> Member:
        target = targets.get(member.member_id, member.target)
        step = reconcile(member.held.keys(), target, self._decided.state.holders)
        is_same = step.assignment == member.assignment
        return replace(
            member,
            target=target,
            held=member.held | dict.fromkeys(step.add, generation) if step.add else member.held,
            generation=member.generation if is_same else generation,
        )

    def _targets(self) -> Assignment:
        assert self._topics.topics is not None
        members = self._members()
        assign = ASSIGNORS[preferred_assignor(members)]
        subscriptions = {member.member_id: frozenset(member.topics) for member in members}
        for topic in sorted(frozenset[str]().union(*subscriptions.values())):
            self._topics.note(topic)
            self._topics.note_absence(topic)
        if self._decided.state.pause is not None:
            return {member.member_id: frozenset() for member in members}
        partitions = {
            topic: current.partitions
            for topic, current in self._topics.topics.items()
            if not self._topics.is_gone(topic)
        }
        return assign(subscriptions, partitions, self._previous(members))

    def _previous(self, members: list[Member]) -> dict[str, set[TopicPartition]]:
        """Return the previous targets; partitions intended for a departed member stay with their holder if possible."""
        previous = {member.member_id: set(member.target) for member in members}
        meant = set().union(*previous.values()) if previous else set()
        for item, holder in self._decided.state.holders.items():
            if item not in meant:
                previous[holder].add(item)
        return previous

    def _members(self) -> list[Member]:
        return sorted(self._decided.state.members.values(), key=lambda member: member.order)

    def _next_generation(self) -> int:
        """Return a generation above all earlier ones, also after a replay that found only a part of the last one."""
        newest = max((member.generation for member in self._decided.state.members.values()), default=0)
        return max(self._decided.state.generation, newest) + 1

    def _new_member_id(self) -> str:
        """Return a member id unique in the group's life: an epoch belongs to one incarnation."""
        self._joined += 1
        return f"{self._decided.state.group}-{self._decided.state.start.epoch}-{self._joined}"

    def _record_member(self, member: Member) -> None:
        self._decided.record(Change(MemberKey(self._decided.state.group, member.member_id), member))

    def _forget_member(self, member_id: str) -> None:
        self._decided.record(Change(MemberKey(self._decided.state.group, member_id), None))
