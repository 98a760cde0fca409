"""Rows of the bench for mirrors: how fast a topic is copied, how far a copy is behind, and how long a promotion takes.

Source and copy are two brokers on this machine, so both share its cores.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...transport.client.client import Client
from ..broker import EMBEDDED_ENDPOINT, Broker
from .ceilings import Ceilings
from .rows import TOPIC, VALUE, Row, Scale

COPY_BAR = 300_000
LAG_BAR_MS = 1_000.0
PROMOTION_BAR_MS = 5_000.0
RATE = 50_000
"""Messages a second, at which the lag is measured."""
BURST = 500
LAG_S = 10.0
PROMOTIONS = 5
TIMEOUT_S = 120.0
POLL_S = 0.005


def copy_row(scale: Scale, ceilings: Ceilings) -> Row:
    """Measure a copy that begins when the source is full, to the last message."""
    messages = scale.messages // 3
    with linked() as (source, here):
        _publish(source, messages)
        began = time.perf_counter()
        here.create_mirror("bench", TOPIC, source=source.endpoint)
        _wait_for(here.client, messages)
        rate = messages / (time.perf_counter() - began)
    return Row(
        name="mirror: copy a topic that is full",
        figure=rate,
        unit="messages/s",
        bar=COPY_BAR,
        is_higher_better=True,
        ceiling=ceilings.zmq_stream_mb_s * 1e6 / (len(VALUE) + 8),
        detail="1 partition, fdatasync before each acknowledgement",
    )


def lag_row(scale: Scale, ceilings: Ceilings) -> Row:
    """Measure the age of the oldest message that is not copied yet, while messages are published at a rate."""
    duration_s = LAG_S if scale.messages > 1_000_000 else LAG_S / 5
    times: list[float] = []
    lags_ms: list[float] = []
    with linked() as (source, here), source.producer() as producer:
        here.create_mirror("bench", TOPIC, source=source.endpoint)
        producer.publish(TOPIC, VALUE)
        producer.flush()
        times.append(time.perf_counter())
        _wait_for(here.client, 1)
        began = time.perf_counter()
        for burst in range(int(duration_s * RATE / BURST)):
            times += [time.perf_counter()] * BURST
            for _ in range(BURST):
                producer.publish(TOPIC, VALUE)
            copied = here.client.list_offsets(TOPIC, 0, "latest").offset
            now = time.perf_counter()
            lags_ms.append((now - times[copied]) * 1e3 if copied < len(times) else 0.0)
            # A pace, not a wait.
            time.sleep(max(0.0, began + (burst + 1) * BURST / RATE - now))
        took_s = time.perf_counter() - began
    lags_ms.sort()
    return Row(
        name=f"mirror: age of the oldest message not copied, at {RATE:,} messages/s, 99th percentile",
        figure=lags_ms[int(0.99 * (len(lags_ms) - 1))],
        unit="ms",
        bar=LAG_BAR_MS,
        is_higher_better=False,
        median=statistics.median(lags_ms),
        ceiling=ceilings.durable_echo_us / 1e3,
        longest=lags_ms[-1],
        detail=f"published at {(len(times) - 1) / took_s:,.0f} messages/s; the ceiling is one echo that syncs",
    )


def promotion_row(scale: Scale, ceilings: Ceilings) -> Row:
    """Measure a promotion, from the command to the next acknowledgement of a producer with the endpoints of both sites.

    The source has ended before.
    """
    times_ms: list[float] = []
    for _ in range(PROMOTIONS if scale.kills > 10 else 2):
        with linked() as (source, here):
            _publish(source, 1_000)
            here.create_mirror("bench", TOPIC, source=source.endpoint)
            _wait_for(here.client, 1_000)
            with Client([source.endpoint, here.endpoint]) as client, client.producer() as producer:
                producer.publish(TOPIC, VALUE).result(TIMEOUT_S)
                _wait_for(here.client, 1_001)
                source.close()
                began = time.perf_counter()
                here.promote_mirror("bench")
                producer.publish(TOPIC, VALUE).result(TIMEOUT_S)
                times_ms.append((time.perf_counter() - began) * 1e3)
    return Row(
        name="mirror: promotion, to the next acknowledgement of a client of both sites",
        figure=statistics.median(times_ms),
        unit="ms",
        bar=PROMOTION_BAR_MS,
        is_higher_better=False,
        ceiling=ceilings.durable_echo_us / 1e3,
        longest=max(times_ms),
        detail=f"median of {len(times_ms)}; the ceiling is one echo that syncs",
    )


@contextmanager
def linked() -> Iterator[tuple[Broker, Broker]]:
    """Run a source with a topic, and the broker that is to copy it."""
    with (
        tempfile.TemporaryDirectory(prefix="planaria-bench-") as directory,
        Broker(Path(directory) / "source", endpoint=EMBEDDED_ENDPOINT, log_level="error") as source,
        Broker(Path(directory) / "here", endpoint=EMBEDDED_ENDPOINT, log_level="error") as here,
    ):
        source.create_topic(TOPIC, 1)
        yield source, here


def _publish(broker: Broker, messages: int) -> None:
    with broker.producer() as producer:
        for _ in range(messages):
            producer.publish(TOPIC, VALUE)
        producer.flush()


def _wait_for(client: Client, end_offset: int) -> None:
    """Wait until the copy has this end. Raises TimeoutError."""
    ends_at = time.monotonic() + TIMEOUT_S
    while time.monotonic() < ends_at:
        if client.list_topics() and client.list_offsets(TOPIC, 0, "latest").offset >= end_offset:
            return
        time.sleep(POLL_S)
    raise TimeoutError(f"the copy is not complete after {TIMEOUT_S:.0f} s")


MIRROR_ROWS: dict[str, Callable[[Scale, Ceilings], Row]] = {
    "mirror-copy": copy_row,
    "mirror-lag": lag_row,
    "mirror-promotion": promotion_row,
}
