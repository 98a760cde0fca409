"""Timeouts that a program may set: seconds, forever as None or infinity, and no wrong waits."""

import math
from collections.abc import Callable

import pytest

from fake_broker import FakeBroker
from planaria.transport.client.client import Client
from planaria.transport.client.options import InvalidOption

Wait = Callable[[Client, float], object]


def publish_then_flush(client: Client, timeout: float) -> None:
    with client.producer() as producer:
        producer.publish("T", b"x")
        producer.flush(timeout)


def poll(client: Client, timeout: float) -> object:
    with client.consumer(None, ["T"], auto_offset_reset="earliest") as consumer:
        return consumer.poll(timeout)


def position(client: Client, timeout: float) -> int:
    with client.consumer(None, partitions=[("T", 0)], auto_offset_reset="earliest") as consumer:
        return consumer.position("T", 0, timeout)


WAITS: list[Wait] = [
    lambda client, timeout: client.publish("T", b"x", timeout=timeout),
    lambda client, timeout: client.producer().publish("T", b"x").result(timeout),
    lambda client, timeout: client.producer().publish("T", b"x").exception(timeout),
    lambda client, timeout: client.wait_for_broker(timeout),
    publish_then_flush,
    poll,
    position,
]


@pytest.mark.parametrize("forever", [math.inf, 1e300, 10**30])
@pytest.mark.parametrize("wait", WAITS)
def test_infinity_waits_for_what_comes(
    client: Client, broker: FakeBroker, wait: Wait, forever: float
) -> None:
    client.publish("T", b"there", partition=0)
    wait(client, forever)


@pytest.mark.parametrize("wrong", [math.nan, "1"])
@pytest.mark.parametrize(
    "wait", [*WAITS, lambda client, timeout: client.share_consumer("s", "T").poll(timeout)]
)
def test_what_is_no_number_of_seconds_is_refused(
    client: Client, broker: FakeBroker, wait: Wait, wrong: float
) -> None:
    with pytest.raises(InvalidOption, match="timeout: must be seconds"):
        wait(client, wrong)
