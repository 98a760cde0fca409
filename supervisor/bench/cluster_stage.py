"""The cluster that the rows of `planaria bench --cluster` share: three nodes over three members of etcd.

Every row leaves it whole: all nodes and members run, all replicas are in sync, each preferred replica leads.
"""

import base64
import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ...transport.client.client import Client
from ...transport.client.cluster_admin import ClusterAdmin
from ...transport.protocol.cluster import ClusterStatusReply, PartitionReport
from ...transport.protocol.errors import PlanariaError
from ..free_ports import LOOPBACK
from ..local_cluster import LocalCluster, LocalMachine, LocalMember

FAILOVER_TOPIC = "FAILOVER"
PARTITIONS = 3
NODES = 3
TIMEOUT_S = 60.0
POLL_S = 0.05
TRANSACTION_ROUNDS = 200


class Stage:
    """The running cluster."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster

    @contextmanager
    def connected(self, without: LocalMachine | None = None) -> Iterator[Client]:
        """Yield a client of all nodes but one: the node that a fault strikes is not the one that it is connected to."""
        names = zip(self.cluster.nodes, self.cluster.endpoints, strict=True)
        with Client([endpoint for node, endpoint in names if node is not without]) as client:
            client.wait_for_broker(TIMEOUT_S)
            yield client

    def settle(self, client: Client, replicas: Mapping[str, list[str]] | None = None) -> ClusterStatusReply:
        """Wait until the cluster is whole and each preferred replica leads; return its state.

        `replicas` are those of reassigned topics: a status that is asked for a moment later may not know them yet.
        """
        placed = replicas or {}
        operator = ClusterAdmin.over(client)
        await_true(lambda: sum(member.is_leading() for member in self.cluster.members) == 1)

        def is_settled(found: ClusterStatusReply) -> bool:
            if not _is_whole(found) or any(
                each.replicas != placed.get(each.topic, each.replicas) for each in found.partitions
            ):
                return False
            for each in found.partitions:
                if not _is_led_by_first(each):
                    # Refused while the partition changes otherwise: it is asked for again then.
                    operator.elect(each.topic, each.partition)
            return all(map(_is_led_by_first, found.partitions))

        return _until(operator, is_settled)

    def leading_member(self) -> LocalMember:
        await_true(lambda: any(member.is_leading() for member in self.cluster.members))
        return next(member for member in self.cluster.members if member.is_leading())

    def transaction_us(self) -> float:
        """Return the median time of one guarded write, through the member of etcd that leads."""
        member = self.leading_member()
        key = base64.b64encode(b"planaria-bench").decode()
        guard = {"key": key, "target": "CREATE", "result": "GREATER", "createRevision": "-1"}
        body = json.dumps({"compare": [guard], "success": [{"requestPut": {"key": key, "value": key}}]})
        connection = http.client.HTTPConnection(LOOPBACK, member.port, timeout=TIMEOUT_S)
        times = []
        try:
            for _ in range(TRANSACTION_ROUNDS):
                started = time.perf_counter()
                connection.request("POST", "/v3/kv/txn", body)
                answer = json.loads(connection.getresponse().read())
                times.append(time.perf_counter() - started)
                assert answer.get("succeeded"), answer
        finally:
            connection.close()
        return statistics.median(times) * 1e6


@contextmanager
def running_stage() -> Iterator[Stage]:
    """Yield a new cluster with the topic for failovers. Raises OperatorNeeded without etcd."""
    with (
        tempfile.TemporaryDirectory(prefix="planaria-bench-") as directory,
        LocalCluster(Path(directory), NODES, members=3) as cluster,
    ):
        stage = Stage(cluster)
        with stage.connected() as client:
            _until(ClusterAdmin.over(client), _is_complete)
            client.create_topic(FAILOVER_TOPIC, PARTITIONS, replication_factor=NODES)
            stage.settle(client)
        yield stage


def led_by(found: ClusterStatusReply, node: str) -> list[int]:
    """Return the partitions of the topic for failovers that a node leads."""
    return [
        each.partition for each in found.partitions if each.topic == FAILOVER_TOPIC and each.leader == node
    ]


def await_true(holds: Callable[[], bool]) -> None:
    """Raises TimeoutError if it does not hold in time."""
    ends_at = time.monotonic() + TIMEOUT_S
    while not holds():
        if time.monotonic() >= ends_at:
            raise TimeoutError(f"the cluster was not whole after {TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)


def _until(operator: ClusterAdmin, holds: Callable[[ClusterStatusReply], bool]) -> ClusterStatusReply:
    last: list[ClusterStatusReply] = []

    def is_so() -> bool:
        with suppress(PlanariaError):
            last[:] = [operator.status()]
            return holds(last[0])
        return False

    await_true(is_so)
    return last[0]


def _is_complete(found: ClusterStatusReply) -> bool:
    return sum(node.state == "alive" for node in found.nodes) == NODES and found.leading is not None


def _is_whole(found: ClusterStatusReply) -> bool:
    return _is_complete(found) and not any(each.under_replicated or each.offline for each in found.partitions)


def _is_led_by_first(partition: PartitionReport) -> bool:
    return partition.leader == partition.replicas[0]
