"""`Consumer.stop` from any thread or signal handler ends the loop after the current message; one message is committed."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fake_broker import FakeBroker
from planaria.transport.addresses import TopicPartition
from planaria.transport.client.client import Client


def fill(client: Client, count: int) -> None:
    with client.producer() as producer:
        for number in range(count):
            producer.publish("T", b"%d" % number, partition=0)


@contextmanager
def handler_of(number: signal.Signals, call: Any) -> Iterator[None]:
    before = signal.signal(number, lambda *_: call())
    try:
        yield
    finally:
        signal.signal(number, before)


def test_a_loop_ends_after_the_message_at_which_it_was_stopped(client: Client, broker: FakeBroker) -> None:
    fill(client, 10)
    seen = []
    with client.consumer("g", ["T"], auto_offset_reset="earliest") as consumer:
        for message in consumer:
            seen.append(message.offset)
            if message.offset == 3:
                consumer.stop()
        assert consumer.is_stopped
        assert consumer.poll(60) == []
    assert seen == [0, 1, 2, 3]
    with client.consumer("g", ["T"]) as after:
        assert after.committed()[TopicPartition("T", 0)] == 4


def test_a_loop_ends_after_the_message_at_which_its_consumer_was_closed(
    client: Client, broker: FakeBroker
) -> None:
    fill(client, 10)
    consumer = client.consumer("g", ["T"], auto_offset_reset="earliest")
    seen = []
    for message in consumer:
        seen.append(message.offset)
        if message.offset == 3:
            consumer.close()
    assert seen == [0, 1, 2, 3]
    with client.consumer("g", ["T"]) as after:
        assert [message.offset for message in after.poll(60)] == [4, 5, 6, 7, 8, 9]


def test_a_waiting_loop_is_stopped_by_another_thread(client: Client, broker: FakeBroker) -> None:
    with client.consumer(topics=["T"]) as consumer:
        stopper = threading.Timer(0.2, consumer.stop)
        stopper.start()
        assert list(consumer) == []
        stopper.join()


def test_a_waiting_poll_is_stopped_by_a_signal_handler(client: Client, broker: FakeBroker) -> None:
    with client.consumer(topics=["T"]) as consumer, handler_of(signal.SIGUSR1, consumer.stop):
        sender = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
        sender.start()
        assert consumer.poll(None) == []
        sender.join()


def test_one_message_is_committed_with_all_before_it(client: Client, broker: FakeBroker) -> None:
    fill(client, 10)
    with client.consumer("g", ["T"], auto_offset_reset="earliest", auto_commit=False) as consumer:
        messages: list[Any] = []
        while len(messages) < 10:
            messages += consumer.poll(10)
        consumer.commit(messages[4])
        assert consumer.committed() == {TopicPartition("T", 0): 5}
