"""The leader's side of replication: the followers' fetches, their durable offsets, and the in-sync set. Pure.

Owns the in-sync machine (`in_sync.py`) and the parked fetches (`replica_fetches.py`), and turns proposals into calls of
the node's controller, which writes them to the metadata store. The only replica of a partition has one as well: its
in-sync set is the leader alone, so that one mechanism decides about every high watermark. Called by `leader.py`.

What the leader knows of its followers, it knows from their fetches. Other messages save time, and each may be lost or
late: `replica_durable`, `replica_reported`. So a parked fetch is answered, without batches, whenever its follower may
know better: when it is reported down or up, and, at each tick, while it is behind for `BEHIND_MS`. The next fetch has its
durable offset.
"""

from collections.abc import Iterable

from msgspec import Struct, structs

from ...transport.addresses import CONTROLLER, link_address
from ...transport.machine import Answered, Call, Failed, Received, Reply, SetTimer
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.links import AdmitCatchUp
from ...transport.protocol.message import Done
from ...transport.protocol.replication import (
    Diverging,
    Lead,
    Member,
    ProposeInSync,
    ProposeInSyncReply,
    RelieveLeader,
    ReplicaDurable,
    ReplicaFetch,
    ReplicaReported,
)
from .arguments import PartitionArguments
from .effects import Effect, OpenedLog, ReadDone, Written
from .in_sync import (
    DurableReported,
    InSync,
    InSyncEvent,
    LeaderDurable,
    LeaderWrote,
    LivenessReported,
    Proposal,
    ProposalApplied,
    ProposalRejected,
    ProposalUnknown,
    Reassigned,
    ReplicaFetched,
    Tick,
)
from .replica_fetches import ReplicaFetches, offset_of, replica_fetch_of
from .replication import Watermarks
from .sync_times import SyncTimes
from .timers import InSyncDue

PROPOSAL_TIMEOUT_MS = 2_000
CATCH_UP_TIMEOUT_MS = 25_000
"""Shorter than a follower's wait for its fetch."""


class ProposalCall(Struct, frozen=True):
    """The key of a call of the controller."""

    guard: int


class CatchUpCall(Struct, frozen=True):
    """The key of a call of the link: batches for a replica that is not in sync wait for it."""

    number: int


class ReliefCall(Struct, frozen=True):
    """The key of a call of the controller: the leader's disk is slow."""


