"""A work queue on an event loop: many tasks take jobs from one consumer, and a cancelled job goes to another task.

Run it:      python examples/work_queue_async.py
You will see a job that is cancelled and one that fails, both done at the next delivery, and a job that always fails,
which ends in the dead-letter topic.
"""

import asyncio
import tempfile
from contextlib import suppress

import planaria.aio
from planaria import Broker, Reject
from planaria.aio import AsyncShareConsumer, AsyncShareMessage

JOBS = 12
WORKERS = 4


class DatabaseAway(Exception):
    """The job has failed; the next task that takes it does it."""


async def main(endpoint: str) -> None:
    async with planaria.aio.connect(endpoint) as client:
        await client.create_topic("JOBS", 1)
        await client.create_topic("JOBS.dead", 1)
        await client.configure_share_group("workers", max_deliveries=3, dead_letter="JOBS.dead")
        for number in range(JOBS):
            await client.publish("JOBS", {"number": number})

        async with client.work("workers", "JOBS") as jobs:
            done: set[int] = set()
            await asyncio.gather(*(work(jobs, done) for _ in range(WORKERS)))

        async with client.consumer(partitions=[("JOBS.dead", 0)], auto_offset_reset="earliest") as consumer:
            (letter,) = await consumer.poll()
        print(f"dead: job {letter.data['number']}, {letter.headers['dead-letter-reason']}")


async def work(jobs: AsyncShareConsumer, done: set[int]) -> None:
    """Take one job after the other, until all are done."""
    async for job in jobs:
        with suppress(Reject, DatabaseAway, TimeoutError):
            async with asyncio.timeout(0.2), job:  # accepted at the end of the block, unless it raises
                await do(job)
            done.add(job.data["number"])
        if len(done) == JOBS - 1:
            jobs.stop()


async def do(job: AsyncShareMessage) -> None:
    number = job.data["number"]
    if number == 5:
        raise Reject("this job is impossible")
    if number == 7 and job.delivery_count == 1:
        raise DatabaseAway("not now")
    if number == 9 and number not in hung:
        hung.add(number)
        await asyncio.sleep(60)  # cancelled by the timeout: released, which does not count as an attempt
    print(f"did job {number} (delivery {job.delivery_count})")


hung: set[int] = set()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, Broker(directory) as broker:
        asyncio.run(main(broker.endpoint))
