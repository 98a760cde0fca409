"""The asynchronous client on a real broker, under each kind of event loop."""

import itertools
import os
import signal

import pytest

import planaria
import planaria.aio
from event_loops import Run
from patience import TIMEOUT_S
from planaria import Broker

pytestmark = pytest.mark.processes

_numbers = itertools.count()


@pytest.fixture
def topic(shared_broker: Broker) -> str:
    name = f"T{next(_numbers)}"
    shared_broker.create_topic(name, 2)
    return name


def test_what_is_published_is_durable_and_is_read_in_order(
    shared_broker: Broker, topic: str, run: Run
) -> None:
    async def main() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client:
            receipt = await client.publish(topic, {"n": 0}, key="k")
            assert (receipt.topic, receipt.offset) == (topic, 0)
            handles = [client.publish_nowait(topic, {"n": n}, key="k") for n in range(1, 1_000)]
            receipts = [await handle for handle in handles]
            assert [receipt.offset for receipt in receipts] == list(range(1, 1_000))
            assert all(handle.done() for handle in handles)
            async with client.consumer(f"g-{topic}", [topic], auto_offset_reset="earliest") as consumer:
                found = []
                async for message in consumer:
                    found.append(message.data["n"])
                    if len(found) == 1_000:
                        await consumer.commit()
                        break
                assert found == list(range(1_000))
                assert sum((await consumer.committed()).values()) == 1_000

    run(main)


def test_batches_are_gathered_up_to_a_number_or_a_time(shared_broker: Broker, topic: str, run: Run) -> None:
    async def main() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client:
            for handle in [client.publish_nowait(topic, n, partition=0) for n in range(25)]:
                await handle
            async with client.consumer(None, [topic], auto_offset_reset="earliest") as consumer:
                sizes, values = [], []
                async for batch in consumer.batches(max=10, max_wait=1.0):
                    sizes.append(len(batch))
                    values += [message.data for message in batch]
                    if len(values) == 25:
                        break
                assert values == list(range(25))
                assert sizes == [10, 10, 5]

    run(main)


def test_positions_are_set_by_offset_time_and_commit(shared_broker: Broker, topic: str, run: Run) -> None:
    async def main() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client:
            await client.wait_for_broker(TIMEOUT_S)
            for n in range(5):
                await client.publish(topic, n, partition=0, timestamp_ms=1_000 * (n + 1))
            async with client.consumer(
                f"g-{topic}", partitions=[(topic, 0)], auto_commit=False, auto_offset_reset="earliest"
            ) as consumer:
                assert await consumer.position(topic, 0) == 0
                assert [message.data for message in await consumer.poll(max_messages=2)] == [0, 1]
                await consumer.commit()
                await consumer.seek_to_time(4_000)
                assert [message.data for message in await consumer.poll(max_messages=1)] == [3]
                await consumer.seek_to_committed()
                assert await consumer.position(topic, 0) == 2
                consumer.pause((topic, 0))
                assert consumer.paused() == consumer.assignment() == [(topic, 0)]
                assert await consumer.poll(0.05) == []
                consumer.resume((topic, 0))
                assert (await consumer.poll())[0].data == 2
                consumer.stop()
                assert consumer.is_stopped
                await consumer.close()

    run(main)


def test_an_empty_wait_returns_an_empty_list(shared_broker: Broker, topic: str, run: Run) -> None:
    async def main() -> None:
        async with (
            planaria.aio.connect(shared_broker.endpoint) as client,
            client.consumer(None, [topic]) as consumer,
        ):
            assert await consumer.poll(0.05) == []

    run(main)


def test_a_topic_that_does_not_exist_fails_the_call_and_the_handle(shared_broker: Broker, run: Run) -> None:
    async def main() -> None:
        async with planaria.aio.connect(shared_broker.endpoint, metadata_timeout_ms=50) as client:
            with pytest.raises(planaria.UnknownTopic):
                await client.publish("MISSING", b"")
            handle = client.publish_nowait("MISSING", b"")
            with pytest.raises(planaria.UnknownTopic):
                await handle

    run(main)


