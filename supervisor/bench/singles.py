"""Rows of the bench for one message at a time: latencies, and loops that wait for each message."""

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from ..broker import Broker
from .ceilings import Ceilings
from .rows import TOPIC, VALUE, WARM_UP_ROUNDS, Row, Scale, fresh_broker

PACE_PER_S = 5_000


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
        fill(broker, WARM_UP_ROUNDS + messages)
        with broker.consumer("bench", [TOPIC], auto_offset_reset="earliest", auto_commit=False) as consumer:

            def work() -> None:
                consumer.commit(consumer.poll(10.0, max_messages=1)[0])

            _rate(WARM_UP_ROUNDS, work)
            rate = _rate(messages, work)
    return Row(
        name="consume and commit each message",
        figure=rate,
        unit="per second",
        bar=3_000,
        is_higher_better=True,
    )


def queue_one_row(scale: Scale, _: Ceilings) -> Row:
    """Measure a work queue: one message acquired, then accepted."""
    return _loop_of_one(scale, "work queue: acquire one, acknowledge it", 2_500, is_flushed=True)


def queue_next_row(scale: Scale, _: Ceilings) -> Row:
    """Measure a work queue: one message acquired, then accepted; the next poll does not wait for that."""
    name = "work queue: acquire one, acknowledge it, without waiting for the acknowledgement"
    return _loop_of_one(scale, name, 3_000, is_flushed=False)


def _loop_of_one(scale: Scale, name: str, bar: float, *, is_flushed: bool) -> Row:
    messages = scale.rounds * 4
    with fresh_broker() as broker:
        fill(broker, WARM_UP_ROUNDS + messages)
        with broker.share_consumer("bench", [TOPIC]) as consumer:

            def work() -> None:
                consumer.acknowledge(consumer.poll(10.0, max_messages=1))
                if is_flushed:
                    consumer.flush()

            _rate(WARM_UP_ROUNDS, work)
            rate = _rate(messages, work)
            consumer.flush()
    return Row(name=name, figure=rate, unit="per second", bar=bar, is_higher_better=True)


def queue_each_row(scale: Scale, _: Ceilings) -> Row:
    """Measure a work queue: up to 100 messages acquired, each acknowledged by a call of its own."""
    messages = scale.messages // 20
    with fresh_broker() as broker:
        fill(broker, messages)
        rate = queue_each(broker, "bench", messages)
    return Row(
        name="work queue: acquire up to 100, acknowledge each",
        figure=rate,
        unit="per second",
        bar=120_000,
        is_higher_better=True,
    )


def queue_each(broker: Broker, group: str, messages: int) -> float:
    """Return the messages per second that a member acquires and accepts."""
    with broker.share_consumer(group, [TOPIC]) as consumer:
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
        return measured / (time.perf_counter() - began)


def fill(broker: Broker, messages: int) -> float:
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
    "queue-next": queue_next_row,
    "queue-each": queue_each_row,
}
