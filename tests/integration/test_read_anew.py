"""A recreated topic, and a group that is reset, with processes killed: records to be read again are read."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from live_trees import TIMEOUT_S, actor, read_topic, until, until_reborn
from planaria import Broker, CommitFailed, Consumer, ProtocolError, TransactionAborted

pytestmark = pytest.mark.processes

COUNT = 60


def deliveries(*ordinary: str) -> Any:
    """All guarantees in long runs, and some in the ordinary run: each is there for hosted handlers and for programs."""
    return pytest.mark.parametrize(
        "delivery",
        [
            each if each in ordinary else pytest.param(each, marks=pytest.mark.chaos)
            for each in ("at-least-once", "at-most-once", "exactly-once")
        ],
    )


def kill(broker: Broker, *addresses: str) -> None:
    """Kill one after the other; each is back before the next one dies."""
    for address in addresses:
        before = until(lambda address=address: find(broker, address), f"{address} runs")
        broker.kill(address)
        until_reborn(broker.client, before)


def find(broker: Broker, address: str) -> Any:
    try:
        return actor(broker.client, address)
    except StopIteration:
        return None


def publish(broker: Broker, numbers: range) -> None:
    with broker.producer() as producer:
        for number in numbers:
            producer.publish("T", number, key=f"k{number % 7}")


def create_again(broker: Broker) -> None:
    broker.client.delete_topic("T")
    broker.create_topic("T", 2)


def committed(broker: Broker) -> int:
    return sum(offset for (topic, _), offset in broker.client.group_offsets("g").items() if topic == "T")


class Calls:
    """Calls of a hosted handler, over its processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def __call__(self, message: Any, context: Any) -> None:
        with self.path.open("a") as file:
            file.write(f"{message.data}\n")
        context.publish("OUT", message.data)

    def until_handled(self, broker: Broker, expected: dict[int, int]) -> None:
        """Wait until all of it is committed, before or after it was handled."""
        until(lambda: committed(broker) == COUNT, "all is committed")
        until(lambda: not Counter(expected) - self.counts(), "all is handled")

    def counts(self) -> Counter[int]:
        return Counter(map(int, self.path.read_text().split()))


@pytest.fixture
def calls(broker: Broker, tmp_path: Path) -> Calls:
    broker.create_topic("T", 2)
    broker.create_topic("OUT", 1)
    return Calls(tmp_path / "calls")


def check(broker: Broker, counts: Counter[int], expected: dict[int, int], delivery: str) -> None:
    """Check how often each record was handled: never less, and never more where that is guaranteed."""
    if delivery == "at-most-once":
        assert counts == Counter(expected)
    else:
        assert not Counter(expected) - counts
    if delivery == "exactly-once":
        assert Counter(message.data for message in read_topic(broker.client, "OUT")) == Counter(expected)


@deliveries("at-most-once", "exactly-once")
def test_a_hosted_subscriber_of_a_topic_that_is_created_again(
    broker: Broker, calls: Calls, delivery: str
) -> None:
    publish(broker, range(COUNT))
    broker.subscribe("g", "T", handler=calls, delivery=delivery, session_timeout_ms=3_000)
    calls.until_handled(broker, dict.fromkeys(range(COUNT), 1))
    kill(broker, "subscriber/g/1", "coordinator/g")
    create_again(broker)
    if delivery != "at-most-once":
        kill(broker, "coordinator/g", "subscriber/g/1")
    publish(broker, range(1_000, 1_000 + COUNT))
    if delivery != "at-most-once":
        kill(broker, "subscriber/g/1", "partition/T/0", "coordinator/g")
    once = dict.fromkeys([*range(COUNT), *range(1_000, 1_000 + COUNT)], 1)
    calls.until_handled(broker, once)
    check(broker, calls.counts(), once, delivery)


