"""Rows of the bench by the shape of a message: key, header, JSON, size, partitions. Each publishes, then consumes.

No shape is measured because it is fast: these are the messages of real programs. The bars are a multiple of the rate that
Kafka's C client reached, with fsync, beside an earlier state of this broker (docs/performance.md).
"""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from ..broker import Broker
from .ceilings import Ceilings
from .rows import POLL_MESSAGES, TOPIC, Row, Scale, fresh_broker

VALUE = b"v" * 100
LONG_VALUE = b"v" * 1024
HEADERS = {"trace": "4bf92f3577b34da6"}
ORDER = {"id": 1042, "customer": "c-17", "items": [3, 5, 8], "price": 12.5}
LONG_ORDER = {**ORDER, "note": "n" * 950}
KEYS = [f"customer-{number}" for number in range(10_000)]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of one kind."""

    title: str
    bar: float
    """Messages per second that publishing should reach."""
    value: Any = VALUE
    has_key: bool = False
    headers: dict[str, str] | None = None
    partitions: int = 1
    size_bytes: int = 100
    partition: int | None = None
    timestamp_ms: int | None = None


PLAIN = Shape(title="no key", bar=0.0)
SHAPES: dict[str, Shape] = {
    "key": Shape(title="with a key", bar=2_200_000, has_key=True),
    "key-3": Shape(title="with a key", bar=2_200_000, has_key=True, partitions=3),
    "header": Shape(title="with a header", bar=1_600_000, headers=HEADERS),
    "json": Shape(title="a dict", bar=1_300_000, value=ORDER),
    "json-key": Shape(title="a dict with a key", bar=1_100_000, value=ORDER, has_key=True),
    "1k-key": Shape(title="1 KB with a key", bar=625_000, value=LONG_VALUE, has_key=True, size_bytes=1024),
    "1k-key-3": Shape(
        title="1 KB with a key",
        bar=400_000,
        value=LONG_VALUE,
        has_key=True,
        partitions=3,
        size_bytes=1024,
    ),
    "json-1k": Shape(title="a dict of 1 KB", bar=650_000, value=LONG_ORDER, size_bytes=1024),
}
SELDOM: dict[str, Shape] = {
    "partition": Shape(title="to a partition", bar=0.0, partition=0),
    "time": Shape(title="with a time", bar=0.0, timestamp_ms=1_800_000_000_000),
}
"""Arguments that few programs give. They have no row in the bench."""


def row_of(name: str) -> Callable[[Scale, Ceilings], Row]:
    """Return the row that measures a shape."""

    def measure(scale: Scale, ceilings: Ceilings) -> Row:
        shape = SHAPES[name]
        messages = scale.messages // (3 if shape.size_bytes == 100 else 10)
        with fresh_broker(shape.partitions) as broker:
            _publish(broker, shape, messages // 10)
            published = _publish(broker, shape, messages)
            consumed = _consume(broker, messages + messages // 10)
        plural = "s" if shape.partitions > 1 else ""
        return Row(
            name=f"publish {shape.title}, {shape.partitions} partition{plural}",
            figure=published,
            unit="messages/s",
            bar=shape.bar,
            is_higher_better=True,
            ceiling=ceilings.zmq_stream_mb_s * 1e6 / (shape.size_bytes + 8),
            detail=f"consuming them: {consumed / 1e6:.2f} M/s",
        )

    return measure


def publish_each(publish: Callable[..., Any], shape: Shape, messages: int) -> None:
    """Publish messages of a shape, one call each."""
    value, headers = shape.value, shape.headers
    if shape.has_key:
        for number in range(messages):
            publish(TOPIC, value, key=KEYS[number % len(KEYS)])
    elif headers is not None:
        for _ in range(messages):
            publish(TOPIC, value, headers=headers)
    elif shape.partition is not None:
        for _ in range(messages):
            publish(TOPIC, value, partition=shape.partition)
    elif shape.timestamp_ms is not None:
        for _ in range(messages):
            publish(TOPIC, value, timestamp_ms=shape.timestamp_ms)
    else:
        for _ in range(messages):
            publish(TOPIC, value)


def _publish(broker: Broker, shape: Shape, messages: int) -> float:
    with broker.producer() as producer:
        started = time.perf_counter()
        publish_each(producer.publish, shape, messages)
        producer.flush()
        return messages / (time.perf_counter() - started)


def _consume(broker: Broker, messages: int) -> float:
    """Return the messages per second, each with its value decoded."""
    found: Any = None
    with broker.consumer(None, [TOPIC], auto_offset_reset="earliest") as consumer:
        left = messages
        started = time.perf_counter()
        while left > 0:
            batch = consumer.poll(1.0, max_messages=POLL_MESSAGES)
            for message in batch:
                found = message.data
            left -= len(batch)
        assert found is not None
        return messages / (time.perf_counter() - started)


SHAPE_ROWS: dict[str, Callable[[Scale, Ceilings], Row]] = {name: row_of(name) for name in SHAPES}
