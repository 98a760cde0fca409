"""Requests of operators: the writes that a change requires, and the report of the whole cluster. Pure.

    request               write                                        refused if
    change_node           settings/<node>                              no such node; partitions would lose their minimum
    reassign_partitions   partitions/..: `reassignment.begun`          no such partition or node, too few replicas
    ... of all of them    topics/..: the new `replication_factor`
    elect_leader          partitions/..: the preferred replica leads   it is not in sync
    ... unclean           partitions/..: `elections.forced`            no live replica has answered; its leader has a
                                                                       session, and does not answer, unless it is
                                                                       quarantined on this node

The leading controller carries the changes out (`deciding.py`, `assignments.py`), so they outlive every controller. A
request that finds its change made already writes nothing, so it can be repeated.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from ....transport.addresses import TopicPartition
from ....transport.protocol.cluster import (
    ChangeNode,
    ClusterStatusReply,
    ElectLeader,
    NodeAction,
    NodeReport,
    PartitionMove,
    PartitionReport,
    ReassignPartitions,
)
from ....transport.protocol.errors import ErrorCode, ProtocolError
from ...metadata.store import ABSENT, Delete, Guard
from ..catalog import Catalog
from .assignments import RequiredTopic, Writes, guarded
from .deciding import ClusterView, Versioned, is_led, live_nodes, needing, would_fall_below
from .elections import DataIds, first_live, forced, is_live, preferred
from .mirror import Mirror, put, settings_key
from .placement import TooFewNodes, evacuate, led_elsewhere, rebalance, stopping_nodes, usable
from .reassignment import begun
from .records import DEFAULT_SETTINGS, NodeSettings, PartitionRecord
from .stopping import NO_STORE, named, stop_refusal
from .unclean import LogEnd

NO_ENDS: Mapping[str, LogEnd] = {}
EMPTY_CATALOG = Catalog(catalog_id="")


class Situation(Struct, frozen=True):
    """The state on which a request is decided."""

    mirror: Mirror
    suspected: frozenset[str]
    topics: Mapping[str, RequiredTopic]
    catalog: Catalog = EMPTY_CATALOG
    node: str = ""
    """The node that decides."""
    quarantined: frozenset[TopicPartition] = frozenset()
    """The partitions whose replicas on this node are quarantined."""
    is_in_session: bool = True
    """False while the metadata store does not answer this node: the state may be old."""

    def able_to_lead(self, partition: TopicPartition) -> dict[str, str]:
        """Return the live nodes without this one, if its replica is quarantined: it leads no more, until it is
        revived."""
        live = self.live
        if partition in self.quarantined:
            live.pop(self.node, None)
        return live

    @property
    def live(self) -> dict[str, str]:
        return live_nodes(self.mirror.sessions, self.suspected)

    @property
    def records(self) -> dict[TopicPartition, PartitionRecord]:
        return {partition: versioned.record for partition, versioned in self.mirror.partitions.items()}

    @property
    def view(self) -> ClusterView:
        mirror = self.mirror
        return ClusterView(mirror.partitions, mirror.sessions, mirror.settings, self.minimum)

    @property
    def going(self) -> frozenset[str]:
        """Return the nodes that do not count as staying: suspected ones, and those that are about to stop."""
        return self.suspected | stopping_nodes(self.mirror.sessions)

    def minimum(self, topic: str) -> int:
        found = self.topics.get(topic)
        return 1 if found is None else found.min_in_sync_replicas

    def nodes(self) -> list[str]:
        """Return every node that runs, has instructions, or holds a replica."""
        mirror = self.mirror
        holding = (node for record in self.records.values() for node in (*record.replicas, *record.target))
        return sorted({*mirror.sessions, *mirror.settings, *holding})


# -- changes


def changed_node(situation: Situation, request: ChangeNode) -> Writes:
    """Return the write of a node's settings; none if they are there. Raises ProtocolError."""
    mirror, node = situation.mirror, request.node
    if node not in situation.nodes():
        raise _unknown_node(node, situation.nodes())
    if not request.force:
        _check_change(situation, request)
    present = mirror.settings.get(node, DEFAULT_SETTINGS)
    settings = _settings_after(present, request.action)
    if settings == present:
        return []
    key = settings_key(node)
    guard = Guard(key, mirror.settings_revisions[node] if node in mirror.settings else ABSENT)
    return [(Delete(key) if settings == DEFAULT_SETTINGS else put(key, settings), guard)]


