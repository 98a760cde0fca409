"""Rows of `planaria bench --cluster`: publishing with three replicas, as a ratio of publishing with one.

Both topics are led by the same node, to which the client is connected, and are measured in turns. All nodes and the
members of etcd run on this machine, so three replicas share its processors and its disk.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...transport.client.client import Client
from ...transport.client.cluster_admin import ClusterAdmin
from ...transport.client.producer import Producer
from ...transport.protocol.cluster import PartitionMove
from .cluster_stage import Stage
from .rows import VALUE, Row, Scale

ROUNDS = 3
BLOCK = 25
"""Publishes to one topic before the other one has its turn."""
WARM_UP = 50


def throughput_row(stage: Stage, scale: Scale) -> Row:
    messages = scale.messages // 10
    with two_topics(stage) as (client, one, three):
        rates: dict[str, list[float]] = {one: [], three: []}
        for _ in range(ROUNDS):
            for topic in (one, three):
                rates[topic].append(_publish(client, topic, messages))
    best = {topic: max(found) for topic, found in rates.items()}
    return Row(
        name="publishing with three replicas, of the rate with one",
        figure=best[three] / best[one],
        unit="x",
        bar=0.3,
        is_higher_better=True,
        detail=f"{best[three] / 1e6:.2f} and {best[one] / 1e6:.2f} M/s, 1 partition, acks=all, best of {ROUNDS}",
    )


def latency_row(stage: Stage, scale: Scale) -> Row:
    with two_topics(stage) as (client, one, three), client.producer(linger_ms=0) as producer:
        times: dict[str, list[float]] = {one: [], three: []}
        for topic in times:
            _lone(producer, topic, WARM_UP)
        while len(times[three]) < scale.rounds:
            for topic in times:
                times[topic] += _lone(producer, topic, BLOCK)
    median = {topic: statistics.median(found) * 1e6 for topic, found in times.items()}
    least = {topic: min(found) * 1e6 for topic, found in times.items()}
    return Row(
        name="one publish with three replicas, of the time with one, median",
        figure=median[three] / median[one],
        unit="x",
        bar=2,
        is_higher_better=False,
        detail=f"{median[three]:.0f} and {median[one]:.0f} us; least {least[three]:.0f} and {least[one]:.0f} us",
    )


@contextmanager
def two_topics(stage: Stage) -> Iterator[tuple[Client, str, str]]:
    """Yield a client of the node that leads both topics: one with one replica, one with three."""
    names = ("ONE", "THREE")
    first, *others = (node.name for node in stage.cluster.nodes)
    with Client(stage.cluster.endpoints[0]) as client:
        placed = dict(zip(names, ([first], [first, *others]), strict=True))
        for topic, replicas in placed.items():
            client.create_topic(topic, 1, replication_factor=len(replicas))
            stage.settle(client)
            ClusterAdmin.over(client).reassign([PartitionMove(topic=topic, partition=0, replicas=replicas)])
        stage.settle(client, placed)
        yield client, *names
        for topic in names:
            client.delete_topic(topic)


def _publish(client: Client, topic: str, messages: int) -> float:
    """Return the messages per second from the first call to the last acknowledgement."""
    with client.producer() as producer:
        publish = producer.publish
        started = time.perf_counter()
        for _ in range(messages):
            publish(topic, VALUE)
        producer.flush()
        return messages / (time.perf_counter() - started)


def _lone(producer: Producer, topic: str, count: int) -> list[float]:
    times = []
    for _ in range(count):
        started = time.perf_counter()
        producer.publish(topic, VALUE).result(30)
        times.append(time.perf_counter() - started)
    return times


REPLICATION_ROWS: dict[str, Callable[[Stage, Scale], Row]] = {
    "replicated-publish": throughput_row,
    "replicated-latency": latency_row,
}
