"""The rows of the bench: each starts a broker of its own on fresh data, does one thing, and returns one figure.

Messages have 100-byte values and no key; topics have the default flush policy, so every acknowledgement is durable.
"""

import multiprocessing
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from ...transport.addresses import Address, partition_address
from ...transport.client.client import Client
from ...transport.client.errors import Closed
from ...transport.client.producer import Producer
from ...transport.client.transactional import TransactionalProducer
from ..broker import EMBEDDED_ENDPOINT, Broker
from .ceilings import Ceilings

VALUE = b"v" * 100
TOPIC = "BENCH"
POLL_MESSAGES = 10_000
WARM_UP_ROUNDS = 500
"""Single messages before the measured ones: the broker's other actors have started then, and Python has specialised its
code."""
TRANSACTION_MESSAGES = 1_000
TRANSACTION_PRODUCERS = 32
LOAD_S = 1.2
"""Load between two kills: long enough for a restarted actor to count as stable again (`backoff_reset_ms`)."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure with its target and the ceiling that bounds it."""

    name: str
    figure: float
    unit: str
    bar: float
    is_higher_better: bool
    ceiling: float | None = None
    """The machine's own limit in the same unit."""
    median: float | None = None
    """The median of a row whose figure is a 99th percentile; `longest` is the maximum."""
    longest: float | None = None
    detail: str = ""

    @property
    def is_reached(self) -> bool:
        return self.figure >= self.bar if self.is_higher_better else self.figure <= self.bar


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Workload of each row."""

    messages: int = 3_000_000
    rounds: int = 500
    kills: int = 40
    partitions: int = 200


QUICK = Scale(messages=500_000, rounds=100, kills=10, partitions=50)


@contextmanager
def fresh_broker(partitions: int = 1, **settings: Any) -> Iterator[Broker]:
    with (
        tempfile.TemporaryDirectory(prefix="planaria-bench-") as directory,
        Broker(Path(directory) / "data", endpoint=EMBEDDED_ENDPOINT, log_level="error", **settings) as broker,
    ):
        broker.create_topic(TOPIC, partitions)
        yield broker


def publish_row(scale: Scale, ceilings: Ceilings) -> Row:
    """Measure `producer.publish()`, one call per message, until the last one is acknowledged."""
    with fresh_broker() as broker:
        _publish(broker, scale.messages // 10)
        rate = _publish(broker, scale.messages)
    return Row(
        name="publish, one call a message, to acknowledged",
        figure=rate,
        unit="messages/s",
        bar=2_000_000,
        is_higher_better=True,
        ceiling=ceilings.zmq_stream_mb_s * 1e6 / (len(VALUE) + 8),
        detail="1 partition, fdatasync before each acknowledgement",
    )


def transactions_row(scale: Scale, _: Ceilings) -> Row:
    """Measure transactions of TRANSACTION_MESSAGES, by concurrent producers, against plain publishing."""
    rounds = max(1, scale.messages // 2 // TRANSACTION_MESSAGES // TRANSACTION_PRODUCERS)
    with fresh_broker() as broker:
        plain = max(_publish(broker, scale.messages // 5) for _ in range(2))
        rate, alone = in_transactions(broker, rounds)
    return Row(
        name=f"publish in transactions of {TRANSACTION_MESSAGES}",
        figure=rate,
        unit="messages/s",
        bar=0.6 * plain,
        is_higher_better=True,
        ceiling=plain,
        detail=f"{TRANSACTION_PRODUCERS} producers; one alone {alone / 1e6:.2f} M/s; bar: 0.6 of plain publishing,"
        " the ceiling here",
    )


def consume_row(scale: Scale, ceilings: Ceilings) -> Row:
    """Measure `Message` objects returned by `poll`."""
    with fresh_broker() as broker:
        _publish(broker, scale.messages)
        with broker.consumer(None, [TOPIC], auto_offset_reset="earliest") as consumer:
            left = scale.messages
            started = time.perf_counter()
            while left > 0:
                left -= len(consumer.poll(1.0, max_messages=POLL_MESSAGES))
            took_s = time.perf_counter() - started
    return Row(
        name="consume, Message objects",
        figure=scale.messages / took_s,
        unit="messages/s",
        bar=2_000_000,
        is_higher_better=True,
        ceiling=ceilings.zmq_stream_mb_s * 1e6 / (len(VALUE) + 8),
    )


def both_row(scale: Scale, ceilings: Ceilings) -> Row:
    """Measure a producer in this process, the broker in its own, a consumer in a third, concurrently."""
    with fresh_broker() as broker:
        ours, theirs = multiprocessing.Pipe()
        reader = multiprocessing.get_context("spawn").Process(
            target=_consume_all, args=(theirs, broker.endpoint, scale.messages), daemon=True
        )
        reader.start()
        ours.recv()
        started = time.perf_counter()
        _publish(broker, scale.messages)
        finished: float = ours.recv()
        took_s = finished - started
        reader.join()
    return Row(
        name="publish and consume at once, end to end",
        figure=scale.messages / took_s,
        unit="messages/s",
        bar=1_000_000,
        is_higher_better=True,
        ceiling=ceilings.zmq_stream_mb_s * 1e6 / (len(VALUE) + 8) / 2,
        detail="three processes",
    )


def latency_row(scale: Scale, ceilings: Ceilings) -> Row:
    """Measure one publish, waiting for its acknowledgement."""
    with fresh_broker() as broker, broker.producer(linger_ms=0) as producer:
        for _ in range(WARM_UP_ROUNDS):
            producer.publish(TOPIC, VALUE).result(5)
        times = []
        for _ in range(scale.rounds * 4):
            started = time.perf_counter()
            producer.publish(TOPIC, VALUE).result(5)
            times.append(time.perf_counter() - started)
    times.sort()
    return Row(
        name="one publish to its acknowledgement, median",
        figure=statistics.median(times) * 1e6,
        unit="us",
        bar=1.25 * ceilings.durable_echo_us,
        is_higher_better=False,
        ceiling=ceilings.durable_echo_us,
        detail=f"p99 {times[int(len(times) * 0.99)] * 1e6:.0f} us; bar: 1.25 of the ceiling,"
        " an echo that syncs before it answers",
    )


def recovery_row(scale: Scale, _: Ceilings) -> Row:
    """Measure the time from SIGKILL of a partition under load to the next acknowledgement."""
    gaps: list[float] = []
    with (
        fresh_broker(restart_intensity=scale.kills * 2) as broker,
        broker.producer(linger_ms=1) as producer,
    ):
        producer.publish(TOPIC, VALUE).result(10)
        for _kill in range(scale.kills):
            pid = _pid_of(broker, partition_address(TOPIC, 0))
            os.kill(pid, signal.SIGKILL)
            started = time.perf_counter()
            producer.publish(TOPIC, VALUE).result(30)
            gaps.append(time.perf_counter() - started)
            _load(producer)
    gaps.sort()
    return Row(
        name="SIGKILL of a partition to the next acknowledgement, p99",
        figure=gaps[min(len(gaps) - 1, int(len(gaps) * 0.99))] * 1e3,
        unit="ms",
        bar=150,
        is_higher_better=False,
        detail=f"{scale.kills} kills, median {statistics.median(gaps) * 1e3:.0f} ms",
    )


def share_row(scale: Scale, _: Ceilings) -> Row:
    """Measure a share group: acquired, fetched, decoded, accepted; each accept durable before it is answered."""
    messages = scale.messages // 10
    with fresh_broker() as broker:
        _publish(broker, messages)
        with broker.share_consumer("bench", [TOPIC]) as consumer:
            consumer.acknowledge(consumer.poll(10.0, max_messages=1_000))  # the group exists from here on
            left = messages - 1_000
            started = time.perf_counter()
            while left > 0:
                found = consumer.poll(5.0, max_messages=1_000)
                consumer.acknowledge(found)
                left -= len(found)
            consumer.flush()
            took_s = time.perf_counter() - started
    return Row(
        name="share group, accepted messages",
        figure=(messages - 1_000) / took_s,
        unit="messages/s",
        bar=50_000,
        is_higher_better=True,
        detail="1 partition, 1 member, locked and accepted durably",
    )


def start_row(scale: Scale, _: Ceilings) -> Row:
    """Measure the time until a broker serves the many partitions in its data directory."""
    with tempfile.TemporaryDirectory(prefix="planaria-bench-") as directory:
        data = Path(directory) / "data"
        with Broker(data, endpoint=EMBEDDED_ENDPOINT, log_level="error") as broker:
            broker.create_topic(TOPIC, scale.partitions)
        started = time.perf_counter()
        with Broker(data, endpoint=EMBEDDED_ENDPOINT, log_level="error") as broker:
            _wait_until_ready(broker)
            took_s = time.perf_counter() - started
    return Row(
        name=f"start with {scale.partitions} partitions",
        figure=took_s,
        unit="s",
        bar=4 * scale.partitions / 200,
        is_higher_better=False,
    )


def memory_row(scale: Scale, _: Ceilings) -> Row:
    """Measure the private memory of an idle actor among many."""
    with fresh_broker(scale.partitions) as broker:
        _wait_until_ready(broker)
        time.sleep(1.0)  # the supervisor measures one process after the other
        actors = broker.status().actors
    largest = max(actors, key=lambda actor: actor.memory_bytes)
    return Row(
        name=f"memory of its own an actor, {len(actors)} actors",
        figure=statistics.mean(actor.memory_bytes for actor in actors) / 1e6,
        unit="MB",
        bar=12,
        is_higher_better=False,
        detail=f"the largest: {largest.address}, {largest.memory_bytes / 1e6:.1f} MB",
    )


ROWS: dict[str, Callable[[Scale, Ceilings], Row]] = {
    "publish": publish_row,
    "transactions": transactions_row,
    "consume": consume_row,
    "both": both_row,
    "latency": latency_row,
    "recovery": recovery_row,
    "share": share_row,
    "start": start_row,
    "memory": memory_row,
}


def _publish(broker: Broker, messages: int) -> float:
    """Return the messages per second from the first call to the last acknowledgement."""
    with broker.producer() as producer:
        publish = producer.publish
        started = time.perf_counter()
        for _ in range(messages):
            publish(TOPIC, VALUE)
        producer.flush()
        return messages / (time.perf_counter() - started)


def in_transactions(broker: Broker, rounds: int) -> tuple[float, float]:
    """Return the messages per second of TRANSACTION_PRODUCERS producers, and of one alone."""
    with ExitStack() as stack:
        producers = [
            stack.enter_context(broker.producer(transactional_id=f"bench-{number}"))
            for number in range(TRANSACTION_PRODUCERS)
        ]
        _run_transactions(producers, 2)  # from here on the coordinators exist and hold all the producers
        alone = _run_transactions(producers[:1], 4 * rounds)
        return _run_transactions(producers, rounds), alone


def _run_transactions(producers: list[TransactionalProducer], rounds: int) -> float:
    """Return the messages per second of all producers together, each in a thread of its own."""

    def run(producer: TransactionalProducer) -> None:
        with suppress(Closed):  # the bench was interrupted
            for _ in range(rounds):
                with producer.transaction() as tx:
                    publish = tx.publish
                    for _ in range(TRANSACTION_MESSAGES):
                        publish(TOPIC, VALUE)

    threads = [threading.Thread(target=run, args=(producer,)) for producer in producers]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(producers) * rounds * TRANSACTION_MESSAGES / (time.perf_counter() - started)


def _consume_all(pipe: Connection, endpoint: str, messages: int) -> None:
    with (
        Client(endpoint) as client,
        client.consumer(None, [TOPIC], auto_offset_reset="earliest") as consumer,
    ):
        consumer.poll(0.0)
        pipe.send(True)
        while messages > 0:
            messages -= len(consumer.poll(5.0, max_messages=POLL_MESSAGES))
        pipe.send(time.perf_counter())


def _load(producer: Producer) -> None:
    until = time.perf_counter() + LOAD_S
    while time.perf_counter() < until:
        producer.publish(TOPIC, VALUE).result(10)


def _wait_until_ready(broker: Broker) -> None:
    """Wait for all actors: a broker serves before the last of them is up."""
    while any(actor.state != "ready" for actor in broker.status().actors):
        time.sleep(0.01)


def _pid_of(broker: Broker, address: Address) -> int:
    pid = next(actor.pid for actor in broker.status().actors if actor.address == address)
    assert pid is not None
    return pid
