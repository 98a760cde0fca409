"""Requests of operators, from their arrival to their answer. Pure.

    request                            answered
    cluster_status, plan_rebalance     at once
    a change                           when its write has its outcome; at once if it is made already, or refused
    elect_leader, unclean              the same, after the live replicas have said how far their logs reach, or the
                                       leader that it is there

`operators.py` decides their writes.
"""

from collections.abc import Callable

from ....transport.machine import Effect, Reply, Sender
from ....transport.protocol.cluster import (
    ChangeNode,
    ClusterStatus,
    ElectLeader,
    PlanRebalance,
    PlanRebalanceReply,
    ReassignPartitions,
)
from ....transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ....transport.protocol.message import Done, Request
from ....transport.protocol.replication import LogEndReply
from ...metadata.store import Applied, NotApplied, Outcome, Propose, Rejected, Unknown
from ..keys import LogEndCall
from . import operators
from .assignments import Assignments, Writes
from .leadership import Leadership
from .operators import Situation
from .proposals import OperatorChange, Proposals
from .unclean import UncleanElections


class Operating:
    """`situation` returns the present state."""

    def __init__(
        self,
        node: str,
        situation: Callable[[], Situation],
        assignments: Assignments,
        leadership: Leadership,
        proposals: Proposals,
    ) -> None:
        self._node = node
        self._situation = situation
        self._assignments = assignments
        self._leadership = leadership
        self._proposals = proposals
        self._unclean = UncleanElections(node)

    def operate(self, sender: Sender, request: Request, cluster: str) -> list[Effect | Propose]:
        """Answer a request, or propose its change. `cluster` is the cluster's name."""
        situation = self._situation()
        try:
            match request:
                case ClusterStatus():
                    report = operators.status(
                        situation,
                        cluster=cluster,
                        node=self._node,
                        leading=self._leadership.leader,
                        unplaced=self._assignments.waiting(situation.suspected),
                    )
                    return [Reply(sender, report)]
                case PlanRebalance():
                    return [Reply(sender, PlanRebalanceReply(moves=operators.planned(situation)))]
                case ChangeNode():
                    writes = operators.changed_node(situation, request)
                case ReassignPartitions():
                    writes = operators.reassigned(situation, request)
                case ElectLeader():
                    nodes = operators.candidates(situation, request)
                    if nodes:
                        topic_id = situation.topics[request.topic].topic_id
                        return [*self._unclean.ask(sender, request, topic_id, nodes)]
                    writes = operators.elected(situation, request)
                case _:
                    raise AssertionError(f"no request of an operator: {request!r}")
        except ProtocolError as error:
            return [Reply(sender, error.body)]
        return [self._propose(sender, writes)]

    def on_log_end(self, key: LogEndCall, reply: LogEndReply | None) -> list[Effect | Propose]:
        """Elect an unclean leader once every live replica has answered, or failed to (None)."""
        order = self._unclean.on_answer(key, reply)
        if order is None:
            return []
        sender, request, ends = order
        try:
            return [self._propose(sender, operators.elected(self._situation(), request, ends))]
        except ProtocolError as error:
            return [Reply(sender, error.body)]

    def _propose(self, sender: Sender, writes: Writes) -> Effect | Propose:
        if not writes:
            return Reply(sender, Done())
        changes = tuple(change for change, _ in writes)
        return self._proposals.propose(OperatorChange(sender), changes, tuple(guard for _, guard in writes))


def reply_to(outcome: Outcome) -> Done | ErrorBody:
    """Return the answer to a change whose write has this outcome."""
    match outcome:
        case Applied():
            return Done()
        case NotApplied(error=error):
            return error
        case Rejected():
            message = "the state changed meanwhile, and this change was not made; try again"
            return ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, message, True)
        case Unknown():
            message = "the metadata store did not answer: the change may take effect or not"
            return ErrorBody(ErrorCode.TIMED_OUT, message, True)