@deliveries("at-least-once")
def test_a_hosted_subscriber_of_a_group_that_is_set_back(broker: Broker, calls: Calls, delivery: str) -> None:
    publish(broker, range(COUNT))
    for times in (1, 2):
        subscription = broker.subscribe("g", "T", handler=calls, delivery=delivery, session_timeout_ms=3_000)
        calls.until_handled(broker, dict.fromkeys(range(COUNT), times))
        kill(broker, "subscriber/g/1", "coordinator/g")
        subscription.stop()
        broker.client.reset_offsets("g", {("T", 0): 0, ("T", 1): 0})
        kill(broker, "coordinator/g")
    check(broker, calls.counts(), dict.fromkeys(range(COUNT), 2), delivery)


class Program:
    """A program of the user's, which implements each delivery guarantee as the documentation says."""

    def __init__(self, broker: Broker, delivery: str) -> None:
        self.broker = broker
        self.delivery = delivery
        self.counts: Counter[int] = Counter()

    @contextmanager
    def consumer(self) -> Iterator[Consumer]:
        options: dict[str, Any] = {"auto_commit": False, "auto_offset_reset": "earliest"}
        with self.broker.consumer("g", ["T"], session_timeout_ms=3_000, **options) as consumer:
            yield consumer

    def turn(self, consumer: Consumer) -> None:
        try:
            self._turn(consumer)
        except (CommitFailed, TransactionAborted):
            if self.delivery == "exactly-once":
                consumer.seek_to_committed()
        except ProtocolError as error:
            if not error.retriable:
                raise

    def _turn(self, consumer: Consumer) -> None:
        if self.delivery == "exactly-once":
            producer = self.producer
            with producer.transaction() as tx:
                messages = consumer.poll(0.2)
                for message in messages:
                    tx.publish("OUT", message.data)
                tx.commit_offsets(consumer)
            self.counts.update(message.data for message in messages)
            return
        messages = consumer.poll(0.2)
        if self.delivery == "at-most-once":
            consumer.commit()
        self.counts.update(message.data for message in messages)
        if self.delivery == "at-least-once":
            consumer.commit()

    @contextmanager
    def running(self) -> Iterator[Consumer]:
        with (
            self.broker.client.producer(transactional_id="program") as self.producer,
            self.consumer() as consumer,
        ):
            yield consumer

    def read(self, consumer: Consumer, expected: dict[int, int]) -> None:
        def look() -> bool:
            self.turn(consumer)
            return not Counter(expected) - self.counts

        until(look, "all is read", 2 * TIMEOUT_S)


@deliveries("at-least-once", "exactly-once")
def test_a_program_that_reads_a_topic_that_is_created_again(
    broker: Broker, calls: Calls, delivery: str
) -> None:
    program = Program(broker, delivery)
    publish(broker, range(COUNT))
    once = dict.fromkeys(range(COUNT), 1)
    with program.running() as consumer:
        program.read(consumer, once)
        kill(broker, "coordinator/g")
        create_again(broker)
        kill(broker, "coordinator/g", "partition/T/0")
        publish(broker, range(1_000, 1_000 + COUNT))
        kill(broker, "partition/T/1")
        once |= dict.fromkeys(range(1_000, 1_000 + COUNT), 1)
        program.read(consumer, once)
        program.turn(consumer)
    check(broker, program.counts, once, delivery)


@deliveries("at-most-once")
def test_a_program_whose_group_is_set_back(broker: Broker, calls: Calls, delivery: str) -> None:
    program = Program(broker, delivery)
    publish(broker, range(COUNT))
    for times in (1, 2):
        with program.running() as consumer:
            program.read(consumer, dict.fromkeys(range(COUNT), times))
            kill(broker, "coordinator/g")
            program.turn(consumer)
        broker.client.reset_offsets("g", {("T", 0): 0, ("T", 1): 0})
        kill(broker, "coordinator/g")
    check(broker, program.counts, dict.fromkeys(range(COUNT), 2), delivery)
