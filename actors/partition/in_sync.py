"""The in-sync set of a partition, as its leader keeps it, and the high watermark that follows from it. Pure.

Owns, for one leader epoch: how far each replica is durable, which of them are in sync, the one proposal to change that
which may be open, and the high watermark. The set itself lives in the metadata store: the leader proposes a change
by a guarded write, and it is made once the store has applied it. Called by `leader.py` with events; returns proposals.

    state of a replica   counts for the high watermark   left by
    in sync              yes                             behind for `lag_max_ms`; down for DOWN_GRACE_MS, or at once with
                                                         its node; its node has another disk, or stops -> leaving
    leaving              yes: the larger set counts      applied -> out; rejected -> as the store says
    out                  no                              durable at the high watermark and at the start of this epoch,
                                                         up, with the data directory its node has -> joining
    joining              yes: the larger set counts      applied -> in sync; rejected -> as the store says

    proposal   none -> open (at most one)   open --unknown--> sent again, with the same guard

The high watermark is the minimum of the durable offsets of the counting replicas, the leader among them. It never goes
back, and stands still while fewer than `min_in_sync_replicas` are in sync, or a replica is eligible. So a record below it
is on that many disks, and replicas that leave while the set falls below the minimum hold every committed record: they
stay *eligible* to lead (KIP-966), until the leader has given them up because the set has reached the minimum again.
"""

from collections.abc import Iterable
from typing import TypeAlias

from msgspec import Struct

from ...transport.protocol.replication import Lead, Member

REPLICA_LAG_MAX_MS = 10_000
BEHIND_MS = 500
"""Time for which a replica may be behind before it is expected to have news."""
DOWN_GRACE_MS = 200
"""A replica that is back after less time stays in the set."""
TICK_MS = 1_000
SHORT_TICK_MS = 50
"""Interval of the checks while a replica is down or the outcome of a proposal unknown."""
UNKNOWN = -1
"""The durable offset of a replica that has not fetched in this epoch."""


class ReplicaFetched(Struct, frozen=True):
    """A replica has fetched, and its log does not differ from the leader's."""

    member: Member
    durable_offset: int


class DurableReported(Struct, frozen=True):
    member: Member
    durable_offset: int


class LeaderWrote(Struct, frozen=True):
    """The leader's log has a new end, which is not durable yet."""

    log_end_offset: int


class LeaderDurable(Struct, frozen=True):
    durable_offset: int


class LivenessReported(Struct, frozen=True):
    node: str
    is_up: bool
    is_node: bool = False
    """True if the whole node is reported: there is no grace."""


class Tick(Struct, frozen=True):
    pass


class ProposalApplied(Struct, frozen=True):
    revision: int


class ProposalRejected(Struct, frozen=True):
    """The store has another state, which is this one."""

    leader_epoch: int
    in_sync: tuple[Member, ...]
    eligible: tuple[Member, ...]
    revision: int


class ProposalUnknown(Struct, frozen=True):
    """No answer: the store may or may not have applied the proposal."""


class Reassigned(Struct, frozen=True):
    """The controller describes the state again, in the same leader epoch."""

    lead: Lead


OffsetEvent: TypeAlias = ReplicaFetched | DurableReported | LeaderWrote | LeaderDurable
InSyncEvent: TypeAlias = (
    OffsetEvent | LivenessReported | Tick | ProposalApplied | ProposalRejected | ProposalUnknown | Reassigned
)


class Proposal(Struct, frozen=True):
    """A change of the set, to be written if the partition's state still has the revision `guard`."""

    in_sync: tuple[Member, ...]
    eligible: tuple[Member, ...]
    guard: int


class _Replica(Struct):
    caught_up_ms: int
    """The last time at which it was known to hold everything."""
    durable_offset: int = UNKNOWN
    fetched_ms: int = 0
    end_at_fetch: int = 0
    leaves_at_ms: int | None = None
    """The time from which it is out of the set, if it is down and not back until then."""


