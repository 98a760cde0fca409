"""Rows of the bench for one message at a time: latencies, and loops that wait for each message."""

import asyncio
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from ...transport.aio import connect
from ..broker import Broker
from .ceilings import Ceilings
from .rows import TOPIC, Row, Scale, fresh_broker

VALUE = b"v" * 100
PACE_PER_S = 5_000
TASKS = 100


def paced_row(linger_ms: int | None, bar_ms: float) -> Callable[[Scale, Ceilings], Row]:
    """Return the row that measures the time from publish to a consumer at PACE_PER_S messages a second."""

    def measure(scale: Scale, _: Ceilings) -> Row:
        messages = scale.rounds * 20
        times_ms: list[float] = []
        with (
            fresh_broker() as broker,
            broker.consumer(None, [TOPIC], auto_offset_reset="earliest") as consumer,
        ):
            consumer.poll(0)
            sent: list[float] = []
            publisher = threading.Thread(target=_publish_paced, args=(broker, sent, messages, linger_ms))
            publisher.start()
            while len(times_ms) < messages:
                found = consumer.poll(5.0)
                now = time.perf_counter()
                times_ms += [(now - sent[message.offset]) * 1e3 for message in found]
            publisher.join()
        times_ms = sorted(times_ms[len(times_ms) // 10 :])
        setting = "default linger" if linger_ms is None else f"linger_ms={linger_ms}"
        return Row(
            name=f"publish to consumer at {PACE_PER_S:,}/s, {setting}, median",
            figure=statistics.median(times_ms),
            unit="ms",
            bar=bar_ms,
            is_higher_better=False,
            detail=f"p99 {times_ms[int(len(times_ms) * 0.99)]:.1f} ms; producer and consumer in one program",
        )

    return measure


def _publish_paced(broker: Broker, sent: list[float], messages: int, linger_ms: int | None) -> None:
    options: Any = {} if linger_ms is None else {"linger_ms": linger_ms}
    with broker.producer(**options) as producer:
        began = time.perf_counter()
        for number in range(messages):
            due = began + number / PACE_PER_S
            while (now := time.perf_counter()) < due:
                time.sleep(min(due - now, 0.001))
            sent.append(time.perf_counter())
            producer.publish(TOPIC, VALUE)


def commit_each_row(scale: Scale, _: Ceilings) -> Row:
    """Measure a consumer that commits after each message."""
    messages = scale.rounds * 4
    with fresh_broker() as broker:
        _fill(broker, messages)
        with broker.consumer("bench", [TOPIC], auto_offset_reset="earliest", auto_commit=False) as consumer:
            first = consumer.poll(10.0, max_messages=1)
            consumer.commit(first[0])
            rate = _rate(messages - 1, lambda: consumer.commit(consumer.poll(5.0, max_messages=1)[0]))
    return Row(
        name="consume and commit each message",
        figure=rate,
        unit="per second",
        bar=3_000,
        is_higher_better=True,
    )


def queue_one_row(scale: Scale, _: Ceilings) -> Row:
    """Measure a work queue: one message acquired, then accepted."""
    messages = scale.rounds * 4
    with fresh_broker() as broker:
        _fill(broker, messages)
        with broker.share_consumer("bench", [TOPIC]) as consumer:

            def work() -> None:
                consumer.acknowledge(consumer.poll(10.0, max_messages=1))
                consumer.flush()

            work()
            rate = _rate(messages - 1, work)
    return Row(
        name="work queue: acquire one, acknowledge it",
        figure=rate,
        unit="per second",
        bar=2_500,
        is_higher_better=True,
    )


def queue_each_row(scale: Scale, _: Ceilings) -> Row:
    """Measure a work queue: up to 100 messages acquired, each acknowledged by a call of its own."""
    messages = scale.messages // 20
    with fresh_broker() as broker:
        _fill(broker, messages)
        with broker.share_consumer("bench", [TOPIC]) as consumer:
            left = messages
            for message in consumer.poll(10.0, max_messages=100):
                message.accept()
                left -= 1
            began, measured = time.perf_counter(), left
            while left > 0:
                for message in consumer.poll(5.0, max_messages=100):
                    message.accept()
                    left -= 1
            consumer.flush()
            rate = measured / (time.perf_counter() - began)
    return Row(
        name="work queue: acquire up to 100, acknowledge each",
        figure=rate,
        unit="per second",
        bar=120_000,
        is_higher_better=True,
    )


def tasks_row(scale: Scale, _: Ceilings) -> Row:
    """Measure awaited publishes of TASKS tasks on one loop, against as many threads."""
    each = max(1, scale.rounds // 2)
    with fresh_broker() as broker:
        with broker.producer(linger_ms=0) as producer:

            def publish() -> None:
                for _ in range(each):
                    producer.publish(TOPIC, VALUE).result()

            threads = [threading.Thread(target=publish) for _ in range(TASKS)]
            began = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            threaded = TASKS * each / (time.perf_counter() - began)
        rate = asyncio.run(_publish_in_tasks(broker, each))
    return Row(
        name=f"asyncio: awaited publishes of {TASKS} tasks",
        figure=rate,
        unit="per second",
        bar=0.7 * threaded,
        is_higher_better=True,
        ceiling=threaded,
        detail=f"bar: 0.7 of {TASKS} threads, the ceiling here",
    )


async def _publish_in_tasks(broker: Broker, each: int) -> float:
    async with connect(broker.endpoint) as client:
        await client.publish(TOPIC, VALUE)

        async def publish() -> None:
            for _ in range(each):
                await client.publish(TOPIC, VALUE)

        began = time.perf_counter()
        await asyncio.gather(*(publish() for _ in range(TASKS)))
        return TASKS * each / (time.perf_counter() - began)


def nowait_row(scale: Scale, _: Ceilings) -> Row:
    """Measure `publish_nowait`, one call a message, and asynchronous consuming, against the client for threads."""
    messages = scale.messages // 5
    with fresh_broker() as broker:
        plain = max(_fill(broker, messages) for _ in range(2))
        rate, read = asyncio.run(_publish_nowait(broker, messages))
        with broker.consumer(None, [TOPIC], auto_offset_reset="earliest") as consumer:
            left, began = messages, time.perf_counter()
            while left > 0:
                left -= len(consumer.poll(5.0, max_messages=500))
            plain_read = messages / (time.perf_counter() - began)
    return Row(
        name="asyncio: publish_nowait, to acknowledged",
        figure=rate,
        unit="messages/s",
        bar=0.8 * plain,
        is_higher_better=True,
        ceiling=plain,
        detail=f"ceiling: the client for threads; consuming {read / 1e6:.2f} M/s, threads {plain_read / 1e6:.2f} M/s",
    )


async def _publish_nowait(broker: Broker, messages: int) -> tuple[float, float]:
    async with connect(broker.endpoint) as client:
        async with client.producer(buffer_bytes=1 << 30) as producer:
            await producer.publish(TOPIC, VALUE)
            began = time.perf_counter()
            for _ in range(messages):
                producer.publish_nowait(TOPIC, VALUE)
            await producer.flush()
            rate = messages / (time.perf_counter() - began)
        async with client.consumer(None, [TOPIC], auto_offset_reset="earliest") as consumer:
            left, began = messages, time.perf_counter()
            while left > 0:
                left -= len(await consumer.poll(5.0))
            return rate, messages / (time.perf_counter() - began)


def _fill(broker: Broker, messages: int) -> float:
    with broker.producer() as producer:
        began = time.perf_counter()
        for _ in range(messages):
            producer.publish(TOPIC, VALUE)
        producer.flush()
        return messages / (time.perf_counter() - began)


def _rate(times: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return times / (time.perf_counter() - began)


SINGLE_ROWS: dict[str, Callable[[Scale, Ceilings], Row]] = {
    "paced": paced_row(None, 1.2),
    "paced-0": paced_row(0, 0.9),
    "commit-each": commit_each_row,
    "queue-one": queue_one_row,
    "queue-each": queue_each_row,
    "aio-tasks": tasks_row,
    "aio-nowait": nowait_row,
}
