"""The present state, as metrics: states, lengths of queues, sizes and offsets of logs, lags. Pure.

Built for each page from one observation. Called by looks.py.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

from ...transport.addresses import Kind, TopicPartition
from ...transport.protocol.cluster import ClusterStatusReply
from ...transport.protocol.operations import ActorReport, LogReport
from .families import Histogram, Labels, Samples
from .health import is_critical
from .lag import GroupLag
from .totals import SeenActor

GAUGES = {
    "requests_waiting": "planaria_requests_waiting",
    "requests_open": "planaria_requests_open",
    "calls_in_flight": "planaria_calls_in_flight",
    "fetches_parked": "planaria_fetches_parked",
}
SUMS = {
    "limited_connections": "planaria_limited_connections",
    "transactions_open": "planaria_transactions_open",
    "messages_pending": "planaria_scheduled_messages",
}
MIRROR = "mirror_"
"""Prefix of a mirror's gauges, which have the same names there."""


class Observation(Struct, kw_only=True):
    """All that a page shows."""

    actors: list[SeenActor]
    uptime_ms: int
    lags: list[GroupLag]
    wall_ms: int
    memory: Mapping[int, int] = {}
    """Bytes by process id, as far as it has been measured."""
    disk_free_bytes: int = 0
    disk_size_bytes: int = 0
    cluster: ClusterStatusReply | None = None
    """None on one machine, and while the controller does not answer."""


def gauges(seen: Observation, version: str, node: str) -> Samples:
    """Return the samples of /metrics that are no counters."""
    found: Samples = {
        ("planaria_build_info", (version, node)): 1,
        ("planaria_uptime_seconds", ()): seen.uptime_ms / 1_000,
        ("planaria_disk_free_bytes", ()): seen.disk_free_bytes,
        ("planaria_disk_size_bytes", ()): seen.disk_size_bytes,
    }
    by_kind: dict[str, list[SeenActor]] = {}
    for actor in seen.actors:
        by_kind.setdefault(actor.address.kind, []).append(actor)
        if actor.report.log is not None:
            _add_log(found, actor, actor.report.log)
        elif (group := actor.address.group) is not None:
            _add_group(found, group, actor.report)
        elif actor.address.kind == Kind.MIRROR:
            _add_mirror(found, actor)
    for kind, actors in by_kind.items():
        _add_kind(found, kind, actors, seen.memory)
    _add_lags(found, seen)
    if seen.cluster is not None:
        _add_cluster(found, seen.cluster)
    return found


def _add(found: Samples, name: str, labels: Labels, value: float) -> None:
    found[name, labels] = found.get((name, labels), 0) + value


def _add_kind(found: Samples, kind: str, actors: list[SeenActor], memory: Mapping[int, int]) -> None:
    states = Counter(actor.state for actor in actors)
    for state, count in states.items():
        found["planaria_actors", (kind, state)] = count
    found["planaria_actor_quarantined", (kind,)] = states["quarantined"]
    found["planaria_alarms", (kind,)] = sum(len(actor.report.alarms) for actor in actors)
    pids = [actor.pid for actor in actors if actor.pid is not None]
    if pids:
        found["planaria_actor_memory_bytes", (kind,)] = sum(memory.get(pid, 0) for pid in pids)
    reported = [actor.report.gauges for actor in actors]
    for name in set().union(*reported):
        total = sum(each.get(name, 0) for each in reported)
        if name in GAUGES:
            found[GAUGES[name], (kind,)] = total
        elif name in SUMS:
            _add(found, SUMS[name], (), total)


def _add_mirror(found: Samples, actor: SeenActor) -> None:
    labels = (actor.address.name,)
    for name, value in actor.report.gauges.items():
        if name == "mirror_lag_ms":
            found["planaria_mirror_lag_seconds", labels] = value / 1_000
        elif name.startswith(MIRROR):
            found[f"planaria_{name}", labels] = value


def _add_log(found: Samples, actor: SeenActor, log: LogReport) -> None:
    topic = actor.topic
    if topic is None:
        return
    _add(found, "planaria_topic_size_bytes", (topic,), log.size_bytes)
    if log.role != "leader":
        return
    _add(found, "planaria_topic_partitions", (topic,), 1)
    _add(found, "planaria_topic_records", (topic,), log.high_watermark - log.log_start_offset)
    _add(found, "planaria_partitions_led", (), 1)
    _add(found, "planaria_partitions_under_replicated", (), log.in_sync < log.replicas)
    _add(found, "planaria_partitions_below_minimum", (), log.is_below_minimum)
    size = found.get(("planaria_isr_size", (topic,)), log.in_sync)
    found["planaria_isr_size", (topic,)] = min(size, log.in_sync)
    for node, lag in log.replica_lags.items():
        key = "planaria_replica_lag_records", (topic, node)
        found[key] = max(found.get(key, 0), lag)


