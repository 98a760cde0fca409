"""Answers of the page of the cluster: nodes, replicas, drain, moves. A broker on one machine has none of them."""

from typing import Any

from msgspec import Struct, structs
from starlette.datastructures import QueryParams
from starlette.routing import Route

from ...transport.client.cluster_admin import MOVES_IN_PROGRESS, ClusterAdmin
from ...transport.protocol.cluster import NodeAction, PartitionMove
from ...transport.protocol.errors import ErrorCode, ProtocolError
from .answers import acts, reads
from .broker_link import BrokerLink
from .failures import Refused


class NodeBody(Struct, forbid_unknown_fields=True):
    node: str
    action: NodeAction
    force: bool = False


class ElectBody(Struct, forbid_unknown_fields=True):
    topic: str
    partition: int


class MovesBody(Struct, forbid_unknown_fields=True):
    moves: list[PartitionMove]


class TargetBody(Struct, forbid_unknown_fields=True):
    topic: str
    replicas: list[str]
    partition: int | None = None


def cluster(link: BrokerLink, _: QueryParams) -> dict[str, Any]:
    try:
        found = ClusterAdmin.over(link.client).status()
    except ProtocolError as error:
        if error.code == ErrorCode.INVALID_REQUEST:
            return {"cluster": None, "message": error.message}
        raise
    return {name: value for name, value in structs.asdict(found).items() if name != "id"}


def change(link: BrokerLink, body: NodeBody) -> None:
    ClusterAdmin.over(link.client).change(body.node, body.action, force=body.force)


def elect(link: BrokerLink, body: ElectBody) -> None:
    ClusterAdmin.over(link.client).elect(body.topic, body.partition)


def plan_rebalance(link: BrokerLink, _: QueryParams) -> dict[str, Any]:
    """Return the moves that spread replicas evenly. Nothing is moved."""
    admin = ClusterAdmin.over(link.client)
    return _compared(admin, admin.plan())


def plan_reassignment(link: BrokerLink, body: TargetBody) -> dict[str, Any]:
    """Return the moves of a topic, or of one of its partitions, to these nodes. Nothing is moved."""
    admin = ClusterAdmin.over(link.client)
    if not body.replicas or len(set(body.replicas)) < len(body.replicas):
        raise Refused(400, "INVALID_REQUEST", "name different nodes")
    known = {each.node for each in admin.status().nodes}
    for node in body.replicas:
        if node not in known:
            raise Refused(400, "INVALID_REQUEST", f"the cluster has no node {node[:250]!r}")
    return _compared(admin, admin.moves_to(body.topic, body.replicas, body.partition))


def _compared(admin: ClusterAdmin, moves: list[PartitionMove]) -> dict[str, Any]:
    """Return each move with the replicas of now, and the nodes that get a copy."""
    present = {(each.topic, each.partition): each for each in admin.status().partitions}
    rows = []
    for move in moves:
        found = present.get((move.topic, move.partition))
        if found is None:
            raise Refused(404, "UNKNOWN_PARTITION", f"there is no partition {move.topic}/{move.partition}")
        copies = [node for node in move.replicas if node not in found.replicas]
        rows.append(structs.asdict(move) | {"from": found.target or found.replicas, "copies": copies})
    return {"moves": rows, "at_once": MOVES_IN_PROGRESS}


def move(link: BrokerLink, body: MovesBody) -> None:
    """Begin these moves; the page sends a few, and the next ones when these are done."""
    if len(body.moves) > MOVES_IN_PROGRESS:
        raise Refused(400, "INVALID_REQUEST", f"more than {MOVES_IN_PROGRESS} moves at a time")
    ClusterAdmin.over(link.client).reassign(body.moves)


ROUTES = [
    Route("/api/cluster", reads(cluster)),
    Route("/api/cluster/node", acts(NodeBody, change), methods=["POST"]),
    Route("/api/cluster/plan", reads(plan_rebalance)),
    Route("/api/cluster/target", acts(TargetBody, plan_reassignment), methods=["POST"]),
    Route("/api/cluster/move", acts(MovesBody, move), methods=["POST"]),
    Route("/api/cluster/elect", acts(ElectBody, elect), methods=["POST"]),
]
