"""Handlers that fail in every way, in real processes: release, reject, raise, die."""

import os
import resource
from pathlib import Path
from typing import Any

import pytest

from live_trees import TIMEOUT_S, actor, read_topic, until
from planaria import Broker, Message, Reject, Release, TopicPartition
from planaria.transport.subscription import InvalidSubscription

pytestmark = pytest.mark.processes


def letters(broker: Broker, topic: str, count: int) -> list[Message]:
    return until(
        lambda: found if len(found := read_topic(broker.client, topic)) >= count else None,
        f"{count} letters in {topic}",
    )


def test_a_subscription_that_could_never_work_is_refused_at_once(broker: Broker) -> None:
    broker.create_topic("T", 1)
    broker.client.configure_share_group("queue")

    def refusal(group: str, topics: str | list[str] = "T", **options: Any) -> str:
        with pytest.raises(InvalidSubscription) as refused:
            broker.subscribe(group, topics, handler="shop:charge", **options)
        return str(refused.value)

    assert refusal("g", dead_letter="T.dql") == "dead_letter: there is no topic 'T.dql'; create it first"
    assert refusal("g", ["T", "U"]) == "topics: there is no topic 'U'; create it first"
    assert refusal("queue").startswith("group: 'queue' is a share group")
    assert not [each for each in broker.status().actors if each.address.startswith("subscriber/")]