def test_administration_has_the_methods_of_the_client_for_threads(
    shared_broker: Broker, topic: str, run: Run
) -> None:
    async def main() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client:
            described = await client.describe_topic(topic)
            assert len(described.partitions) == 2
            assert client.health().state == "connected"
        assert client.health().state == "closed"

    run(main)


def test_one_of_several_endpoints_that_answers_is_enough(shared_broker: Broker, run: Run) -> None:
    nowhere = "tcp://127.0.0.1:1"

    async def main() -> None:
        for endpoints in ([nowhere, shared_broker.endpoint], f"{nowhere},{shared_broker.endpoint}"):
            async with planaria.aio.connect(endpoints) as client:
                await client.list_topics()

    run(main)


def test_a_broker_that_is_not_there_shows_in_the_health_and_at_the_deadline(run: Run) -> None:
    async def main() -> None:
        async with planaria.aio.connect("tcp://127.0.0.1:1", request_timeout_ms=100) as client:
            assert client.health().state == "connecting"
            with pytest.raises(planaria.TimedOut):
                await client.list_topics()

    run(main)


def test_a_message_to_a_topic_that_is_not_known_yet_is_what_it_was_at_its_publish(
    shared_broker: Broker, topic: str, run: Run
) -> None:
    async def main() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client:
            value, headers, key = {"n": 1}, {"h": "1"}, bytearray(b"k")
            handle = client.publish_nowait(topic, value, key=key, headers=headers)  # type: ignore[arg-type]
            assert not handle.done()
            value["n"], headers["h"], key[0] = 2, "2", 0
            with pytest.raises(planaria.InvalidOption):
                client.publish_nowait(topic, {"n": float("nan")})
            await handle
            async with client.consumer(None, [topic], auto_offset_reset="earliest") as consumer:
                [found] = await consumer.poll()
                assert (found.data, found.headers["h"], found.key) == ({"n": 1}, "1", b"k")

    run(main)


def test_messages_keep_their_order_while_the_first_ones_wait_for_the_topic(
    shared_broker: Broker, topic: str, run: Run
) -> None:
    """Also while a buffer that is full stops them on their way into batches."""

    async def main() -> None:
        async with (
            planaria.aio.connect(shared_broker.endpoint) as client,
            client.producer(buffer_bytes=20_000, batch_bytes=2_000) as producer,
        ):
            handles, number = [], 0
            while number < 3_000:
                try:
                    handles.append(producer.publish_nowait(topic, number, key=f"k{number % 7}"))
                    number += 1
                except planaria.BufferFull:
                    await handles[-1]
                if number == 500:
                    await handles[100]
            for handle in handles:
                await handle
            async with client.consumer(None, [topic], auto_offset_reset="earliest") as consumer:
                found: dict[bytes | None, list[int]] = {}
                while sum(map(len, found.values())) < 3_000:
                    for message in await consumer.poll():
                        found.setdefault(message.key, []).append(message.data)
                assert all(numbers == sorted(numbers) for numbers in found.values())

    run(main)


def test_a_signal_ends_loops_in_order(shared_broker: Broker, topic: str, run: Run) -> None:
    """The message at hand is committed with those before it, and the handlers are put back."""

    async def main() -> None:
        before = signal.getsignal(signal.SIGTERM)
        async with planaria.aio.connect(shared_broker.endpoint) as client:
            for n in range(10):
                await client.publish(topic, n, partition=0)
            seen = []
            async with (
                client.consumer(f"g-{topic}", [topic], auto_offset_reset="earliest") as consumer,
                client.work(f"s-{topic}", [topic]) as jobs,
                planaria.aio.until_signal(consumer, jobs) as stopping,
            ):
                assert not await stopping.wait(0)
                async for message in consumer:
                    seen.append(message.data)
                    if message.data == 3:
                        os.kill(os.getpid(), signal.SIGTERM)
                        assert await stopping.wait()
                assert [job async for job in jobs] == []
            assert stopping.received == signal.SIGTERM
            assert seen == [0, 1, 2, 3]
            assert sum((await client.group_offsets(f"g-{topic}")).values()) == 4
        assert signal.getsignal(signal.SIGTERM) == before

    run(main)
