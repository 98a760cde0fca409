"""Transactions of tasks, under each kind of event loop: commits, aborts, cancellations, killed actors."""

import asyncio
import itertools
import random
from contextlib import suppress

import pytest
import trio

import planaria
import planaria.aio
from event_loops import Run, on_asyncio, on_trio
from live_trees import until_state
from planaria import Broker

pytestmark = pytest.mark.processes

_numbers = itertools.count()


@pytest.fixture
def topic(shared_broker: Broker) -> str:
    name = f"X{next(_numbers)}"
    shared_broker.create_topic(name, 2)
    shared_broker.create_topic(f"{name}.out", 2)
    return name


async def read(client: planaria.aio.AsyncClient, topic: str) -> list[int]:
    """Return everything that is committed, once no transaction is open or about to end."""
    tps = [(topic, 0), (topic, 1)]
    found: list[int] = []
    async with (
        client.consumer(partitions=tps, isolation="read_uncommitted") as every,
        client.consumer(partitions=tps, auto_offset_reset="earliest") as consumer,
    ):
        ends = await every.end_offsets(tps)
        for tp, end in ends.items():
            while await consumer.position(*tp) < end:
                found += [message.data for message in await consumer.poll(1.0)]
    return found


async def write(
    producer: planaria.aio.AsyncTransactionalProducer,
    topic: str,
    value: int,
    error: Exception | None = None,
) -> None:
    async with producer.transaction() as tx:
        tx.publish_nowait(topic, value)
        if error is not None:
            raise error


def test_a_block_commits_and_an_exception_aborts(shared_broker: Broker, topic: str, run: Run) -> None:
    async def main() -> None:
        async with (
            planaria.aio.connect(shared_broker.endpoint) as client,
            client.producer(transactional_id=f"t-{topic}") as producer,
        ):
            assert producer.transactional_id == f"t-{topic}"
            async with producer.transaction() as tx:
                handle = tx.publish_nowait(topic, 0)
                assert (await tx.publish(topic, 1)).topic == topic
            assert handle.done()
            with pytest.raises(ValueError, match="no"):
                await write(producer, topic, 2, error=ValueError("no"))
            tx = await producer.transaction()
            await tx.abort()
            with pytest.raises(planaria.PlanariaError, match="ended"):
                tx.publish_nowait(topic, 3)
            tx = await producer.transaction()
            tx.publish_nowait(topic, 4)
            with pytest.raises(planaria.PlanariaError, match="open already"):
                await producer.transaction()
            await tx.commit()
            await tx.abort()
            with pytest.raises(planaria.PlanariaError, match="ended"):
                tx.publish_nowait(topic, 5)
            with pytest.raises(planaria.PlanariaError, match="not begun"):
                producer.transaction().publish_nowait(topic, 6)
            assert sorted(await read(client, topic)) == [0, 1, 4]

    run(main)


def test_offsets_are_committed_with_the_messages(shared_broker: Broker, topic: str, run: Run) -> None:
    async def main() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client:
            for n in range(20):
                client.publish_nowait(topic, n)
            async with (
                client.producer(transactional_id=f"t-{topic}") as producer,
                client.consumer(
                    f"g-{topic}", topic, auto_commit=False, auto_offset_reset="earliest"
                ) as consumer,
            ):
                await producer.claim()
                copied = attempts = 0
                while copied < 20:
                    messages = await consumer.poll(max_messages=7)
                    attempts += 1
                    with suppress(ValueError):
                        async with producer.transaction() as tx:
                            for message in messages:
                                tx.publish_nowait(f"{topic}.out", message.data)
                            await tx.commit_offsets(consumer)
                            if attempts == 2:
                                raise ValueError
                        copied += len(messages)
                        continue
                    await consumer.seek_to_committed()
                assert sum((await consumer.committed()).values()) >= 20
            assert sorted(await read(client, f"{topic}.out")) == list(range(20))

    run(main)