def _settings_after(present: NodeSettings, action: NodeAction) -> NodeSettings:
    match action:
        case "cordon":
            return msgspec.structs.replace(present, is_cordoned=True)
        case "drain":
            return msgspec.structs.replace(present, is_draining=True)
        case "undrain":
            return msgspec.structs.replace(present, is_draining=False)
        case "leave":
            return msgspec.structs.replace(present, is_leaving=True)
        case "uncordon":
            return DEFAULT_SETTINGS


def _check_change(situation: Situation, request: ChangeNode) -> None:
    """Raise ProtocolError if the change would leave partitions without what they require."""
    mirror, node = situation.mirror, request.node
    if request.action == "drain":
        below = would_fall_below(node, situation.view, situation.going)
        if below:
            raise ProtocolError(
                ErrorCode.UNSAFE_CHANGE,
                f"without node {node!r} {named(below)} would be below min_in_sync_replicas: wait until more"
                " replicas are in sync, or reassign to more nodes, or force it",
            )
    if request.action == "leave":
        nodes = usable(mirror.sessions, mirror.settings)
        leaving = [name for name, settings in mirror.settings.items() if settings.is_leaving]
        try:
            evacuate(node, nodes, situation.records, leaving)
        except TooFewNodes as error:
            raise ProtocolError(
                ErrorCode.UNSAFE_CHANGE,
                f"the replicas of node {node!r} have no other place ({error}): add or uncordon a node, or reassign"
                " to fewer nodes, or force it to begin",
            ) from None


def reassigned(situation: Situation, request: ReassignPartitions) -> Writes:
    """Return the writes that begin these moves. Raises ProtocolError."""
    writes: Writes = []
    seen = set()
    for move in request.moves:
        partition, versioned = _known(situation, move.topic, move.partition)
        if partition in seen:
            raise ProtocolError(ErrorCode.INVALID_REQUEST, f"moves: {_name(partition)} is there twice")
        seen.add(partition)
        _check_replicas(situation, move)
        record, target = versioned.record, tuple(move.replicas)
        if (record.target or record.replicas) != target:
            writes.append(guarded(partition, begun(record, target), versioned.revision))
    return writes + _changed_factors(situation, request.moves)


def _changed_factors(situation: Situation, moves: Sequence[PartitionMove]) -> Writes:
    """Return the writes of the topics all of whose partitions will have another number of replicas than they say."""
    writes: Writes = []
    moved = {TopicPartition(move.topic, move.partition): len(move.replicas) for move in moves}
    for topic in dict.fromkeys(move.topic for move in moves):
        entry = situation.catalog.topics.get(topic)
        counts = {
            moved.get(partition, len(record.target or record.replicas))
            for partition, record in situation.records.items()
            if partition.topic == topic
        }
        if entry is None or len(counts) != 1 or counts == {entry.config.replication_factor}:
            continue
        config = msgspec.structs.replace(entry.config, replication_factor=counts.pop())
        changed = situation.catalog.undecided().with_topic_changed(topic, entry.partitions, config)
        [change] = changed.changes
        [guard] = changed.guards([change.key])
        writes.append((change, guard))
    return writes


def _check_replicas(situation: Situation, move: PartitionMove) -> None:
    replicas, sessions = move.replicas, situation.mirror.sessions
    if len(set(replicas)) < len(replicas):
        raise ProtocolError(ErrorCode.INVALID_REQUEST, "replicas: a node is named twice")
    for node in replicas:
        if node not in sessions:
            raise _unknown_node(node, sorted(sessions))
        if situation.mirror.settings.get(node, DEFAULT_SETTINGS).is_leaving:
            raise ProtocolError(
                ErrorCode.UNSAFE_CHANGE, f"node {node!r} is leaving: uncordon it, or name another one"
            )
    minimum = situation.minimum(move.topic)
    if len(replicas) < minimum:
        raise ProtocolError(
            ErrorCode.UNSAFE_CHANGE,
            f"replicas: topic {move.topic!r} has min_in_sync_replicas {minimum}: name at least as many nodes, or"
            " lower that first",
        )