class InSync:
    def __init__(self, me: Member, lead: Lead, log_end_offset: int, high_watermark: int, now: int) -> None:
        """Begin an epoch with a log that is durable up to its end. `high_watermark` is known to be committed."""
        self._me = me
        self._leader_epoch = lead.leader_epoch
        self.lag_max_ms = REPLICA_LAG_MAX_MS
        self.epoch_start_offset = self._log_end_offset = self._durable_offset = log_end_offset
        self.high_watermark = high_watermark
        self.is_fenced = False
        """True once the store has a later leader epoch."""
        self.revision = lead.revision
        self.in_sync = frozenset(lead.in_sync)
        self.eligible = frozenset(lead.eligible)
        self._proposal: Proposal | None = None
        self._is_unanswered = False
        self._minimum = lead.min_in_sync_replicas
        self._stopping: frozenset[str] = frozenset()
        """Nodes that are about to stop."""
        self._down: frozenset[str] = frozenset()
        """Nodes that the controller takes for dead. A replica there that fetches is up all the same."""
        self._live: dict[str, str] = {}
        """The data directory that each replica's node has now, where it is known."""
        self._others: dict[Member, _Replica] = {}
        self.has_others = False
        """True if there is another replica, or was one in the set."""
        self.is_below_minimum = False
        """True if a record may not reach as many disks as the topic requires, now or after the proposal."""
        self._stands_still = True
        """True while nothing may be committed."""
        self._is_whole = False
        """True while all replicas count and none is down: offsets move the high watermark then, and nothing else."""
        self._assign(lead, now)
        self._settle()

    # -- queries

    @property
    def is_confirmed(self) -> bool:
        """Return True once everything from before this epoch is known to be committed, so that no offset goes back."""
        return self.high_watermark >= self.epoch_start_offset

    @property
    def next_tick_ms(self) -> int:
        is_short = self._is_unanswered or any(each.leaves_at_ms is not None for each in self._others.values())
        return SHORT_TICK_MS if is_short else TICK_MS

    @property
    def lags(self) -> dict[str, int]:
        """Return, by node, the number of records that the other replicas do not hold durably."""
        return {
            member.node: self._log_end_offset - max(0, replica.durable_offset)
            for member, replica in self._others.items()
        }

    def behind(self, now: int) -> frozenset[str]:
        """Return the nodes whose replicas, as far as is known, have lacked something for BEHIND_MS."""
        return frozenset(
            member.node
            for member, known in self._others.items()
            if known.durable_offset < self._log_end_offset and now - known.caught_up_ms >= BEHIND_MS
        )

    def is_held_by_all(self, offset: int) -> bool:
        """Return True if every member of the set has reported, in this epoch, that it holds the log up to here."""
        others = [self._others.get(member) for member in self._counting() - {self._me}]
        is_held = all(each is not None and each.durable_offset >= offset for each in others)
        return is_held and self._durable_offset >= offset

    def is_replica(self, member: Member) -> bool:
        """Return True if this node has a replica, on this disk."""
        return member in self._others

    # -- events

    def handle(self, event: InSyncEvent, now: int) -> list[Proposal]:
        if self._on_offset(event, now) and self._is_whole:
            # The usual case, four times for each record. A tick notices a lag.
            self._advance()
            return []
        match event:
            case LivenessReported():
                self._on_liveness(event, now)
            case Tick():
                if self._proposal is not None and self._is_unanswered:
                    self._is_unanswered = False
                    return [self._proposal]
            case ProposalApplied(revision=revision):
                if self._proposal is not None and revision > self.revision:
                    self._adopt(self._proposal.in_sync, self._proposal.eligible, revision, now)
            case ProposalRejected():
                self._on_rejected(event, now)
            case ProposalUnknown():
                self._is_unanswered = self._proposal is not None
            case Reassigned(lead=lead):
                self._on_reassigned(lead, now)
        self._settle()
        proposals = self._propose(now)
        if proposals:
            self._settle()
        return proposals

    def _on_offset(self, event: InSyncEvent, now: int) -> bool:
        """Take an event about an offset. Return False for any other."""
        match event:
            case ReplicaFetched():
                self._on_fetched(event, now)
            case LeaderWrote():
                self._on_written(event.log_end_offset, now)
            case LeaderDurable():
                self._durable_offset = event.durable_offset
                self._log_end_offset = max(self._log_end_offset, event.durable_offset)
            case DurableReported():
                known = self._others.get(event.member)
                if known is not None:
                    known.durable_offset = max(known.durable_offset, event.durable_offset)
            case _:
                return False
        return True

    def _settle(self) -> None:
        """Derive the high watermark and the rest from the state."""
        # An eligible replica must miss nothing, also after the minimum was lowered.
        is_too_small = len(self.in_sync) < self._minimum or bool(self.eligible)
        self._stands_still = is_too_small or self.is_fenced
        is_each_up = all(known.leaves_at_ms is None for known in self._others.values())
        self._is_whole = is_each_up and self._others.keys() <= self.in_sync
        self._advance()
        after = self.in_sync if self._proposal is None else self._proposal.in_sync
        self.is_below_minimum = min(len(self.in_sync), len(after)) < self._minimum
        self.has_others = bool(self._others or self.eligible)

    def advance_alone(self, durable_offset: int) -> int:
        """Note the durable end of a leader without other replicas; return the high watermark."""
        self._durable_offset = self._log_end_offset = durable_offset
        if not self.is_below_minimum:
            self.high_watermark = durable_offset
        return self.high_watermark

    def _on_fetched(self, event: ReplicaFetched, now: int) -> None:
        known = self._others.get(event.member)
        if known is None:
            return
        known.durable_offset = event.durable_offset
        known.leaves_at_ms = None
        if event.durable_offset >= self._log_end_offset:
            known.caught_up_ms = now
        elif event.durable_offset >= known.end_at_fetch:
            known.caught_up_ms = max(known.caught_up_ms, known.fetched_ms)
        known.fetched_ms, known.end_at_fetch = now, self._log_end_offset

    def _on_written(self, log_end_offset: int, now: int) -> None:
        for known in self._others.values():
            if known.durable_offset >= self._log_end_offset:
                known.caught_up_ms = now
        self._log_end_offset = log_end_offset

    def _on_liveness(self, event: LivenessReported, now: int) -> None:
        for member, known in self._others.items():
            if member.node != event.node:
                continue
            if event.is_up:
                known.leaves_at_ms = None
                continue
            leaves_at_ms = now if event.is_node else now + DOWN_GRACE_MS
            if known.leaves_at_ms is None or leaves_at_ms < known.leaves_at_ms:
                known.leaves_at_ms = leaves_at_ms
            known.durable_offset = UNKNOWN  # its next process reports again

    # -- the set

    def _assign(self, lead: Lead, now: int) -> None:
        self._minimum = lead.min_in_sync_replicas
        self._live = {node: data_id for node, data_id in lead.replicas.items() if data_id}
        self._assigned = frozenset(lead.replicas)
        self._stopping = frozenset(lead.stopping)
        self._track(now)
        before, self._down = self._down, frozenset(lead.down)
        for node in sorted(self._down ^ before):
            self._on_liveness(LivenessReported(node, is_up=node in before, is_node=True), now)

    def _track(self, now: int) -> None:
        """Keep the state of the members of the set, and of the replicas on the disks that their nodes have now."""
        named = self.in_sync | {Member(node, data_id) for node, data_id in self._live.items()}
        others = sorted(named - {self._me})
        self._others = {member: self._others.get(member) or _Replica(now) for member in others}

    def _on_reassigned(self, lead: Lead, now: int) -> None:
        if lead.revision > self.revision:
            # The guard of an open proposal has moved: it was applied, and this is its result, or never will be.
            self._adopt(lead.in_sync, lead.eligible, lead.revision, now)
        if lead.revision >= self.revision:
            self._assign(lead, now)

    def _adopt(self, in_sync: Iterable[Member], eligible: Iterable[Member], revision: int, now: int) -> None:
        self.in_sync, self.eligible, self.revision = frozenset(in_sync), frozenset(eligible), revision
        self._proposal, self._is_unanswered = None, False
        self._track(now)

    def _on_rejected(self, event: ProposalRejected, now: int) -> None:
        if event.leader_epoch > self._leader_epoch:
            self.is_fenced = True
        elif event.revision <= self.revision:
            self._is_unanswered = self._proposal is not None
        else:
            self._adopt(event.in_sync, event.eligible, event.revision, now)

    def _counting(self) -> frozenset[Member]:
        return self.in_sync if self._proposal is None else self.in_sync.union(self._proposal.in_sync)

    def _advance(self) -> None:
        if self._stands_still:
            return
        offset = self._durable_offset
        if self._is_whole:
            for known in self._others.values():
                offset = min(offset, known.durable_offset)
        else:
            for member in self._counting() - {self._me}:
                other = self._others.get(member)
                offset = min(offset, UNKNOWN if other is None else other.durable_offset)
        self.high_watermark = max(self.high_watermark, offset)

    def _propose(self, now: int) -> list[Proposal]:
        if self._proposal is not None or self.is_fenced or not (self._others or self.eligible):
            return []
        leaving = {member for member in self.in_sync if member != self._me and self._is_out(member, now)}
        leaving |= self._stopping_members(leaving)
        joining = {member for member, known in self._others.items() if self._may_join(member, known)}
        has_outlived = self.eligible and len(self.in_sync) >= self._minimum
        if not leaving and not joining and not has_outlived:
            return []
        after = (self.in_sync - leaving) | joining
        eligible = (self.eligible | leaving) - after if len(after) < self._minimum else frozenset[Member]()
        self._proposal = Proposal(tuple(sorted(after)), tuple(sorted(eligible)), self.revision)
        return [self._proposal]

    def _stopping_members(self, leaving: set[Member]) -> set[Member]:
        """Return the members on nodes that are about to stop, as far as the set stays at its minimum without them."""
        going = [member for member in sorted(self.in_sync - leaving) if member.node in self._stopping]
        room = len(self.in_sync) - len(leaving) - self._minimum
        return set(going[: max(0, room)]) - {self._me}

    def _is_out(self, member: Member, now: int) -> bool:
        known = self._others[member]
        if member.node not in self._assigned or self._live.get(member.node, member.data_id) != member.data_id:
            return True
        if known.leaves_at_ms is not None and now >= known.leaves_at_ms:
            return True
        return known.durable_offset < self._log_end_offset and now - known.caught_up_ms > self.lag_max_ms

    def _may_join(self, member: Member, known: _Replica) -> bool:
        return (
            member not in self.in_sync
            and member.node not in self._stopping
            and self._live.get(member.node) == member.data_id
            and known.leaves_at_ms is None
            and known.durable_offset >= max(self.high_watermark, self.epoch_start_offset)
        )