def test_release_and_reject(broker: Broker, tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    def handle(message: Message) -> None:
        with seen.open("a") as file:
            file.write(f"{message.data}\n")
        if message.data == "later" and seen.read_text().count("later") < 4:
            raise Release("not yet")
        if message.data == "never":
            raise Reject("does not parse")

    broker.create_topic("T", 1)
    broker.create_topic("T.dlq", 1)
    for value in ("later", "never", "fine"):
        broker.publish("T", None, value)
    broker.subscribe("g", "T", handler=handle, retries=5, backoff_ms=60_000, dead_letter="T.dlq")
    until(lambda: seen.exists() and "fine" in seen.read_text(), "all is handled")
    assert seen.read_text().split() == ["later"] * 4 + ["never", "fine"]
    [letter] = letters(broker, "T.dlq", 1)
    headers = letter.headers
    assert letter.data == "never"
    assert (headers["dead-letter-failures"], headers["dead-letter-deliveries"]) == ("1", "1")
    assert headers["dead-letter-exception"].endswith("Reject")
    assert "does not parse" in headers["dead-letter-reason"]


def test_a_segfault_is_tried_so_often_and_told_of(broker: Broker, tmp_path: Path) -> None:
    tries = tmp_path / "tries"

    def handle(message: Message) -> None:
        if message.data == "poison":
            with tries.open("a") as file:
                file.write("x")
            import ctypes

            ctypes.string_at(0)

    broker.create_topic("T", 1)
    broker.create_topic("T.dlq", 1)
    for value in ("before", "poison", "after"):
        broker.publish("T", None, value)
    broker.subscribe("g", "T", handler=handle, retries=2, backoff_ms=[10], dead_letter="T.dlq")
    [letter] = letters(broker, "T.dlq", 1)
    assert tries.read_text() == "xxx"
    headers: dict[str, Any] = dict(letter.headers)
    assert headers["dead-letter-exit"] == "killed by SIGSEGV"
    assert (headers["dead-letter-failures"], headers["dead-letter-deliveries"]) == ("3", "3")
    assert 0 < int(headers["dead-letter-first-failure"]) < int(headers["dead-letter-last-failure"])
    until(lambda: broker.client.group_offsets("g").get(("T", 0)) == 3, "all is committed")  # type: ignore[call-overload]


def test_a_parked_record_shows_in_the_status_until_it_is_handled(broker: Broker, tmp_path: Path) -> None:
    fixed = tmp_path / "fixed"

    def handle(message: Message) -> None:
        if not fixed.exists():
            raise ValueError("the bank is closed")

    broker.create_topic("T", 1)
    broker.publish("T", None, 1)
    broker.subscribe("g", "T", handler=handle, retries=0, backoff_ms=[50])
    address = "subscriber/g/1"
    alarms = until(lambda: actor(broker.client, address).alarms, "the alarm", TIMEOUT_S)
    assert alarms == ["parked: T/0 offset 0 keeps failing: ValueError: the bank is closed"]
    fixed.touch()
    until(lambda: not actor(broker.client, address).alarms, "no alarm any more")
    until(lambda: broker.client.group_offsets("g").get(("T", 0)) == 1, "it is committed")  # type: ignore[call-overload]


def test_a_letter_of_a_killer_tells_where_it_was_and_what_memory_it_had(
    broker: Broker, data_of_the_module: Path
) -> None:
    flight = str(data_of_the_module / "subscribers" / "g-1.flight")

    def crash_here(message: Message) -> None:
        import ctypes
        from pathlib import Path

        # The peak of memory is noted now and then: not before that.
        while not any(Path(flight).read_bytes()[16:24]):
            pass
        ctypes.string_at(0)

    broker.create_topic("T", 1)
    broker.create_topic("T.dlq", 1)
    broker.publish("T", None, 1)
    broker.subscribe("g", "T", handler=crash_here, retries=0, dead_letter="T.dlq", concurrency=4)
    [letter] = letters(broker, "T.dlq", 1)
    stack = letter.headers["dead-letter-stack"]
    assert stack.startswith("Fatal Python error: Segmentation fault")
    assert "in crash_here" in stack
    assert 10_000_000 < int(letter.headers["dead-letter-peak-memory"]) < 10_000_000_000


def test_a_record_that_needs_too_much_memory_has_failed_and_its_process_goes_on(broker: Broker) -> None:
    def grow(message: Message) -> None:
        if message.data == "large":
            bytearray(512 * 1024 * 1024)

    broker.create_topic("T", 1)
    broker.create_topic("T.dlq", 1)
    for value in ("small", "large", "small"):
        broker.publish("T", None, value)
    limit = {"memory_limit": 256 * 1024 * 1024}
    broker.subscribe("memory", "T", handler=grow, retries=1, backoff_ms=[10], dead_letter="T.dlq", **limit)
    [letter] = letters(broker, "T.dlq", 1)
    assert letter.data == "large"
    assert letter.headers["dead-letter-reason"] == "MemoryError"
    assert letter.headers["dead-letter-failures"] == "2"
    until(lambda: broker.client.group_offsets("memory").get(("T", 0)) == 3, "all is committed")  # type: ignore[call-overload]
    assert actor(broker.client, "subscriber/memory/1").incarnation == 1


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_record_that_computes_for_too_long_has_failed(broker: Broker, concurrency: int) -> None:
    def spin(message: Message) -> None:
        while message.data == "endless":
            pass

    broker.create_topic("T", 1)
    broker.create_topic("T.dlq", 1)
    for value in ("short", "endless", "short"):
        broker.publish("T", None, value)
    options = {"cpu_limit": 0.2, "concurrency": concurrency, "dead_letter": "T.dlq"}
    broker.subscribe("g", "T", handler=spin, retries=1, backoff_ms=[10], **options)
    [letter] = letters(broker, "T.dlq", 1)
    assert letter.data == "endless"
    assert letter.headers["dead-letter-reason"] == "the handler exceeded cpu_limit"
    assert letter.headers["dead-letter-failures"] == "2"
    until(lambda: broker.client.group_offsets("g").get(("T", 0)) == 3, "all is committed")  # type: ignore[call-overload]


def test_a_process_without_a_free_descriptor_is_replaced(own_broker: Broker) -> None:
    """It could neither call the handler with success nor connect to the broker again."""

    def leak(message: Message) -> None:
        if message.data == "leaks":
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
            while True:
                os.open(os.devnull, os.O_RDONLY)
        os.close(os.open(os.devnull, os.O_RDONLY))

    own_broker.create_topic("T", 1)
    own_broker.create_topic("T.dlq", 1)
    own_broker.subscribe("leak", "T", handler=leak, retries=1, backoff_ms=[10], dead_letter="T.dlq")

    def handled(value: str, count: int) -> None:
        own_broker.publish("T", None, value)
        tp = TopicPartition("T", 0)
        until(lambda: own_broker.client.group_offsets("leak").get(tp) == count, f"{count} are committed")

    handled("good", 1)
    handled("leaks", 2)
    handled("good", 3)
    [letter] = letters(own_broker, "T.dlq", 1)
    assert letter.data == "leaks"
    assert actor(own_broker.client, "subscriber/leak/1").incarnation > 1
