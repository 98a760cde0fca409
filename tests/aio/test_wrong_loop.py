"""A client is used by the tasks of one loop: in another one every call that would wait is refused at once."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import planaria.aio
from event_loops import Run
from planaria import Broker, PlanariaError

pytestmark = pytest.mark.processes

_numbers = itertools.count()


@pytest.fixture
def topic(shared_broker: Broker) -> str:
    name = f"WRONG{next(_numbers)}"
    shared_broker.create_topic(name, 1)
    return name


async def refused(call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    with pytest.raises(PlanariaError, match="belongs to another event loop"):
        await call()


def test_every_call_in_another_loop_is_refused_and_changes_nothing(shared_broker: Broker, topic: str) -> None:
    async def enter() -> list[Any]:
        client = await planaria.aio.connect(shared_broker.endpoint)
        consumer = await client.consumer("wrong", [topic], auto_offset_reset="earliest").__aenter__()
        jobs = await client.work("wrong-jobs", topic).__aenter__()
        return [client, consumer, jobs, client.producer(), client.producer(transactional_id=topic)]

    async def misuse() -> None:
        await refused(client.list_topics)
        await refused(lambda: client.publish(topic, b"no"))
        await refused(lambda: client.wait_for_broker(60))
        await refused(lambda: client.read(topic).__anext__())
        await refused(lambda: client.table(topic).__aenter__())
        await refused(consumer.poll)
        await refused(lambda: consumer.poll(60))
        await refused(lambda: consumer.end_offsets([(topic, 0)]))
        await refused(jobs.poll)
        await refused(jobs.flush)
        await refused(lambda: producer.publish(topic, b"no"))
        await refused(transactions.claim)
        await refused(lambda: transactions.transaction().__aenter__())
        for opened in (transactions, producer, jobs, consumer, client):
            await refused(opened.close)

    async def use_and_leave() -> None:
        receipt = await client.publish(topic, b"yes")
        assert receipt.topic == topic
        assert [message.value for message in await consumer.poll(60)] == [b"yes"]
        for opened in (transactions, producer, jobs, consumer, client):
            await opened.close()
        assert client.health().state == "closed"

    with asyncio.Runner() as own, asyncio.Runner() as other:
        client, consumer, jobs, producer, transactions = own.run(enter())
        other.run(misuse())
        own.run(use_and_leave())


def test_a_client_whose_loop_has_ended_can_only_be_closed(
    shared_broker: Broker, topic: str, run: Run
) -> None:

    async def first() -> planaria.aio.AsyncClient:
        client = await planaria.aio.connect(shared_broker.endpoint)
        await client.publish(topic, b"yes")
        await client.consumer("left-open", [topic]).__aenter__()
        return client

    client = run(first)

    async def second() -> None:
        await refused(lambda: client.publish(topic, b"no"))
        await client.close()
        await client.close()

    run(second)
    assert client.health().state == "closed"