def elected(situation: Situation, request: ElectLeader, ends: Mapping[str, LogEnd] = NO_ENDS) -> Writes:
    """Return the write of the next leader; none if it leads already. Raises ProtocolError.

    `ends` has the ends of the logs of the live replicas that have answered, for an unclean election.
    """
    partition, versioned = _known(situation, request.topic, request.partition)
    record, live = versioned.record, situation.live
    if request.unclean:
        live = situation.able_to_lead(partition)
    minimum = situation.minimum(request.topic)
    following: PartitionRecord | None
    leading = _leading_node(record, live)
    if leading is not None and request.unclean and leading not in ends:
        raise ProtocolError(
            ErrorCode.ACTOR_UNAVAILABLE,
            f"the leader of {_name(partition)} on node {leading!r} does not answer, and the session of that"
            " node has not ended yet: try again; if its process is quarantined, revive it, or give the order at that"
            " node",
        )
    if is_led(record, live):
        if record.leader == record.replicas[0]:
            return []
        following = preferred(record, live, minimum)
        if following is None and request.unclean:
            return []  # the order was repeated, or there is no need for it
        if following is None:
            raise ProtocolError(
                ErrorCode.UNSAFE_CHANGE,
                f"{_name(partition)} is led by {record.leader!r}, and its preferred replica {record.replicas[0]!r} is"
                " not in sync: wait until it is",
            )
        return [guarded(partition, following, versioned.revision)]
    if leading is not None:
        return []  # the leading controller is about to elect it
    if not request.unclean:
        raise ProtocolError(
            ErrorCode.UNSAFE_CHANGE,
            f"{_name(partition)} is offline, and none of its live replicas has every committed record: start"
            f" {_any_of(record)}, or elect an unclean leader, which may lose records",
        )
    ends = {node: end for node, end in ends.items() if node in live}
    if not ends:
        raise ProtocolError(
            ErrorCode.ACTOR_UNAVAILABLE,
            f"no live replica of {_name(partition)} has answered yet: start one of {', '.join(record.replicas)}, or wait",
        )
    longest = max(ends, key=lambda node: (ends[node], node == record.replicas[0]))
    return [guarded(partition, forced(record, live, longest), versioned.revision)]


def _leading_node(record: PartitionRecord, live: DataIds) -> str | None:
    """Return the node whose replica leads, or will lead as soon as the leading controller has elected it."""
    if is_led(record, live):
        return record.leader
    member = first_live(record, record.in_sync, live) or first_live(record, record.eligible, live)
    return None if member is None else member.node


def candidates(situation: Situation, request: ElectLeader) -> list[str]:
    """Return the nodes whose replicas an unclean election has to ask; none if it is not unclean. Raises ProtocolError.

    If the partition is led, or about to be, its leader has to answer: its node may have died a moment ago.
    """
    partition, versioned = _known(situation, request.topic, request.partition)
    record, live = versioned.record, situation.able_to_lead(partition)
    if not request.unclean:
        return []
    leading = _leading_node(record, live)
    if leading is not None:
        return [leading]
    found = [node for node in record.replicas if node in live]
    if not found:
        raise ProtocolError(
            ErrorCode.UNSAFE_CHANGE,
            f"no replica of {_name(partition)} is on a node that runs: start one of {', '.join(record.replicas)}",
        )
    return found


def planned(situation: Situation) -> list[PartitionMove]:
    """Return the moves that spread replicas and preferred leaders evenly."""
    nodes = usable(situation.mirror.sessions, situation.mirror.settings)
    nodes = {node: session for node, session in nodes.items() if node not in situation.suspected}
    avoid = led_elsewhere(situation.mirror.sessions, situation.mirror.settings)
    return [
        PartitionMove(
            topic=move.partition.topic, partition=move.partition.partition, replicas=list(move.replicas)
        )
        for move in rebalance(nodes, situation.records, avoid)
    ]


