"""Messages published to a partition before its readers know it: read from its beginning under any policy."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from live_trees import until
from planaria import Broker, Client, Consumer, ProtocolError
from planaria.transport.protocol.errors import ErrorCode

pytestmark = pytest.mark.processes


class Reading:
    """Records that a reader has received so far."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()

    def take(self, messages: list[Any]) -> None:
        self.numbers |= {message.data for message in messages}


@contextmanager
def polling(consumer: Any, reading: Reading) -> Iterator[None]:
    is_over = threading.Event()

    def poll() -> None:
        while not is_over.is_set():
            try:
                reading.take(consumer.poll(0.1))
            except ProtocolError as error:
                # As long as the topic does not exist; a reader without a group has to continue by a seek.
                if error.code != ErrorCode.UNKNOWN_TOPIC:
                    raise
                for position in consumer.assignment() if isinstance(consumer, Consumer) else ():
                    consumer.seek(*position, 0)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextmanager
def group(broker: Broker, reading: Reading, path: Path) -> Iterator[None]:
    with (
        broker.consumer("g", ["T"], auto_offset_reset="latest") as consumer,
        polling(consumer, reading),
    ):
        yield


@contextmanager
def nobody(broker: Broker, reading: Reading, path: Path) -> Iterator[None]:
    """Read without a group."""
    with (
        broker.client.consumer(None, ["T"], auto_offset_reset="latest") as consumer,
        polling(consumer, reading),
    ):
        yield


@contextmanager
def share_group(broker: Broker, reading: Reading, path: Path) -> Iterator[None]:
    broker.client.configure_share_group("q", start="latest")
    with (
        broker.client.share_consumer("q", "T", acknowledge="implicit") as consumer,
        polling(consumer, reading),
    ):
        yield


@contextmanager
def hosted(broker: Broker, reading: Reading, path: Path) -> Iterator[None]:
    path.touch()

    def handle(message: Any) -> None:
        with path.open("a") as file:
            file.write(f"{message.data}\n")

    subscription = broker.subscribe("h", "T", handler=handle, auto_offset_reset="latest")
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(0.05):
            reading.numbers |= {int(line) for line in path.read_text().split()}

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        subscription.stop()


READERS = [group, nobody, share_group, hosted]


def publish(broker: Broker, numbers: range) -> None:
    with Client(broker.endpoint) as client:  # it knows the existing partitions
        partitions = len(client.describe_topic("T").partitions)
        for number in numbers:
            client.publish("T", number, partition=number % partitions)


def until_it_reads(broker: Broker, reading: Reading) -> None:
    """Wait until it reads from "latest" on: earlier messages are skipped."""
    number = -1

    def look() -> bool:
        nonlocal number
        broker.client.publish("T", number, partition=0)
        number -= 1
        return bool(reading.numbers)

    until(look, "the reader stands at the end")


@pytest.mark.parametrize("reader", READERS)
def test_a_topic_grows_under_its_readers(broker: Broker, tmp_path: Path, reader: Callable[..., Any]) -> None:
    broker.create_topic("T", 1)
    reading = Reading()
    with reader(broker, reading, tmp_path / "calls"):
        until_it_reads(broker, reading)
        broker.client.alter_topic("T", 3)
        publish(broker, range(30))
        until(lambda: reading.numbers >= set(range(30)), "all that came since")


@pytest.mark.parametrize("reader", READERS)
def test_a_topic_is_created_again_under_its_readers(
    broker: Broker, tmp_path: Path, reader: Callable[..., Any]
) -> None:
    broker.create_topic("T", 1)
    reading = Reading()
    with reader(broker, reading, tmp_path / "calls"):
        until_it_reads(broker, reading)
        broker.client.delete_topic("T")
        broker.create_topic("T", 2)
        publish(broker, range(30))
        until(lambda: reading.numbers >= set(range(30)), "all that is in the new one")


@pytest.mark.parametrize("reader", [group])
def test_a_topic_is_created_after_its_readers_have_subscribed(
    broker: Broker, tmp_path: Path, reader: Callable[..., Any]
) -> None:
    broker.create_topic("OTHER", 1)
    reading = Reading()
    with (
        broker.consumer("g", ["OTHER", "T"], auto_offset_reset="latest") as consumer,
        polling(consumer, reading),
    ):
        until(lambda: ("OTHER", 0) in [tuple(each) for each in consumer.assignment()], "it has joined")
        broker.create_topic("T", 2)
        publish(broker, range(30))
        until(lambda: reading.numbers >= set(range(30)), "all that is in it")
