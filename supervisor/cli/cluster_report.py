"""Reports of `planaria cluster`: the nodes, the partitions, and the progress of a change. Prints nothing itself."""

from collections.abc import Callable, Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from ...transport.protocol.cluster import (
    ClusterStatusReply,
    NodeReport,
    NodeState,
    PartitionMove,
    PartitionReport,
)
from .failures import CommandFailed
from .output import UNKNOWN, plural
from .tables import Listing

_STYLES: dict[NodeState, str] = {"alive": "green", "suspected": "yellow", "down": "bold red"}

Progress = Callable[[ClusterStatusReply], str]
"""Return one line about the work that is left; empty when it is done. Raises CommandFailed if it cannot be done."""


def overview(found: ClusterStatusReply) -> RenderableType:
    """Return the whole cluster, for a terminal."""
    parts: list[RenderableType] = [Text(_head(found) + "\n"), nodes_table(found.nodes)]
    if found.partitions:
        parts += [Text(""), partitions_table(found.partitions)]
    parts += refusals(found.nodes)
    if found.unplaced:
        parts.append(Text(f"\n{found.unplaced}", "bold red"))
    return Group(*parts)


def _head(found: ClusterStatusReply) -> str:
    offline = sum(each.offline for each in found.partitions)
    behind = sum(each.under_replicated and not each.offline for each in found.partitions)
    moving = sum(bool(each.target) for each in found.partitions)
    troubles = [(offline, "offline"), (behind, "under-replicated"), (moving, "being moved")]
    state = ", ".join(f"{count:,} {name}" for count, name in troubles if count) or "all in sync"
    controller = f"the controller of {found.leading} leads" if found.leading else "no controller leads"
    nodes, partitions = plural(len(found.nodes), "node"), plural(len(found.partitions), "partition")
    return f"cluster {found.cluster}, asked at {found.node}: {nodes}, {partitions} ({state})\n{controller}"


def nodes_table(nodes: Iterable[NodeReport]) -> Listing:
    made = Listing(
        "node", "state", "role", "may stop", "leaders", "replicas", "not in sync", "rack", "endpoint",
        numbers=["leaders", "replicas", "not in sync"],
    )  # fmt: skip
    for each in nodes:
        made.add_row(
            each.node,
            Text(each.state, _STYLES[each.state]),
            instructions(each),
            _may_stop(each),
            str(each.leaders),
            str(each.replicas),
            str(each.under_replicated),
            each.rack or UNKNOWN,
            each.endpoint or UNKNOWN,
        )
    return made


def refusals(nodes: Iterable[NodeReport]) -> list[Text]:
    """Return a line for each node that may not be stopped now."""
    return [
        Text(f"\n{each.node} may not be stopped: {each.stop_refusal}", "yellow")
        for each in nodes
        if each.stop_refusal
    ]


def _may_stop(node: NodeReport) -> Text:
    if node.state == "down":
        return Text(UNKNOWN)
    return Text("needed", "yellow") if node.stop_refusal else Text("yes", "green")


def instructions(node: NodeReport) -> str:
    """Return the instructions of operators for a node."""
    names = [
        name
        for name, is_set in (
            ("cordoned", node.cordoned),
            ("draining", node.draining),
            ("leaving", node.leaving),
            ("stopping", node.stopping),
        )
        if is_set
    ]
    return ", ".join(names) or UNKNOWN


def partitions_table(partitions: Iterable[PartitionReport]) -> Listing:
    made = Listing("partition", "leader", "epoch", "replicas", "in sync", "state", numbers=["epoch"])
    for each in partitions:
        made.add_row(
            name_of(each),
            each.leader or UNKNOWN,
            str(each.leader_epoch),
            ",".join(each.replicas),
            ",".join(each.in_sync) or UNKNOWN,
            _state(each),
        )
    return made


def moves_table(moves: Iterable[PartitionMove], found: ClusterStatusReply) -> Listing:
    present = {(each.topic, each.partition): each for each in found.partitions}
    made = Listing("partition", "replicas", "planned")
    for move in moves:
        before = present.get((move.topic, move.partition))
        replicas = UNKNOWN if before is None else ",".join(before.target or before.replicas)
        made.add_row(f"{move.topic}/{move.partition}", replicas, ",".join(move.replicas))
    return made


def name_of(report: PartitionReport) -> str:
    return f"{report.topic}/{report.partition}"


def _state(report: PartitionReport) -> Text:
    if report.offline:
        return Text("offline", "bold red")
    if report.unclean_epochs:
        return Text(f"unclean election in epoch {report.unclean_epochs[-1]}", "bold red")
    if report.target:
        return Text(f"moves to {','.join(report.target)}", "yellow")
    return Text("under-replicated", "yellow") if report.under_replicated else Text("in sync", "green")


# -- progress


def draining(node: str) -> Progress:
    def left(found: ClusterStatusReply) -> str:
        led = [each for each in found.partitions if each.leader == node]
        stuck = [each for each in led if not set(each.in_sync) - {node}]
        if led and len(stuck) == len(led):
            raise CommandFailed(
                f"node {node} still leads {_some(stuck)}: no other replica is in sync; wait for one, or stop the node"
                " and lose its partitions for that time"
            )
        return f"node {node} leads {plural(len(led), 'partition')}" if led else ""

    return left


def leaving(node: str) -> Progress:
    def left(found: ClusterStatusReply) -> str:
        held = [each for each in found.partitions if node in (*each.replicas, *each.target)]
        moving = sum(bool(each.target) for each in held)
        if not held:
            return ""
        reason = f" ({found.unplaced})" if found.unplaced else ""
        return f"node {node} holds {plural(len(held), 'replica')}, {moving} being moved{reason}"

    return left


def moving(moves: Iterable[PartitionMove]) -> Progress:
    moved = {(move.topic, move.partition) for move in moves}

    def left(found: ClusterStatusReply) -> str:
        moving = [each for each in found.partitions if each.target and (each.topic, each.partition) in moved]
        return f"{plural(len(moving), 'partition')} being moved: {_some(moving)}" if moving else ""

    return left


def electing(topic: str, partition: int) -> Progress:
    def left(found: ClusterStatusReply) -> str:
        return (
            "" if partition_of(found, topic, partition).leader else f"{topic}/{partition} has no leader yet"
        )

    return left


def partition_of(found: ClusterStatusReply, topic: str, partition: int) -> PartitionReport:
    """Return the report of a partition. Raises CommandFailed."""
    for each in found.partitions:
        if (each.topic, each.partition) == (topic, partition):
            return each
    raise CommandFailed(f"there is no partition {topic}/{partition}")


def _some(partitions: list[PartitionReport]) -> str:
    shown = ", ".join(name_of(each) for each in partitions[:3])
    return shown if len(partitions) <= 3 else f"{shown} and {len(partitions) - 3} more"
