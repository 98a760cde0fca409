"""A client that is left open, and messages of other threads than the loop's."""

import asyncio
import gc
import itertools
import subprocess
import sys
import threading
from typing import Any

import pytest

import planaria.aio
from event_loops import Run
from patience import TIMEOUT_S, wait_until
from planaria import Broker
from planaria.transport.client.network import Network

pytestmark = pytest.mark.processes

THREADS = 4
MESSAGES = 500
PROGRAM = """
import asyncio, sys
import planaria.aio

async def main():
    client = await planaria.aio.connect(sys.argv[1], client_id="forgotten")
    await client.publish(sys.argv[2], b"yes")
    consumer = client.consumer("left-open", [sys.argv[2]])
    await consumer.__aenter__()
    print("published", flush=True)

asyncio.run(main())
"""

_numbers = itertools.count()


@pytest.fixture
def topic(shared_broker: Broker) -> str:
    name = f"LEFT{next(_numbers)}"
    shared_broker.create_topic(name, 1)
    return name


def forget(opened: list[Any]) -> None:
    opened.clear()
    gc.collect()


def test_a_client_that_is_left_open_ends_with_its_loop(shared_broker: Broker, topic: str, run: Run) -> None:
    before = threading.active_count()
    group = f"of-{topic}"

    async def leave_open() -> Any:
        client = await planaria.aio.connect(shared_broker.endpoint)
        await client.publish(topic, b"yes")
        consumer = await client.consumer(group, [topic], auto_offset_reset="earliest").__aenter__()
        assert [message.value for message in await consumer.poll(TIMEOUT_S)] == [b"yes"]
        assert shared_broker.describe_group(group).members
        return client, consumer

    opened = list(run(leave_open))
    wait_until(lambda: opened[0].health().state == "closed")
    wait_until(lambda: threading.active_count() == before)
    wait_until(lambda: not shared_broker.describe_group(group).members)
    with pytest.warns(ResourceWarning, match="unclosed client"):
        forget(opened)


def test_a_program_that_leaves_its_client_open_gets_a_warning_and_ends(
    shared_broker: Broker, topic: str
) -> None:
    command = [sys.executable, "-X", "dev", "-c", PROGRAM, str(shared_broker.endpoint), topic]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert finished.stdout == "published\n"
    assert "ResourceWarning: unclosed client 'forgotten'" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_messages_of_any_thread_are_published_in_their_order(
    shared_broker: Broker, topic: str, run: Run
) -> None:
    """The first ones before the client knows the partitions of their topic."""
    handles: list[Any] = []

    async def publish() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client:

            def publish_all(thread: int) -> None:
                for number in range(MESSAGES):
                    handles.append(client.publish_nowait(topic, b"%d:%d" % (thread, number)))  # noqa: PERF401

            threads = [threading.Thread(target=publish_all, args=(thread,)) for thread in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for handle in handles:
                await handle

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        run(publish)
    finally:
        sys.setswitchinterval(interval)
    found: list[list[int]] = [[] for _ in range(THREADS)]
    with shared_broker.consumer(partitions=[(topic, 0)], auto_offset_reset="earliest") as consumer:
        while sum(map(len, found)) < THREADS * MESSAGES:
            for message in consumer.poll(TIMEOUT_S):
                thread, number = bytes(message.value).split(b":")
                found[int(thread)].append(int(number))
    assert found == THREADS * [list(range(MESSAGES))]


def test_two_threads_may_be_the_first_to_publish_to_a_topic(
    shared_broker: Broker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one publishes while the first begins to ask for the partitions of the topic."""
    find = Network.finding_partitions
    handles: list[Any] = []

    async def publish() -> None:
        async with planaria.aio.connect(shared_broker.endpoint) as client, asyncio.timeout(TIMEOUT_S):
            producer = client.producer()
            second = threading.Thread(
                target=lambda: handles.append(producer.publish_nowait(topic, b"second"))
            )

            def finding(network: Network, *arguments: Any) -> Any:
                if second.ident is None:
                    second.start()
                    second.join(0.2)  # it cannot go on before this thread has begun
                return find(network, *arguments)

            monkeypatch.setattr(Network, "finding_partitions", finding)
            handles.append(producer.publish_nowait(topic, b"first"))
            await asyncio.to_thread(second.join)
            for handle in handles:
                assert (await handle).topic == topic

    asyncio.run(publish())
    assert len(handles) == 2