# -- the report


def status(
    situation: Situation, *, cluster: str, node: str, leading: str | None, unplaced: str
) -> ClusterStatusReply:
    live = situation.live
    partitions = [
        _partition_report(partition, versioned.record, live)
        for partition, versioned in sorted(situation.mirror.partitions.items())
    ]
    return ClusterStatusReply(
        cluster=cluster,
        node=node,
        leading=leading,
        nodes=_node_reports(situation, partitions, node),
        partitions=partitions,
        unplaced=unplaced,
    )


def _partition_report(
    partition: TopicPartition, record: PartitionRecord, live: Mapping[str, str]
) -> PartitionReport:
    in_sync = [member.node for member in record.in_sync if is_live(member, live)]
    is_offline = not is_led(record, live)
    return PartitionReport(
        topic=partition.topic,
        partition=partition.partition,
        replicas=list(record.replicas),
        target=list(record.target),
        leader=None if is_offline else record.leader,
        leader_epoch=record.leader_epoch,
        in_sync=in_sync,
        eligible=[member.node for member in record.eligible],
        unclean_epochs=list(record.unclean_epochs),
        offline=is_offline,
        under_replicated=len(in_sync) < len(record.replicas),
    )


def _node_reports(
    situation: Situation, partitions: Sequence[PartitionReport], asked: str
) -> list[NodeReport]:
    mirror = situation.mirror
    replicas = Counter(node for report in partitions for node in report.replicas)
    leaders = Counter(report.leader for report in partitions)
    missing = Counter(node for report in partitions for node in report.replicas if node not in report.in_sync)
    reports = []
    needed = needing(situation.view, situation.going, mirror.sessions)
    for node in situation.nodes():
        session = mirror.sessions.get(node)
        settings = mirror.settings.get(node, DEFAULT_SETTINGS)
        report = NodeReport(
            node=node,
            state="down" if session is None else "suspected" if node in situation.suspected else "alive",
            endpoint=None if session is None else session.endpoint,
            peer_endpoint=None if session is None else session.peer_endpoint,
            rack=None if session is None else session.rack,
            cordoned=settings.is_cordoned,
            draining=settings.is_draining,
            leaving=settings.is_leaving,
            stopping=session is not None and session.is_stopping,
            stop_refusal="" if session is None else _stop_refusal(situation, needed.get(node), node, asked),
            replicas=replicas[node],
            leaders=leaders[node],
            under_replicated=missing[node],
        )
        reports.append(report)
    return reports


def _stop_refusal(situation: Situation, below: list[TopicPartition] | None, node: str, asked: str) -> str:
    """Return the reason why a node would refuse to stop now; empty if it would not."""
    if not situation.is_in_session:
        return NO_STORE if node == asked else f"unknown, because the metadata store does not answer {asked}"
    return stop_refusal(below) if below else ""


# -- names and refusals


def _known(situation: Situation, topic: str, number: int) -> tuple[TopicPartition, Versioned]:
    partition = TopicPartition(topic, number)
    versioned = situation.mirror.partitions.get(partition)
    required = situation.topics.get(topic)
    if required is None:
        raise ProtocolError(ErrorCode.UNKNOWN_TOPIC, f"there is no topic {topic[:250]!r}")
    if not 0 <= number < required.partitions:
        raise ProtocolError(
            ErrorCode.UNKNOWN_PARTITION,
            f"partition: topic {topic!r} has the partitions 0 to {required.partitions - 1}, not {number}",
        )
    if versioned is None or versioned.record.topic_id != required.topic_id:
        raise ProtocolError(ErrorCode.PARTITION_OFFLINE, f"{_name(partition)} has no replicas yet")
    return partition, versioned


def _unknown_node(node: str, known: Iterable[str]) -> ProtocolError:
    return ProtocolError(
        ErrorCode.UNKNOWN_NODE, f"there is no node {node[:100]!r}; there are {', '.join(known) or 'none'}"
    )


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}/{partition.partition}"


def _any_of(record: PartitionRecord) -> str:
    having = dict.fromkeys(member.node for member in (*record.in_sync, *record.eligible))
    return "the node " + " or ".join(having)
