"""Quotas with real processes: a client is held to its rate, others are not, and a restart keeps the quota."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from live_trees import TIMEOUT_S, actor, read_topic, until
from planaria import Broker, Client, Delivery
from planaria.transport.token_bucket import BURST_S

pytestmark = pytest.mark.processes

RATE = 1_000_000
WINDOW_S = 2.0
MESSAGE = 10_000
BUFFER = 200_000
"""Bytes that a producer holds: their acknowledgements may come late, all in one window."""
SLACK = BUFFER + BURST_S * RATE
"""Bytes above the rate in one window: those of the buffer, and the burst of a bucket that a pause has filled."""


class Publishing:
    """A client that publishes as fast as it may, in a thread of its own."""

    def __init__(self, endpoint: str, client_id: str) -> None:
        self.acknowledged = 0
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(endpoint, client_id))
        self._thread.start()

    def _run(self, endpoint: str, client_id: str) -> None:
        with (
            Client(endpoint, client_id=client_id) as client,
            client.producer(linger_ms=0, batch_bytes=20_000, buffer_bytes=BUFFER) as producer,
        ):
            number = 0
            while not self._stop.is_set():
                delivery = producer.publish("T", b"%0*d" % (MESSAGE, number), headers={"from": client_id})
                delivery.add_callback(self._on_done)
                number += 1

    def _on_done(self, delivery: Delivery) -> None:
        error = delivery.exception(0)
        if error is None:
            self.acknowledged += MESSAGE
        else:
            self.errors.append(error)

    def rate(self, window_s: float = WINDOW_S) -> float:
        started, before = time.monotonic(), self.acknowledged
        time.sleep(window_s)
        return (self.acknowledged - before) / (time.monotonic() - started)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()


MOST = 1.1 * (RATE + SLACK / WINDOW_S)
"""The highest rate over a window under the quota. Without one it is at least twice as high."""


def held_rate(client: Publishing) -> float:
    """Return the rate at the quota. It is never above; a machine busy with other work may stay below for a while."""

    def look() -> float | None:
        rate = client.rate()
        assert rate < MOST
        return rate if rate > RATE / 3 else None

    return until(look, "it comes near its quota")


@contextmanager
def publishing(broker: Broker, client_id: str) -> Iterator[Publishing]:
    client = Publishing(broker.endpoint, client_id)
    try:
        yield client
    finally:
        client.stop()


def test_a_producer_is_held_to_its_quota_and_no_other_is(broker: Broker) -> None:
    broker.create_topic("T", 2)
    broker.client.set_quota("greedy", produce_bytes=RATE)
    with publishing(broker, "greedy") as greedy:
        until(lambda: greedy.acknowledged > RATE, "it is on its way")
        with publishing(broker, "other") as other:
            until(lambda: other.acknowledged > 0, "the other is on its way")
            held = held_rate(greedy)
            free = until(lambda: rate if (rate := other.rate(1)) > 5 * RATE else None, "the other is free")
        # Batches have headers of their own.
        print(f"\nquota {RATE}: {held:,.0f} bytes a second beside another's {free:,.0f}")
        broker.kill("gateway/0")
        broker.kill("controller")
        until(lambda: actor(broker.client, "gateway/0").state == "ready", "the gateway is back")
        until(lambda: actor(broker.client, "controller").state == "ready", "the controller is back")
        before = greedy.acknowledged
        until(lambda: greedy.acknowledged > before, "it goes on")
        assert greedy.rate() < MOST, "no restart forgets a quota"
        broker.client.remove_quota("greedy")
        until(lambda: greedy.rate(0.5) > 3 * RATE, "it is free again at once")
    assert not greedy.errors
    assert not other.errors
    values = [
        message.value for message in read_topic(broker.client, "T") if message.headers["from"] == "greedy"
    ]
    assert len(values) == len(set(values)) == greedy.acknowledged // MESSAGE, (
        "nothing is lost, nothing doubled"
    )


def test_a_client_that_talks_to_partitions_is_called_back_to_the_gateway(broker: Broker) -> None:
    broker.create_topic("T", 2)
    with publishing(broker, "greedy") as greedy:
        until(lambda: greedy.acknowledged > 0, "it is on its way")
        until(lambda: greedy.rate(1) > 5 * RATE, "nothing holds it")
        broker.client.set_quota("greedy", produce_bytes=RATE)
        until(lambda: greedy.rate() < MOST, "its quota holds")
        held_rate(greedy)
        broker.kill("partition/T/0")
        broker.kill("controller")
        until(lambda: actor(broker.client, "partition/T/0").state == "ready", "the partition is back")
        assert greedy.rate() < MOST
    assert not greedy.errors


def test_a_consumer_is_held_to_its_quota(broker: Broker) -> None:
    broker.create_topic("READ", 1)
    with broker.client.producer(batch_bytes=20_000) as producer:
        for number in range(1_000):
            producer.publish("READ", (b"%d" % number).ljust(MESSAGE))
    broker.client.set_quota("default", fetch_bytes=RATE)
    broker.client.set_quota("embedded", fetch_bytes=-1)
    with (
        Client(broker.endpoint, client_id="reader") as client,
        client.consumer(
            partitions=[("READ", 0)], auto_offset_reset="earliest", fetch_max_bytes=100_000
        ) as consumer,
    ):
        seen: list[int] = []
        while len(seen) < 50:
            seen += [int(message.value or b"") for message in consumer.poll(TIMEOUT_S)]
        started, before = time.monotonic(), len(seen)
        while len(seen) < before + 300:
            seen += [int(message.value or b"") for message in consumer.poll(TIMEOUT_S)]
        rate = (len(seen) - before) * MESSAGE / (time.monotonic() - started)
        print(f"\nquota {RATE}: {rate:,.0f} bytes a second fetched")
        assert rate < MOST
        assert seen == list(range(len(seen)))
    # On a machine where a free reader is as slow as the quota, another try may be faster.
    until(
        lambda: seconds_to_read(broker) < 0.8 * 1_000 * MESSAGE / RATE, "a client without a limit is not held"
    )


def seconds_to_read(broker: Broker) -> float:
    started = time.monotonic()
    assert len(read_topic(broker.client, "READ")) == 1_000
    return time.monotonic() - started
