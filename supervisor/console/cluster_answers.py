"""Answers of the page of the cluster: nodes, replicas, drain. A broker on one machine has neither."""

from typing import Any

from msgspec import Struct, structs
from starlette.datastructures import QueryParams
from starlette.routing import Route

from ...transport.client.cluster_admin import ClusterAdmin
from ...transport.protocol.cluster import NodeAction
from ...transport.protocol.errors import ErrorCode, ProtocolError
from .answers import acts, reads
from .broker_link import BrokerLink


class NodeBody(Struct, forbid_unknown_fields=True):
    node: str
    action: NodeAction
    force: bool = False


class ElectBody(Struct, forbid_unknown_fields=True):
    topic: str
    partition: int


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


ROUTES = [
    Route("/api/cluster", reads(cluster)),
    Route("/api/cluster/node", acts(NodeBody, change), methods=["POST"]),
    Route("/api/cluster/elect", acts(ElectBody, elect), methods=["POST"]),
]
