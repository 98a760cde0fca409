"""Messages whose time is over are left out by consumers that ask for that, and counted as read."""

import asyncio
import time
from typing import Any

import pytest

import planaria.aio
from live_trees import until
from planaria import Broker

pytestmark = pytest.mark.processes


async def on_a_loop(endpoint: str) -> list[int]:
    options: dict[str, Any] = {"auto_offset_reset": "earliest", "skip_expired": True}
    found: list[int] = []
    async with planaria.aio.connect(endpoint) as client, client.consumer(None, ["T"], **options) as consumer:
        while len(found) < 3:
            found += [message.data for message in await consumer.poll(30.0)]
    async with planaria.aio.connect(endpoint) as client, client.consumer(None, ["T"], **options) as consumer:
        async for message in consumer:
            return [*found, message.data]
    return found


def test_expired_messages_are_left_out_and_read(broker: Broker) -> None:
    client = broker.client
    client.create_topic("T", 1)
    now_ms = int(time.time() * 1000)
    past, future = str(now_ms - 1_000), str(now_ms + 3_600_000)
    for value, expires in enumerate([past, future, past, None, past, "soon"]):
        client.publish("T", value, headers=None if expires is None else {"expires-at-ms": expires})
    with client.consumer("g", ["T"], auto_offset_reset="earliest", skip_expired=True) as consumer:
        found: list[int] = []
        for message in consumer:
            found.append(message.data)
            if len(found) == 3:
                break
        assert found == [1, 3, 5]
        consumer.commit()
    assert until(lambda: client.group_offsets("g"), "the commit") == {("T", 0): 6}
    with client.consumer("h", ["T"], auto_offset_reset="earliest") as consumer:
        assert until(lambda: consumer.poll(1.0), "messages")[0].data == 0
    assert asyncio.run(on_a_loop(broker.endpoint)) == [1, 3, 5, 1]
