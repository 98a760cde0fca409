"""Rows of the bench for the client of event loops, each against the client for threads in the same run."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

from ...transport.aio.client import connect
from ...transport.aio.transactional import AsyncTransactionalProducer
from ..broker import Broker
from .ceilings import Ceilings
from .rows import (
    POLL_MESSAGES,
    TOPIC,
    TRANSACTION_MESSAGES,
    TRANSACTION_PRODUCERS,
    VALUE,
    Row,
    Scale,
    fresh_broker,
    in_transactions,
)
from .singles import fill, queue_each

TASKS = 100
RATIO = 0.7
"""The part of the rate of the client for threads that each row but `publish_nowait` should reach."""


def tasks_row(scale: Scale, _: Ceilings) -> Row:
    """Measure awaited publishes of TASKS tasks on one loop, against as many threads."""
    each = max(1, scale.rounds // 2)
    with fresh_broker() as broker:
        with broker.producer(linger_ms=0) as producer:

            def publish() -> None:
                for _ in range(each):
                    producer.publish(TOPIC, VALUE).result()

            threads = [threading.Thread(target=publish) for _ in range(TASKS)]
            began = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            threaded = TASKS * each / (time.perf_counter() - began)
        rate = asyncio.run(_publish_in_tasks(broker, each))
    return Row(
        name=f"asyncio: awaited publishes of {TASKS} tasks",
        figure=rate,
        unit="per second",
        bar=RATIO * threaded,
        is_higher_better=True,
        ceiling=threaded,
        detail=f"bar: {RATIO} of {TASKS} threads, the ceiling here",
    )


async def _publish_in_tasks(broker: Broker, each: int) -> float:
    async with connect(broker.endpoint) as client:
        await client.publish(TOPIC, VALUE)

        async def publish() -> None:
            for _ in range(each):
                await client.publish(TOPIC, VALUE)

        began = time.perf_counter()
        await asyncio.gather(*(publish() for _ in range(TASKS)))
        return TASKS * each / (time.perf_counter() - began)


def nowait_row(scale: Scale, _: Ceilings) -> Row:
    """Measure `publish_nowait`, one call a message, until the last one is acknowledged."""
    messages = scale.messages // 5
    with fresh_broker() as broker:
        plain = max(fill(broker, messages) for _ in range(2))
        rate = max(asyncio.run(_publish_nowait(broker, messages)) for _ in range(2))
    return Row(
        name="asyncio: publish_nowait, to acknowledged",
        figure=rate,
        unit="messages/s",
        bar=0.8 * plain,
        is_higher_better=True,
        ceiling=plain,
        detail="bar: 0.8 of the client for threads, the ceiling here",
    )


async def _publish_nowait(broker: Broker, messages: int) -> float:
    async with connect(broker.endpoint) as client, client.producer(buffer_bytes=1 << 30) as producer:
        await producer.publish(TOPIC, VALUE)
        publish_nowait = producer.publish_nowait
        began = time.perf_counter()
        for _ in range(messages):
            publish_nowait(TOPIC, VALUE)
        await producer.flush()
        return messages / (time.perf_counter() - began)


def consume_row(scale: Scale, _: Ceilings) -> Row:
    """Measure `Message` objects that `await poll` returns."""
    messages = scale.messages // 2
    with fresh_broker() as broker:
        fill(broker, messages)
        with broker.consumer(None, [TOPIC], auto_offset_reset="earliest") as consumer:
            left, began = messages, time.perf_counter()
            while left > 0:
                left -= len(consumer.poll(5.0, max_messages=POLL_MESSAGES))
            plain = messages / (time.perf_counter() - began)
        rate = asyncio.run(_consume(broker, messages))
    return Row(
        name="asyncio: consume, Message objects",
        figure=rate,
        unit="messages/s",
        bar=RATIO * plain,
        is_higher_better=True,
        ceiling=plain,
        detail=f"bar: {RATIO} of the client for threads, the ceiling here",
    )


async def _consume(broker: Broker, messages: int) -> float:
    async with (
        connect(broker.endpoint) as client,
        client.consumer(None, [TOPIC], auto_offset_reset="earliest") as consumer,
    ):
        left, began = messages, time.perf_counter()
        while left > 0:
            left -= len(await consumer.poll(5.0, max_messages=POLL_MESSAGES))
        return messages / (time.perf_counter() - began)


def work_row(scale: Scale, _: Ceilings) -> Row:
    """Measure a work queue in one task: up to 100 messages acquired, each accepted by a call of its own."""
    messages = scale.messages // 20
    with fresh_broker() as broker:
        fill(broker, messages)
        plain = queue_each(broker, "threads", messages)
        rate = asyncio.run(_work(broker, messages))
    return Row(
        name="asyncio: work queue, acquire up to 100, accept each",
        figure=rate,
        unit="per second",
        bar=RATIO * plain,
        is_higher_better=True,
        ceiling=plain,
        detail=f"bar: {RATIO} of the client for threads, the ceiling here",
    )


async def _work(broker: Broker, messages: int) -> float:
    async with connect(broker.endpoint) as client, client.work("tasks", TOPIC) as jobs:
        left = messages
        for job in await jobs.poll(10.0, max_messages=100):
            await job.accept()
            left -= 1
        began, measured = time.perf_counter(), left
        while left > 0:
            for job in await jobs.poll(5.0, max_messages=100):
                await job.accept()
                left -= 1
        await jobs.flush()
        return measured / (time.perf_counter() - began)


def transactions_row(scale: Scale, _: Ceilings) -> Row:
    """Measure transactions of TRANSACTION_MESSAGES by concurrent producers, in tasks and in threads."""
    rounds = max(1, scale.messages // 6 // TRANSACTION_MESSAGES // TRANSACTION_PRODUCERS)
    with fresh_broker() as broker:
        plain, _alone = in_transactions(broker, rounds)
        rate = asyncio.run(_transactions(broker, rounds))
    return Row(
        name=f"asyncio: publish in transactions of {TRANSACTION_MESSAGES}",
        figure=rate,
        unit="messages/s",
        bar=RATIO * plain,
        is_higher_better=True,
        ceiling=plain,
        detail=f"{TRANSACTION_PRODUCERS} producers; bar: {RATIO} of as many threads, the ceiling here",
    )


async def _transactions(broker: Broker, rounds: int) -> float:
    async with connect(broker.endpoint) as client, AsyncExitStack() as stack:
        producers = [
            await stack.enter_async_context(client.producer(transactional_id=f"task-{number}"))
            for number in range(TRANSACTION_PRODUCERS)
        ]
        await asyncio.gather(*(_transact(producer, 2) for producer in producers))
        began = time.perf_counter()
        await asyncio.gather(*(_transact(producer, rounds) for producer in producers))
        return len(producers) * rounds * TRANSACTION_MESSAGES / (time.perf_counter() - began)


async def _transact(producer: AsyncTransactionalProducer, rounds: int) -> None:
    for _ in range(rounds):
        async with producer.transaction() as transaction:
            publish_nowait = transaction.publish_nowait
            for _ in range(TRANSACTION_MESSAGES):
                publish_nowait(TOPIC, VALUE)


EVENT_LOOP_ROWS: dict[str, Callable[[Scale, Ceilings], Row]] = {
    "aio-tasks": tasks_row,
    "aio-nowait": nowait_row,
    "aio-consume": consume_row,
    "aio-work": work_row,
    "aio-transactions": transactions_row,
}