def test_a_message_to_a_topic_that_does_not_exist_aborts(shared_broker: Broker, topic: str, run: Run) -> None:
    async def main() -> None:
        async with (
            planaria.aio.connect(shared_broker.endpoint, metadata_timeout_ms=50) as client,
            client.producer(transactional_id=f"t-{topic}") as producer,
        ):
            with pytest.raises(planaria.TransactionAborted):
                await write(producer, "MISSING", 0)
            await write(producer, topic, 1)
            assert await read(client, topic) == [1]

    run(main)


def test_another_producer_with_the_id_fences(shared_broker: Broker, topic: str) -> None:
    async def main() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client:
            first = client.producer(transactional_id=f"t-{topic}")
            tx = await first.transaction()
            tx.publish_nowait(topic, 0)
            async with (
                client.producer(transactional_id=f"t-{topic}") as second,
                second.transaction() as other,
            ):
                other.publish_nowait(topic, 1)
            with pytest.raises(planaria.ProducerFenced):
                await tx.commit()
            with pytest.raises(planaria.ProducerFenced):
                await first.transaction()
            assert await read(client, topic) == [1]

    on_asyncio(main)


@pytest.mark.parametrize("seed", range(3))
def test_transactions_cancelled_at_any_point_are_whole_or_absent(
    shared_broker: Broker, topic: str, seed: int
) -> None:
    draw = random.Random(seed)
    committed: set[int] = set()

    async def write_six(producer: planaria.aio.AsyncTransactionalProducer, number: int) -> None:
        async with producer.transaction() as tx:
            for _ in range(3):
                tx.publish_nowait(topic, number)
                if draw.random() < 0.3:
                    await tx.publish(topic, number)
                else:
                    tx.publish_nowait(topic, number)
        committed.add(number)

    async def main() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client:
            async with client.producer(transactional_id=f"t-{topic}") as producer:
                for number in range(40):
                    task = asyncio.create_task(write_six(producer, number))
                    await asyncio.sleep(draw.choice([0, draw.uniform(0, 0.03)]))
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
                await write_six(producer, 40)
            found = await read(client, topic)
            assert {found.count(number) for number in set(found)} == {6}
            assert committed <= set(found)
            assert client._network._waiters == set()

    on_asyncio(main)


def test_a_cancelled_transaction_aborts_under_trio(shared_broker: Broker, topic: str) -> None:
    async def main() -> None:
        async with (
            planaria.aio.connect(shared_broker.endpoint) as client,
            client.producer(transactional_id=f"t-{topic}") as producer,
        ):
            with trio.CancelScope() as scope:
                async with producer.transaction() as tx:
                    await tx.publish(topic, 0)
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught
            async with producer.transaction() as tx:
                tx.publish_nowait(topic, 1)
            assert await read(client, topic) == [1]

    on_trio(main)


def test_killed_actors_leave_each_transaction_whole_or_absent(broker: Broker) -> None:
    broker.create_topic("T", 2)
    committed: list[int] = []

    async def main() -> None:
        async with planaria.aio.connect(broker.endpoint) as client:

            async def write_all(writer: int) -> None:
                async with client.producer(transactional_id=f"t{writer}") as producer:
                    for number in range(1000 * writer, 1000 * writer + 20):
                        with suppress(planaria.TransactionAborted, planaria.TransactionUncertain):
                            async with producer.transaction() as tx:
                                for _ in range(4):
                                    tx.publish_nowait("T", number)
                            committed.append(number)

            async def kill() -> None:
                for address in ("partition/T/0", "transactions/0", "gateway/0", "transactions/1"):
                    await asyncio.sleep(0.15)
                    await asyncio.to_thread(until_state, broker.client, address, "ready")
                    await asyncio.to_thread(broker.kill, address)

            await asyncio.gather(kill(), *(write_all(writer) for writer in range(3)))
            found = await read(client, "T")
            assert {found.count(number) for number in set(found)} == {4}
            assert set(committed) <= set(found)
            assert committed

    on_asyncio(main)
