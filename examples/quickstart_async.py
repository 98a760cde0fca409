"""The quickstart for asyncio: publish two orders and read them, on an event loop.

Run it:      python examples/quickstart_async.py
You will see where the first order was stored, and both orders with their partitions and offsets.
"""

import asyncio
import tempfile

import planaria.aio
from planaria import Broker


async def main(endpoint: str) -> None:
    async with planaria.aio.connect(endpoint) as client:
        await client.create_topic("ORDERS", 3)
        receipt = await client.publish("ORDERS", {"amount": 100}, key="order-1")
        print(f"stored in partition {receipt.partition} at offset {receipt.offset}")
        await client.publish_nowait("ORDERS", {"amount": 200}, key="order-2")

        async with client.consumer("billing", ["ORDERS"], auto_offset_reset="earliest") as consumer:
            left = 2
            async for message in consumer:
                print(
                    f"consumed {message.data}, from partition {message.partition} at offset {message.offset}"
                )
                left -= 1
                if not left:
                    break
            await consumer.commit()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, Broker(directory) as broker:
        asyncio.run(main(broker.endpoint))