class Replicas:
    def __init__(
        self, arguments: PartitionArguments, lead: Lead, log: OpenedLog, watermarks: Watermarks, now: int
    ) -> None:
        self._lead = lead
        self._arguments = arguments
        self._node = arguments.node
        self._watermarks = watermarks
        me = Member(arguments.node, arguments.data_id)
        self.in_sync = InSync(me, lead, log.log_end_offset, watermarks.high_watermark, now)
        self._sync_times = SyncTimes(arguments.slow_sync_ms)
        self._held: dict[int, ReadDone] = {}
        """Batches for replicas that are not in sync, until the link permits them."""
        self._last_held = 0
        self.fetches = ReplicaFetches(lead.leader_epoch, watermarks, log.epochs)
        watermarks.high_watermark = self.in_sync.high_watermark

    def start(self, now: int) -> list[Effect]:
        return [self._next_tick(now)] if self.in_sync.has_others else []

    def refusal(self) -> ProtocolError:
        """Return the error for a request that asks for all replicas while too few are in sync."""
        nodes = ", ".join(sorted(member.node for member in self.in_sync.in_sync))
        message = f"only these replicas are in sync, fewer than the topic's minimum: {nodes}"
        return ProtocolError(ErrorCode.NOT_ENOUGH_REPLICAS, message)

    # -- the leader's own log

    def on_written(self, written: Written, now: int) -> list[Effect]:
        """Answer the fetches that wait: with the batches of this turn, if that is all that they lack."""
        effects = self._handle(LeaderWrote(written.log_end_offset), now)
        for read in self.fetches.on_written():
            found = written.fresh.read(offset_of(read.received), read.max_bytes, read.up_to_offset)
            effects += [read] if found is None else self.on_read_done(ReadDone(read, *found))
        return effects

    def on_durable(self, durable_offset: int, sync_ms: int | None, now: int) -> list[Effect]:
        if not self.in_sync.has_others:
            # Once a turn: the leader alone decides.
            self._watermarks.high_watermark = self.in_sync.advance_alone(durable_offset)
            return []
        if sync_ms is not None:
            self._sync_times.on_own(sync_ms, now)
        return [*self._handle(LeaderDurable(durable_offset), now), *self._ask_for_relief(now)]

    def _ask_for_relief(self, now: int) -> list[Effect]:
        """Ask to be relieved of a slow disk, if there is a better one."""
        successors = self._sync_times.relief(self.in_sync.in_sync, now)
        if not successors:
            return []
        lead = self._lead
        request = RelieveLeader(
            topic=lead.topic,
            partition=lead.partition,
            leader_epoch=lead.leader_epoch,
            successors=tuple(successors),
        )
        return [Call(ReliefCall(), CONTROLLER, request, Done)]

    # -- followers

    def on_fetch(self, received: Received, request: ReplicaFetch, now: int) -> list[Effect]:
        if self.fetches.is_left(received):
            return []
        member = Member(request.replica, request.data_id)
        if request.sync_ms is not None:
            self._sync_times.on_reported(member, request.sync_ms, now)
        is_replica = self.in_sync.is_replica(member)
        if not (is_replica and self.fetches.is_at_end(request)):
            refusal = self.fetches.refusal(request, is_replica)
            if refusal is not None:
                return [Reply(received.sender, refusal.body)]
            diverging = self.fetches.divergence(request)
            if diverging is not None:
                return [self.fetches.reply(received, diverging=self._with_cuts(diverging, request))]
        # Answered first: the reply tells the high watermark that followed from earlier messages.
        effects = self.fetches.serve(received, request, now)
        return effects + self._handle(ReplicaFetched(member, request.durable_offset), now)

    def _with_cuts(self, diverging: Diverging, request: ReplicaFetch) -> Diverging:
        mirror = self._arguments.mirror
        if mirror is None:
            return diverging
        return structs.replace(
            diverging, given_up=mirror.cuts_after(self._arguments.partition, request.last_epoch)
        )

    def on_durable_reported(self, request: ReplicaDurable, now: int) -> list[Effect]:
        if request.leader_epoch != self._lead.leader_epoch:
            return []
        member = Member(request.replica, request.data_id)
        self._sync_times.on_reported(member, request.sync_ms, now)
        return self._handle(DurableReported(member, request.durable_offset), now)

    def on_liveness(self, request: ReplicaReported, now: int) -> list[Effect]:
        effects = self._handle(LivenessReported(request.replica, request.is_up, request.is_node), now)
        # A process that lives, or was only frozen, waits for the answer to its fetch, and reports nothing until then.
        effects += self.fetches.answer({request.replica})
        return [*effects, self._next_tick(now)] if self.in_sync.has_others else effects

    def on_withdrawn(self, fetches: Iterable[Received], now: int) -> list[Effect]:
        """Note that these fetches do not wait any more: their followers, or the connections to them, have ended. A
        follower that has fetched again by another way lives."""
        fetching = {replica_fetch_of(each).replica for each in self.fetches.view.parked.waiting()}
        gone = {replica_fetch_of(received).replica for received in fetches} - fetching
        effects: list[Effect] = []
        for replica in sorted(gone):
            effects += self._handle(LivenessReported(replica, is_up=False), now)
        return [*effects, self._next_tick(now)] if gone else []

    def on_read_done(self, done: ReadDone) -> list[Effect]:
        """Send the batches; those for a replica that is not in sync wait for the node's rate of copies."""
        request = replica_fetch_of(done.read.received)
        size_bytes = len(done.batches)
        if not size_bytes or Member(request.replica, request.data_id) in self.in_sync.in_sync:
            return self.fetches.on_read_done(done)
        self._last_held += 1
        self._held[self._last_held] = done
        ask = AdmitCatchUp(size_bytes=size_bytes)
        link = link_address(self._node)
        return [Call(CatchUpCall(self._last_held), link, ask, Done, timeout_ms=CATCH_UP_TIMEOUT_MS)]

    def on_admitted(self, key: CatchUpCall) -> list[Effect]:
        """Send the batches that have waited, also if the link has not answered."""
        done = self._held.pop(key.number, None)
        return [] if done is None else self.fetches.on_read_done(done)

    def fail_all(self, error: ProtocolError) -> list[Effect]:
        """Refuse the fetches that wait."""
        held, self._held = self._held, {}
        refused: list[Effect] = [Reply(done.read.received.sender, error.body) for done in held.values()]
        return refused + self.fetches.fail_all(error)

    # -- the in-sync set

    def reassign(self, lead: Lead, now: int) -> list[Effect]:
        changed = set(self._lead.down) ^ set(lead.down)
        self._lead = lead
        effects = [*self._handle(Reassigned(lead), now), *self.fetches.answer(changed)]
        return [*effects, self._next_tick(now)] if self.in_sync.has_others else effects

    def on_tick(self, now: int) -> list[Effect]:
        effects = [*self._handle(Tick(), now), *self.fetches.answer(self.in_sync.behind(now))]
        return [*effects, self._next_tick(now)] if self.in_sync.has_others else effects

    def on_outcome(self, event: Answered | Failed, now: int) -> list[Effect]:
        if isinstance(event, Failed):
            return [*self._handle(ProposalUnknown(), now), self._next_tick(now)]
        reply = event.reply
        assert isinstance(reply, ProposeInSyncReply)
        if reply.applied:
            return self._handle(ProposalApplied(reply.revision), now)
        state = (reply.leader_epoch, reply.in_sync, reply.eligible, reply.revision)
        return self._handle(ProposalRejected(*state), now)

    def _handle(self, event: InSyncEvent, now: int) -> list[Effect]:
        """Pass an event on; the high watermark may have moved after it."""
        proposals = self.in_sync.handle(event, now)
        self._watermarks.high_watermark = self.in_sync.high_watermark
        return [self._propose(proposal) for proposal in proposals] if proposals else []

    def _propose(self, proposal: Proposal) -> Call:
        lead = self._lead
        request = ProposeInSync(
            topic=lead.topic,
            topic_id=lead.topic_id,
            partition=lead.partition,
            leader=self._node,
            leader_epoch=lead.leader_epoch,
            in_sync=proposal.in_sync,
            eligible=proposal.eligible,
            revision=proposal.guard,
        )
        key = ProposalCall(proposal.guard)
        return Call(key, CONTROLLER, request, ProposeInSyncReply, timeout_ms=PROPOSAL_TIMEOUT_MS)

    def _next_tick(self, now: int) -> Effect:
        return SetTimer(InSyncDue(), now + self.in_sync.next_tick_ms)
