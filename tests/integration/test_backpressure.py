"""A slow group and a fast producer, in real processes: the producer waits or gets an error, no message is lost."""

import os
import re
import threading
import time
from pathlib import Path

import msgspec
import pytest

from live_trees import TIMEOUT_S, actor, read_topic, until, until_reborn
from planaria import Broker, Consumer, Delivery
from planaria.transport.client.errors import Backpressure

pytestmark = pytest.mark.processes

PARTITION = "partition/T/0"
LIMIT = 1_000
BATCH = 200


class FastProducer(threading.Thread):
    """Publishes 0, 1, 2 ... as fast as it may."""

    def __init__(self, broker: Broker, count: int, **options: int) -> None:
        super().__init__()
        self._producer = broker.client.producer(**options)
        self._count = count
        self.deliveries: list[Delivery] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with self._producer as producer:
                for number in range(self._count):
                    self.deliveries.append(producer.publish("T", b"%0100d" % number))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            self.error = error

    def offsets(self) -> list[int]:
        self.join(TIMEOUT_S)
        assert not self.is_alive()
        assert self.error is None, self.error
        return [delivery.result(0).offset for delivery in self.deliveries]


def joined(broker: Broker, directory: Path) -> Consumer:
    """Return a member of the group `slow`, which the partition already tracks."""
    consumer = broker.client.consumer("slow", ["T"], auto_commit=False, auto_offset_reset="earliest")
    until(lambda: consumer.poll(0.1) or consumer.assignment(), "the member has its partition")
    until((directory / "topics/T/0/groups").exists, "the partition knows of the group")
    return consumer


def is_refusing(broker: Broker) -> bool:
    return any(
        "producers are refused: group slow" in alarm for alarm in actor(broker.client, PARTITION).alarms
    )


def end_of(broker: Broker) -> int:
    return broker.client.list_offsets("T", 0, "latest").offset


def test_a_slow_group_holds_up_a_fast_producer_over_kills(broker: Broker, data_of_the_module: Path) -> None:
    broker.create_topic("T", 1, max_backlog_messages=LIMIT)
    consumer = joined(broker, data_of_the_module)
    count = 6 * LIMIT
    producer = FastProducer(broker, count, batch_records=BATCH)
    producer.start()
    until(lambda: is_refusing(broker), "producers are refused")
    assert LIMIT < end_of(broker) <= LIMIT + BATCH
    for address in (PARTITION, "coordinator/slow"):
        before = actor(broker.client, address)
        broker.client.kill(address)
        until_reborn(broker.client, before)
    until(lambda: is_refusing(broker), "producers are refused by the next incarnation")
    assert end_of(broker) <= LIMIT + BATCH
    values: list[int] = []
    with consumer:
        while len(values) < count:
            messages = consumer.poll(TIMEOUT_S, max_messages=100)
            assert messages, f"nothing after {len(values)}"
            assert end_of(broker) - len(values) <= LIMIT + BATCH
            values += [int(message.value) for message in messages]
            consumer.commit()
    assert values == list(range(count))
    assert producer.offsets() == list(range(count))
    until(lambda: not actor(broker.client, PARTITION).alarms, "nobody is refused any more")


def test_an_impatient_producer_is_told_at_once(broker: Broker, data_of_the_module: Path) -> None:
    broker.create_topic("T", 1, max_backlog_bytes=10_000)
    with (
        joined(broker, data_of_the_module) as consumer,
        broker.client.producer(on_backpressure="raise", linger_ms=0, max_block_ms=120_000) as producer,
    ):
        taken: list[Delivery] = []

        def is_notified() -> bool:
            try:
                taken.append(producer.publish("T", b"v" * 1_000))
            except Backpressure as error:
                return error.retry_after_ms is not msgspec.UNSET
            return False

        until(is_notified, "publish raises")
        started = time.monotonic()
        assert is_notified()
        assert time.monotonic() - started < 60, "it does not wait for room"
        seen = 0
        while seen < len(taken) or is_notified():
            seen += len(consumer.poll(0.2))
            consumer.commit()
        producer.flush(TIMEOUT_S)
        assert all(delivery.exception(0) is None for delivery in taken)


