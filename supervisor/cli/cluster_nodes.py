"""The nodes of the cluster in `planaria status`: which of them may be stopped. A broker on one machine has none."""

from rich.console import RenderableType
from rich.text import Text

from ...transport.addresses import Address, Kind
from ...transport.client.descriptions import BrokerStatus
from ...transport.protocol.cluster import NodeReport
from ...transport.protocol.errors import PlanariaError
from .cluster_report import nodes_table, refusals
from .connection import attached
from .failures import CommandFailed, describe

ASK_TIMEOUT_MS = 2_500


class ClusterNodes:
    """The nodes as one of them knows them, or the reason why none has answered."""

    def __init__(self, nodes: list[NodeReport] | None, fault: str = "") -> None:
        self.nodes = nodes
        self._fault = fault

    def lines(self) -> list[RenderableType]:
        if self.nodes is None:
            return [Text(f"\nthe nodes of the cluster are not known: {self._fault}", "yellow")]
        return [Text(""), nodes_table(self.nodes), *refusals(self.nodes)]


def nodes_by(found: BrokerStatus, endpoint: str) -> ClusterNodes | None:
    """Ask the broker for the nodes of its cluster; return None for a broker on one machine."""
    from ...transport.client.cluster_admin import ClusterAdmin  # noqa: PLC0415

    if all(Address.parse(actor.address).kind != Kind.LINK for actor in found.actors):
        return None
    try:
        with attached(endpoint, ASK_TIMEOUT_MS) as client:
            return ClusterNodes(ClusterAdmin.over(client).status().nodes)
    except (CommandFailed, PlanariaError) as error:
        return ClusterNodes(None, describe(error))
