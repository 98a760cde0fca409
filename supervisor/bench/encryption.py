"""Rows of the bench for encryption: publishing over TCP with CURVE, as a share of the same without.

Both go through the gateway: a broker with authentication has no other way, and the plain client has a quota that limits
nothing. The two brokers run side by side and take turns, so that both are measured on the same machine.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ...transport.client.client import Client
from ..broker import EMBEDDED_ENDPOINT, Broker
from ..security import initialise
from .ceilings import Ceilings
from .rows import TOPIC, VALUE, Row, Scale

BULK_BAR = 0.6
LONE_BAR = 1.2
ROUNDS = 3
CLIENT_ID = "bench"
NO_LIMIT = 10**15


def bulk_row(scale: Scale, _: Ceilings) -> Row:
    """Measure many messages, to the last acknowledgement."""
    plain: list[float] = []
    encrypted: list[float] = []
    messages = max(1, scale.messages // 5)
    with pair() as (open_client, secured_client):
        for number in range(1 + ROUNDS):
            for client, rates in ((open_client, plain), (secured_client, encrypted)):
                rate = _bulk(client, messages)
                if number:  # the first round makes the connections
                    rates.append(rate)
    before, after = statistics.median(plain), statistics.median(encrypted)
    return Row(
        name="publish over TCP with CURVE, as a share of plain",
        figure=after / before,
        unit="x",
        bar=BULK_BAR,
        is_higher_better=True,
        ceiling=1.0,
        detail=f"{after / 1e6:.2f} M/s against {before / 1e6:.2f}",
    )


def lone_row(scale: Scale, _: Ceilings) -> Row:
    """Measure one message at a time."""
    plain: list[float] = []
    encrypted: list[float] = []
    with pair() as (open_client, secured_client):
        for number in range(scale.rounds + 10):
            for client, times_us in ((open_client, plain), (secured_client, encrypted)):
                began = time.perf_counter()
                client.publish(TOPIC, VALUE)
                if number >= 10:
                    times_us.append((time.perf_counter() - began) * 1e6)
    before, after = statistics.median(plain), statistics.median(encrypted)
    return Row(
        name="one publish over TCP with CURVE, as a multiple of plain",
        figure=after / before,
        unit="x",
        bar=LONE_BAR,
        is_higher_better=False,
        ceiling=1.0,
        detail=f"{after:.0f} us against {before:.0f}, median",
    )


@contextmanager
def pair() -> Iterator[tuple[Client, Client]]:
    """Run two brokers; yield a client of the plain one and one of the one with authentication."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="planaria-bench-")))
        key = folder / "admin.key"
        initialise(folder / "secured", key)
        brokers = [
            stack.enter_context(Broker(folder / name, endpoint=EMBEDDED_ENDPOINT, log_level="error"))
            for name in ("plain", "secured")
        ]
        for broker in brokers:
            broker.create_topic(TOPIC, 1)
        brokers[0].client.set_quota(CLIENT_ID, produce_bytes=NO_LIMIT)
        yield (
            stack.enter_context(Client(brokers[0].endpoint, client_id=CLIENT_ID)),
            stack.enter_context(Client(brokers[1].endpoint, client_id=CLIENT_ID, key=key)),
        )


def _bulk(client: Client, messages: int) -> float:
    with client.producer() as producer:
        publish = producer.publish
        started = time.perf_counter()
        for _ in range(messages):
            publish(TOPIC, VALUE)
        producer.flush()
        return messages / (time.perf_counter() - started)


ENCRYPTION_ROWS: dict[str, Callable[[Scale, Ceilings], Row]] = {"curve": bulk_row, "curve-lone": lone_row}