def _add_group(found: Samples, name: str, report: ActorReport) -> None:
    """Add the report of a coordinator or a hosted subscriber of the group."""
    _add(found, "planaria_group_retrying", (name,), report.retrying.count)
    group = report.group
    if group is not None:
        found["planaria_group_members", (name,)] = group.members
        found["planaria_group_state", (name, group.type, group.state)] = 1
        found["planaria_group_rebalances_total", (name,)] = group.generation


def _add_lags(found: Samples, seen: Observation) -> None:
    for lag in seen.lags:
        labels = (lag.group, lag.tp.topic)
        if lag.messages is not None:
            _add(found, "planaria_group_lag", labels, lag.messages)
        seconds = lag_seconds(lag, seen.wall_ms)
        if seconds is not None:
            key = "planaria_group_lag_seconds", labels
            found[key] = max(found.get(key, 0), seconds)


def lag_seconds(lag: GroupLag, wall_ms: int) -> float | None:
    """Return the age of the oldest unread message; 0 if there is none, None if it is unknown."""
    if lag.messages == 0:
        return 0
    return None if lag.oldest_ms is None else max(0, wall_ms - lag.oldest_ms) / 1_000


def _add_cluster(found: Samples, cluster: ClusterStatusReply) -> None:
    states = Counter(node.state for node in cluster.nodes)
    for state in ("alive", "suspected", "down"):
        found["planaria_cluster_nodes", (state,)] = states[state]
    own = next((node for node in cluster.nodes if node.node == cluster.node), None)
    found["planaria_cluster_controller", ()] = cluster.leading == cluster.node
    found["planaria_cluster_controllers", ()] = cluster.leading is not None
    found["planaria_cluster_session", ()] = own is not None and own.state == "alive"
    found["planaria_cluster_offline_partitions", ()] = sum(each.offline for each in cluster.partitions)
    found["planaria_cluster_under_replicated_partitions", ()] = sum(
        each.under_replicated for each in cluster.partitions
    )
    found["planaria_cluster_moving_partitions", ()] = sum(bool(each.target) for each in cluster.partitions)
    found["planaria_node_critical", ()] = is_critical(cluster) is not None


def detailed(seen: Observation) -> tuple[Samples, dict[tuple[str, Labels], Histogram]]:
    """Return the samples of /metrics/detailed."""
    found: Samples = {}
    histograms: dict[tuple[str, Labels], Histogram] = {}
    for actor in seen.actors:
        name = str(actor.address)
        found["planaria_actor_up", (name,)] = actor.state in ("ready", "asleep")
        found["planaria_actor_starts", (name,)] = actor.restarts
        if actor.pid is not None and actor.pid in seen.memory:
            found["planaria_actor_resident_bytes", (name,)] = seen.memory[actor.pid]
        if actor.report.log is None or actor.topic is None or actor.address.number is None:
            continue
        tp = TopicPartition(actor.topic, actor.address.number)
        _add_partition(found, actor, tp)
        syncs = actor.report.syncs
        if any(syncs.counts):
            histograms["planaria_partition_fsync_seconds", _labels(tp)] = Histogram(
                syncs.bounds_us, list(syncs.counts), syncs.total_us
            )
    found |= _partition_lags(seen.lags, seen.wall_ms)
    return found, histograms


def _labels(tp: TopicPartition) -> Labels:
    return tp.topic, str(tp.partition)


def _add_partition(found: Samples, actor: SeenActor, tp: TopicPartition) -> None:
    log, counters, labels = actor.report.log, actor.report.counters, _labels(tp)
    assert log is not None
    figures = {
        "log_start_offset": log.log_start_offset,
        "high_watermark": log.high_watermark,
        "log_end_offset": log.log_end_offset,
        "size_bytes": log.size_bytes,
        "leader_epoch": log.leader_epoch,
        "records_in_total": counters.get("records_in", 0),
        "records_out_total": counters.get("records_out", 0),
    }
    if log.role == "leader":
        figures |= {"replicas": log.replicas, "isr_size": log.in_sync}
    for name, value in figures.items():
        found[f"planaria_partition_{name}", labels] = value
    for node, lag in log.replica_lags.items():
        found["planaria_partition_replica_lag_records", (*labels, node)] = lag


def _partition_lags(lags: Iterable[GroupLag], wall_ms: int) -> Samples:
    found: Samples = {}
    for lag in lags:
        labels = (lag.group, *_labels(lag.tp))
        found["planaria_group_partition_offset", labels] = lag.offset
        if lag.messages is not None:
            found["planaria_group_partition_lag", labels] = lag.messages
        seconds = lag_seconds(lag, wall_ms)
        if seconds is not None:
            found["planaria_group_partition_lag_seconds", labels] = seconds
    return found
