"""A share group's jobs in tasks, under each kind of event loop: verdicts, cancellations, killed actors."""

import asyncio
import itertools
import random

import pytest
import trio

import planaria
import planaria.aio
from event_loops import Run, on_asyncio, on_trio
from live_trees import until_state
from patience import TIMEOUT_S
from planaria import Broker, Reject

pytestmark = pytest.mark.processes

_numbers = itertools.count()


@pytest.fixture
def topic(shared_broker: Broker) -> str:
    name = f"W{next(_numbers)}"
    shared_broker.create_topic(name, 2)
    shared_broker.create_topic(f"{name}.dead", 1)
    shared_broker.configure_share_group(f"g-{name}", dead_letter=f"{name}.dead")
    return name


async def publish(client: planaria.aio.AsyncClient, topic: str, count: int) -> None:
    handles = [client.publish_nowait(topic, n) for n in range(count)]
    for handle in handles:
        await handle


def test_the_end_of_a_block_is_the_verdict(shared_broker: Broker, topic: str, run: Run) -> None:
    seen: list[tuple[int, int]] = []

    async def work(job: planaria.aio.AsyncShareMessage) -> None:
        async with job:
            seen.append((job.data, job.delivery_count))
            if job.data == 1 and job.delivery_count == 1:
                raise ValueError("not now")
            if job.data == 2:
                raise Reject("never")

    async def main() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client:
            await publish(client, topic, 4)
            async with client.work(f"g-{topic}", topic) as jobs:
                async for job in jobs:
                    try:
                        await work(job)
                    except (ValueError, Reject):
                        pass
                    if len(seen) == 5:
                        jobs.stop()
                assert jobs.is_stopped
                assert await jobs.poll() == []
            async with client.consumer(None, [f"{topic}.dead"], auto_offset_reset="earliest") as dead:
                (letter,) = await dead.poll(TIMEOUT_S)
                assert (letter.data, (letter.headers or {})["dead-letter-reason"]) == (2, "never")

    run(main)
    assert sorted(seen) == [(0, 1), (1, 1), (1, 2), (2, 1), (3, 1)]


def test_each_verdict_can_be_given_by_name(shared_broker: Broker, topic: str, run: Run) -> None:
    async def main() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client:
            await publish(client, topic, 4)
            async with client.work(f"g-{topic}", [topic]) as jobs:
                found: dict[int, planaria.aio.AsyncShareMessage] = {}
                while len(found) < 4:
                    found |= {job.data: job for job in await jobs.poll(TIMEOUT_S)}
                await found[0].accept()
                await found[1].fail(reason="again")
                await found[2].release()
                await found[3].reject("never")
                await jobs.renew()
                assert await jobs.flush() == []
                with pytest.raises(planaria.PlanariaError):
                    await found[0].accept()
                again: dict[int, int] = {}
                while len(again) < 2:
                    for job in await jobs.poll(TIMEOUT_S):
                        again[job.data] = job.delivery_count
                        await jobs.acknowledge([job])
                assert again == {1: 2, 2: 1}
                assert await jobs.poll(0.05) == []
            with pytest.raises(planaria.Closed):
                await jobs.poll()

    run(main)


def test_implicit_acknowledgement_is_refused(shared_broker: Broker) -> None:
    async def main() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client:
            with pytest.raises(planaria.InvalidOption):
                client.work("g", "T", acknowledge="implicit")

    on_asyncio(main)


def test_many_tasks_share_one_consumer(shared_broker: Broker, topic: str) -> None:
    done: list[int] = []

    async def work(jobs: planaria.aio.AsyncShareConsumer) -> None:
        async for job in jobs:
            async with job:
                await asyncio.sleep(0)
                done.append(job.data)
            if len(done) == 500:
                jobs.stop()

    async def main() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client:
            await publish(client, topic, 500)
            async with client.work(f"g-{topic}", topic) as jobs:
                await asyncio.gather(*(work(jobs) for _ in range(50)))

    on_asyncio(main)
    assert sorted(done) == list(range(500))