def test_what_a_group_has_not_read_outlives_retention_and_kills(
    broker: Broker, data_of_the_module: Path
) -> None:
    settings = {"segment_bytes": 1_024, "retention_ms": 0, "segment_ms": 200}
    broker.create_topic("T", 1, retain_until_consumed=True, **settings)
    broker.create_topic("PLAIN", 1, **settings)
    client = broker.client

    def start_of(topic: str) -> int:
        return client.list_offsets(topic, 0, "earliest").offset

    def commit(offset: int) -> None:
        with client.consumer("slow", partitions=[("T", 0)]) as consumer:
            consumer.commit({("T", 0): offset})

    commit(0)
    until((data_of_the_module / "topics/T/0/groups").exists, "the partition knows of the group")
    for topic in ("T", "PLAIN"):
        for number in range(10):
            broker.publish(topic, None, "v" * 900 + str(number))
    until(lambda: start_of("PLAIN") == 10, "retention deletes everything where nobody is asked")
    assert start_of("T") == 0
    before = actor(client, PARTITION)
    client.kill(PARTITION)
    until_reborn(client, before)
    commit(4)
    until(lambda: start_of("T") == 4, "what is consumed goes")
    assert [message.data[-1] for message in read_topic(client, "T")] == ["4", "5", "6", "7", "8", "9"]
    client.delete_group("slow")
    until(lambda: start_of("T") == 10, "a deleted group holds back nothing")


def own_memory_kb() -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


@pytest.mark.chaos
def test_memory_stays_flat_while_a_slow_group_holds_up_a_fast_producer(
    broker: Broker, data_of_the_module: Path
) -> None:
    broker.create_topic("T", 1, max_backlog_messages=10_000, segment_bytes=8 * 1024 * 1024, retention_bytes=0)
    consumer = joined(broker, data_of_the_module)
    duration_s = float(os.environ.get("BACKPRESSURE_S", "60"))
    stop = threading.Event()
    published, errors = [0], []

    def publish() -> None:
        with broker.client.producer(buffer_bytes=4 * 1024 * 1024) as producer:
            try:
                while not stop.is_set():
                    producer.publish("T", b"%0100d" % published[0])
                    published[0] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
                errors.append(error)

    thread = threading.Thread(target=publish)
    peaks: list[dict[str, int]] = []
    seen = worst = 0
    started = sampled = time.monotonic()
    thread.start()
    with consumer:
        while thread.is_alive() or seen < published[0]:
            messages = consumer.poll(0.1, max_messages=1_000)
            assert [int(message.value) for message in messages] == list(range(seen, seen + len(messages)))
            seen += len(messages)
            consumer.commit()
            time.sleep(0.02)  # the slow handler
            now = time.monotonic()
            if now - started > duration_s:
                stop.set()
            if now - sampled > 1:
                sampled = now
                worst = max(worst, end_of(broker) - seen)
                sample = {each.address: each.memory_bytes // 1024 for each in broker.client.status().actors}
                peaks.append(sample | {"this program": own_memory_kb()})
    thread.join()
    third = len(peaks) // 3
    memory = {
        name: (max(each[name] for each in peaks[:third]), max(each[name] for each in peaks[third:]))
        for name in peaks[0]
    }
    print(
        f"\n{seen} messages in {duration_s:.0f} s, at most {worst} behind; memory at its peak, KiB: first third, after"
    )
    for name, (early, late) in memory.items():
        print(f"    {name:24}{early:9}{late:9}")
    assert errors == []
    assert seen == published[0]
    assert worst <= 10_000 + 20_000
    for name, (early, late) in memory.items():
        assert late <= early * 1.1 + 2_048, name
