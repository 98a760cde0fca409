"""The clients of a chaos run: producers and the members of a group in threads, a hosted group in processes of its own.

Each records its promises and its received values in the History. The hosted group's handler has no memory that
would survive its process, so it appends each value to a file, one line per value, before it returns.
"""

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from ...transport.client.client import Client
from ...transport.client.delivery import Delivery
from ...transport.client.errors import DeliveryFailed
from ...transport.client.messages import Message
from ...transport.client.producer import Producer
from ...transport.endpoints import Endpoints, listed_endpoints
from .history import History, LogEntry

TOPIC = "CHAOS"
MEMBERS_GROUP = "chaos-members"
HOSTED_GROUP = "chaos-hosted"
POLL_S = 0.2
BURST = 50


class Load(msgspec.Struct, frozen=True, kw_only=True):
    producers: int = 2
    members: int = 3
    keys_per_producer: int = 20
    messages_per_second: int = 2_000
    """Rate of each producer."""


class Workload:
    """Runs until `stop_producing`, then `drain`; an error in any of its threads is raised by `stop`."""

    def __init__(self, endpoint: Endpoints, history: History, load: Load, seed: int) -> None:
        """Connect to a broker; to the nodes of a cluster each client in an order of its own."""
        self._history = history
        self._load = load
        self._producing_over = threading.Event()
        self._consuming_over = threading.Event()
        self._errors: list[Exception] = []
        endpoints = listed_endpoints(endpoint)
        turns = [number % len(endpoints) for number in range(load.producers + load.members)]
        self._clients = [
            Client(endpoints[turn:] + endpoints[:turn], client_id=f"chaos-{number}")
            for number, turn in enumerate(turns)
        ]
        self._producers = [
            client.producer(delivery_timeout_ms=120_000) for client in self._clients[: load.producers]
        ]
        self._threads = [
            *(
                self._thread(self._produce, number, random.Random(seed + number))
                for number in range(load.producers)
            ),
            *(self._thread(self._consume, client) for client in self._clients[load.producers :]),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop_producing(self) -> None:
        """End the producers and wait until every message has an outcome."""
        self._producing_over.set()
        for thread in self._threads[: self._load.producers]:
            thread.join()

    def stop(self) -> None:
        """End everything. Raises the first error that a thread met."""
        self.stop_producing()
        self._consuming_over.set()
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.close()
        if self._errors:
            raise self._errors[0]

    def _thread(self, run: Callable[..., None], *arguments: object) -> threading.Thread:
        def guarded() -> None:
            try:
                run(*arguments)
            except Exception as error:
                self._errors.append(error)
                raise

        return threading.Thread(target=guarded, name=f"chaos-{run.__name__}", daemon=True)

    def _produce(self, number: int, chance: random.Random) -> None:
        counters = [0] * self._load.keys_per_producer
        pause_s = BURST / self._load.messages_per_second
        with self._producers[number] as producer:
            while not self._producing_over.wait(pause_s):
                for _ in range(BURST):
                    key = chance.randrange(self._load.keys_per_producer)
                    publish_value(producer, self._history, f"p{number}k{key}", counters[key])
                    counters[key] += 1
            producer.flush()

    def _consume(self, client: Client) -> None:
        with client.consumer(MEMBERS_GROUP, [TOPIC], auto_offset_reset="earliest") as consumer:
            while not self._consuming_over.is_set():
                messages = consumer.poll(POLL_S)
                self._history.on_delivered(MEMBERS_GROUP, [text_of(message) for message in messages])


def publish_value(
    producer: Producer, history: History, key: str, number: int, partition: int | None = None
) -> Delivery:
    """Publish `key:number` and record its outcome."""
    value = f"{key}:{number}"

    def record(delivery: Delivery) -> None:
        error = delivery.exception()
        if error is None:
            metadata = delivery.result()
            assert metadata.partition is not None
            assert metadata.offset is not None
            history.on_acknowledged(value, metadata.partition, metadata.offset)
        elif isinstance(error, DeliveryFailed):
            history.on_refused(value)
        else:
            history.on_unknown(value)

    delivery = producer.publish(TOPIC, value.encode(), key=key, partition=partition)
    delivery.add_callback(record)
    return delivery


def text_of(message: Message) -> str:
    assert message.value is not None
    return message.value.decode()


def journal_handler(directory: Path) -> Callable[[Message], None]:
    """Return a handler that appends each value to a file of its own process."""
    folder = str(directory)

    def note(message: Message) -> None:
        value = message.value or b""
        descriptor = os.open(f"{folder}/{os.getpid()}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{time.time_ns()} ".encode() + value + b"\n")
        finally:
            os.close(descriptor)

    return note


def read_journals(directory: Path) -> list[str]:
    """Return the values received by the hosted group, in the order of time, across all its processes."""
    # A line without an end is being written; it is read the next time.
    texts = [path.read_text().rpartition("\n")[0] for path in directory.iterdir()]
    lines = [line.split(" ", 1) for text in texts for line in text.splitlines()]
    return [value for _, value in sorted(lines, key=lambda line: int(line[0]))]


def read_log(client: Client, partitions: int) -> list[LogEntry]:
    """Return all values in the topic, from the start of each partition to its current end."""
    entries: list[LogEntry] = []
    for partition in range(partitions):
        end = client.list_offsets(TOPIC, partition, "latest").offset
        with client.consumer(partitions=[(TOPIC, partition)], auto_offset_reset="earliest") as consumer:
            position = 0
            while position < end:
                for message in consumer.poll(5.0, max_messages=10_000):
                    entries.append(LogEntry(partition, message.offset, text_of(message)))
                    position = message.offset + 1
    return entries
