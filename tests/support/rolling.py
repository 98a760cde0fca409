"""Nodes of a cluster that are stopped and started one after another, and the clients meanwhile.

Used by the tests of a rolling restart, of a rolling upgrade and of frozen nodes.
"""

import threading
import time
from contextlib import suppress

from cluster_nodes import ClusterNodes, Node
from patience import TIMEOUT_S, wait_until
from planaria import Client
from planaria.transport.client.cluster_admin import ClusterAdmin
from planaria.transport.protocol.cluster import ClusterStatusReply
from planaria.transport.protocol.errors import PlanariaError
from syncing_echo import SyncingEcho

TOPIC = "ROLLED"
PARTITIONS = 3
LONGEST_MS = 500
"""The longest wait for an acknowledgement while a node that is not needed stops and starts."""
ECHOES = 10
"""On a machine that is so busy that this many of its own slowest echoes take longer, they are the limit."""
PACE_S = 0.03
"""Pause between two messages, each of which costs publishing and committing on three nodes."""


def endpoints(cluster: ClusterNodes) -> list[str]:
    return [node.endpoint for node in cluster.nodes]


class Load:
    """One producer, one message at a time, each acknowledged by all; one member of a group that commits."""

    def __init__(self, cluster: ClusterNodes, topic: str = TOPIC) -> None:
        self._endpoints = endpoints(cluster)
        self._topic = topic
        self._is_over = threading.Event()
        self.errors: list[PlanariaError] = []
        self.published = 0
        self.consumed: list[int] = []
        self.longest_s = 0.0
        self._threads = [
            threading.Thread(target=self._run, args=(work,)) for work in (self._publish, self._consume)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(2 * TIMEOUT_S)

    def take_longest_ms(self) -> float:
        """Return the longest wait since the last call, including that for the message in flight."""
        published = self.published
        wait_until(lambda: self.published > published + 1)
        longest, self.longest_s = self.longest_s, 0.0
        return longest * 1_000

    def _run(self, work: object) -> None:
        assert callable(work)
        try:
            with Client(self._endpoints) as client:
                work(client)
        except PlanariaError as error:
            self.errors.append(error)

    def _publish(self, client: Client) -> None:
        with client.producer(delivery_timeout_ms=int(TIMEOUT_S * 1_000)) as producer:
            while not self._is_over.is_set():
                began = time.monotonic()
                producer.publish(
                    self._topic, b"%d" % self.published, partition=self.published % PARTITIONS
                ).result()
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                self.published += 1
                time.sleep(PACE_S)

    def _consume(self, client: Client) -> None:
        with client.consumer(f"of-{self._topic}", [self._topic], auto_offset_reset="earliest") as consumer:
            while not self._is_over.is_set() or len(set(self.consumed)) < self.published:
                self.consumed += [int(bytes(message.value)) for message in consumer.poll(1)]
                consumer.commit()


def check_longest(load: Load, echo: SyncingEcho, what: str) -> None:
    """No acknowledgement has waited for too long since the last call."""
    longest_ms, echo_ms = load.take_longest_ms(), echo.take_longest_ms()
    print(
        f"longest wait for an acknowledgement, {what}: {longest_ms:.0f} ms; for an echo that syncs: {echo_ms:.0f} ms"
    )
    assert longest_ms <= max(LONGEST_MS, ECHOES * echo_ms), what


def seen(cluster: ClusterNodes) -> ClusterStatusReply:
    return ClusterAdmin.over(cluster.client).status()


def is_whole(cluster: ClusterNodes) -> bool:
    with suppress(PlanariaError):
        found = seen(cluster)
        alive = [node for node in found.nodes if node.state == "alive" and not node.stopping]
        return len(alive) == 3 and not any(each.under_replicated or each.offline for each in found.partitions)
    return False


def stopped(cluster: ClusterNodes, node: Node) -> int:
    """Stop a node once it may; on a busy machine another one may be suspected for a moment. Return its exit code."""
    while (code := ended_or_refused(cluster, node)) is None:
        pass
    return code


def ended_or_refused(cluster: ClusterNodes, node: Node) -> int | None:
    """Ask a node to stop when it may; return its exit code, or None if it refused."""
    process = node.process
    assert process is not None
    wait_until(lambda: is_whole(cluster) and not seen_by(node, node.name))
    refusals = node.status().count("stop refused")
    node.terminate()
    wait_until(lambda: process.poll() is not None or node.status().count("stop refused") > refusals)
    return process.returncode


def roll(cluster: ClusterNodes, node: Node) -> None:
    assert stopped(cluster, node) == 0, node.status()[-2_000:]
    wait_until(lambda: all(each.leader not in (None, node.name) for each in seen(cluster).partitions))
    node.start()
    cluster.wait_until_serving(node)
    wait_until(lambda: is_whole(cluster))


def seen_by(node: Node, name: str) -> str:
    """Return the reason why the node of this name may not stop."""
    with suppress(PlanariaError), Client(node.endpoint) as client:
        return {each.node: each.stop_refusal for each in ClusterAdmin.over(client).status().nodes}[name]
    return ""


def check_all(cluster: ClusterNodes, count: int, topic: str = TOPIC) -> None:
    """Read the topic: it has these numbers, each once."""
    with Client(endpoints(cluster)) as client:
        partitions = [(topic, number) for number in range(PARTITIONS)]
        found: list[int] = []
        with client.consumer(partitions=partitions, auto_offset_reset="earliest") as consumer:
            while len(found) < count:
                messages = consumer.poll(TIMEOUT_S)
                assert messages, (len(found), count)
                found += [int(bytes(message.value)) for message in messages]
    assert sorted(found) == list(range(count))
