"""Exactly once on an event loop: reading, processing and publishing are one transaction, also when tasks are cancelled.

Run it:      python examples/exactly_once_async.py
You will see a task that turns orders into payments cancelled in the middle of its work, again and again, with an actor of
the broker killed each time; and at the end as many payments as orders, one for each.
"""

import asyncio
import tempfile
from contextlib import suppress

import planaria.aio
from planaria import Broker, Message, TransactionAborted, TransactionUncertain
from planaria.aio import AsyncClient

ORDERS = 200
KILLED = ("partition/PAYMENTS/0", "transactions/0", "coordinator/payments")


async def work(client: AsyncClient) -> None:
    """Read orders and publish payments, until the task is cancelled."""
    async with client.producer(transactional_id="orders-to-payments") as producer:
        await producer.claim()  # settles the transaction that the last task has left
        async with client.consumer(
            "payments", ["ORDERS"], auto_commit=False, auto_offset_reset="earliest"
        ) as consumer:
            while True:
                orders = await consumer.poll(max_messages=20)
                try:
                    async with producer.transaction() as tx:
                        for order in orders:
                            tx.publish_nowait("PAYMENTS", await pay(order), key=order.key)
                        await tx.commit_offsets(consumer)
                except (TransactionAborted, TransactionUncertain):
                    await consumer.seek_to_committed()  # read again those that were not committed


async def pay(order: Message) -> dict:
    await asyncio.sleep(0.002)
    return {"order": order.data["order"]}


async def read(client: AsyncClient, topic: str) -> list[int]:
    """Return the orders of all messages in the topic, once no new one arrives."""
    found = []
    tps = [(topic, 0), (topic, 1)]
    async with client.consumer(partitions=tps, auto_offset_reset="earliest") as reader:
        while messages := await reader.poll(2):
            found += [message.data["order"] for message in messages]
    return found


async def main(endpoint: str) -> None:
    async with planaria.aio.connect(endpoint) as client:
        await client.create_topic("ORDERS", 2)
        await client.create_topic("PAYMENTS", 2)
        for number in range(ORDERS):
            client.publish_nowait("ORDERS", {"order": number}, key=f"customer-{number % 7}")
        for victim in KILLED:
            task = asyncio.create_task(work(client))
            while "payments" not in await client.list_groups():
                await asyncio.wait([task], timeout=0.05)  # it has not joined yet
            await asyncio.sleep(0.3)
            await client.kill(victim)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            print(f"the task was cancelled, and {victim} was killed")
        task = asyncio.create_task(work(client))
        lag = {}
        while not task.done() and list(lag.values()) != [0, 0]:
            await asyncio.wait([task], timeout=0.1)
            lag = await client.group_lag("payments")
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        paid = await read(client, "PAYMENTS")
        print(f"{ORDERS} orders, {len(paid)} payments")
        if sorted(paid) != list(range(ORDERS)):
            raise SystemExit("not exactly once")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, Broker(directory) as broker:
        asyncio.run(main(broker.endpoint))
