"""Handlers with a typed payload, plain and `async def`, in real processes."""

import asyncio

import msgspec
import pytest

from live_trees import actor, read_topic, until
from planaria import Broker, Context
from planaria.transport.dead_letters import decode

pytestmark = pytest.mark.processes


class Order(msgspec.Struct):
    amount: int


async def charge(order: Order, context: Context) -> None:
    await asyncio.sleep(0.05)
    context.publish("PAYMENTS", order.amount, key=context.message.key)


def test_values_that_do_not_fit_are_dead_letters_and_the_others_are_handled_concurrently(
    broker: Broker,
) -> None:
    for topic in ("ORDERS", "PAYMENTS", "ORDERS.dlq"):
        broker.create_topic(topic, 1)
    with broker.producer() as producer:
        for number in range(40):
            producer.publish("ORDERS", {"amount": number}, key=f"k{number}")
            producer.publish("ORDERS", {"amount": str(number)}, key=f"k{number}")
    broker.subscribe(
        "billing",
        "ORDERS",
        handler=charge,
        concurrency=20,
        dead_letter="ORDERS.dlq",
        delivery="exactly-once",
        breaker_window=0,
    )
    until(lambda: len(read_topic(broker.client, "PAYMENTS")) == 40, "all that fit are handled")
    until(lambda: len(read_topic(broker.client, "ORDERS.dlq")) == 40, "all others are dead letters")
    letters = [decode(letter.headers) for letter in read_topic(broker.client, "ORDERS.dlq")]
    assert {(letter.failures, letter.topic) for letter in letters} == {(1, "ORDERS")}
    assert "does not fit Order: Expected `int`, got `str`" in letters[0].reason
    assert not actor(broker.client, "subscriber/billing/1").restarts