def test_leaving_the_block_ends_iterators_in_other_tasks_and_releases_jobs(
    shared_broker: Broker, topic: str
) -> None:
    async def work(jobs: planaria.aio.AsyncShareConsumer, held: asyncio.Event) -> str:
        async for _ in jobs:
            held.set()
        return "ended"

    async def main() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client:
            await publish(client, topic, 1)
            async with client.work(f"g-{topic}", topic) as jobs:
                held = asyncio.Event()
                tasks = [asyncio.create_task(work(jobs, held)) for _ in range(3)]
                await held.wait()
            assert await asyncio.gather(*tasks) == ["ended"] * 3
            async with client.work(f"g-{topic}", topic) as jobs:
                (job,) = await jobs.poll(TIMEOUT_S)
                assert job.delivery_count == 1
                await job.accept()

    on_asyncio(main)


@pytest.mark.parametrize("seed", range(3))
def test_workers_cancelled_at_any_point_lose_no_job_and_keep_none_locked(
    shared_broker: Broker, topic: str, seed: int
) -> None:
    """A job that stayed locked to a cancelled task would come only after the lock time."""
    draw = random.Random(seed)
    done: list[int] = []

    async def work(jobs: planaria.aio.AsyncShareConsumer) -> None:
        async for job in jobs:
            async with job:
                await asyncio.sleep(draw.choice([0, 0.001]))
                done.append(job.data)

    async def main() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client:
            async with client.work(f"g-{topic}", topic, lock_ms=3_600_000) as jobs:
                for _ in range(10):
                    tasks = [asyncio.create_task(work(jobs)) for _ in range(4)]
                    await publish(client, topic, 20)
                    await asyncio.sleep(draw.uniform(0, 0.02))
                    draw.shuffle(tasks)
                    for task in tasks:
                        task.cancel()
                        await asyncio.sleep(draw.choice([0, 0, 0.001]))
                    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
                async with asyncio.timeout(TIMEOUT_S):
                    while len(done) < 200:
                        for job in await jobs.poll():
                            await job.accept()
                            done.append(job.data)
                assert await jobs.flush() == []
            assert client._network._waiters == set()

    on_asyncio(main)
    assert sorted(done) == sorted(list(range(20)) * 10)


def test_a_cancelled_poll_leaves_its_messages_to_other_members(shared_broker: Broker, topic: str) -> None:
    async def main() -> None:
        async with (
            planaria.aio.connect(shared_broker.endpoint) as client,
            client.work(f"g-{topic}", topic) as idle,
            client.work(f"g-{topic}", topic) as busy,
        ):
            task = asyncio.create_task(idle.poll())
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await client.publish(topic, 0)
            (job,) = await busy.poll(TIMEOUT_S)
            assert (job.data, job.delivery_count) == (0, 1)
            await job.accept()

    on_asyncio(main)


def test_killed_actors_cost_no_job(broker: Broker) -> None:
    broker.create_topic("T", 2)
    done: set[int] = set()
    has_begun = asyncio.Event()

    async def work(jobs: planaria.aio.AsyncShareConsumer) -> None:
        async for job in jobs:
            async with job:
                await asyncio.sleep(0.02)
                done.add(job.data)
                has_begun.set()
            if len(done) == 400:
                jobs.stop()

    async def main() -> None:
        async with planaria.aio.connect(broker.endpoint) as client:
            await publish(client, "T", 400)

            async def kill() -> None:
                await has_begun.wait()  # the group's coordinator is started by the first request
                for address in ("partition/T/0", "coordinator/g", "gateway/0"):
                    await asyncio.sleep(0.2)
                    await asyncio.to_thread(until_state, broker.client, address, "ready")
                    await asyncio.to_thread(broker.kill, address)

            async with client.work("g", "T", lock_ms=2_000) as jobs:
                await asyncio.gather(kill(), *(work(jobs) for _ in range(5)))

    on_asyncio(main)
    assert done == set(range(400))


def test_a_job_cancelled_under_trio_is_released(shared_broker: Broker, topic: str) -> None:
    async def main() -> None:
        async with (
            planaria.aio.connect(shared_broker.endpoint) as client,
            client.work(f"g-{topic}", topic) as jobs,
        ):
            with trio.move_on_after(0.05) as waiting:
                await jobs.poll()
            assert waiting.cancelled_caught
            await client.publish(topic, 0)
            async for job in jobs:
                with trio.CancelScope() as working:
                    async with job:
                        working.cancel()
                        await trio.lowlevel.checkpoint()
                assert working.cancelled_caught
                break
            (job,) = await jobs.poll(TIMEOUT_S)
            assert job.delivery_count == 1
            await job.accept()
            assert await jobs.flush() == []

    on_trio(main)
