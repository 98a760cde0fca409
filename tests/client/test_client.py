"""Operators' requests: harmless retries, plain errors, a clean end."""

import queue
import threading
from typing import Any

import pytest

from fake_broker import FakeBroker
from patience import TIMEOUT_S
from planaria import TopicExists
from planaria.transport.client.client import Client
from planaria.transport.client.errors import Closed, DeliveryUncertain, TimedOut
from planaria.transport.client.producer import batching_of
from planaria.transport.protocol.errors import ErrorCode, PlanariaError, ProtocolError


def test_topics(client: Client, broker: FakeBroker) -> None:
    assert len(client.create_topic("NEW", 3).partitions) == 3
    assert len(client.describe_topic("NEW").partitions) == 3
    with pytest.raises(ProtocolError, match="TOPIC_EXISTS"):
        client.create_topic("NEW", 3)
    assert len(client.create_topic("NEW", 2, if_not_exists=True).partitions) == 3
    with pytest.raises(TopicExists, match="alter_topic can add partitions"):
        client.create_topic("NEW", 5, if_not_exists=True)
    client.delete_topic("NEW")
    with pytest.raises(ProtocolError, match="UNKNOWN_TOPIC"):
        client.delete_topic("NEW")


def test_a_creation_without_an_answer_is_its_own_success(remote_broker: FakeBroker) -> None:
    with Client(remote_broker.endpoint) as client:
        client.create_topic("FIRST")
        remote_broker.fault("create_topic", "answer lost")
        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(len(client.create_topic("NEW", 2).partitions)))
        thread.start()
        while remote_broker.count("create_topic") < 2:
            remote_broker.do(lambda: None)
        remote_broker.kill_gateway()
        remote_broker.start_gateway()
        thread.join(TIMEOUT_S)
        assert done == [2]


def test_a_creation_that_meets_another_topic_says_so(client: Client, broker: FakeBroker) -> None:
    broker.fault("create_topic", ErrorCode.ACTOR_UNAVAILABLE)
    with pytest.raises(ProtocolError, match="exists and is different"):
        client.create_topic("T", 7)


def test_a_deletion_without_an_answer_is_its_own_success(client: Client, broker: FakeBroker) -> None:
    broker.do(lambda: broker.counts.pop("T"))
    broker.fault("delete_topic", ErrorCode.ACTOR_UNAVAILABLE)
    client.delete_topic("T")


def test_publish_and_fetch(client: Client, broker: FakeBroker) -> None:
    where = client.publish("T", {"a": 1}, key="k")
    assert where.offset == 0
    assert client.list_offsets("T", where.partition).offset == 1
    reply, frames = client._fetch("T", where.partition, 0)
    assert reply.next_offset == 1
    assert len(frames) == 1


def test_a_kill_whose_answer_is_lost_is_not_repeated(remote_broker: FakeBroker) -> None:
    with Client(remote_broker.endpoint) as client:
        client.list_groups()
        remote_broker.fault("kill", "swallow")
        found: list[ProtocolError] = []

        def kill() -> None:
            with pytest.raises(ProtocolError) as caught:
                client.kill("gateway/0")
            found.append(caught.value)

        thread = threading.Thread(target=kill)
        thread.start()
        while remote_broker.count("kill") == 0:
            remote_broker.do(lambda: None)
        remote_broker.kill_gateway()
        remote_broker.start_gateway()
        thread.join(TIMEOUT_S)
        assert [error.retriable for error in found] == [True]
        client.list_groups()
        assert remote_broker.count("kill") == 1


def test_nobody_there(endpoint: str) -> None:
    with (
        Client(endpoint, request_timeout_ms=50) as client,
        pytest.raises(TimedOut, match="no broker answers at"),
    ):
        client.list_topics()


def test_a_broker_that_comes_later_is_found(endpoint: str) -> None:
    with Client(endpoint, request_timeout_ms=10_000) as client:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(len(client.list_groups())))
        thread.start()
        with FakeBroker(endpoint):
            thread.join(TIMEOUT_S)
        assert found == [0]


def test_wrong_endpoints_are_named() -> None:
    with pytest.raises(PlanariaError, match=r"tcp://HOST:PORT"):
        Client("tcp://nowhere")


def test_a_closed_client_refuses(client: Client, broker: FakeBroker) -> None:
    client.close()
    client.close()
    with pytest.raises(Closed):
        client.list_groups()


def test_closing_ends_those_who_wait(broker: FakeBroker) -> None:
    client = Client(broker.endpoint)
    broker.fault("list_groups", "swallow")
    errors: list[Exception] = []

    def ask() -> None:
        try:
            client.list_groups()
        except PlanariaError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while broker.count("list_groups") == 0:
        broker.do(lambda: None)
    client.close()
    thread.join(TIMEOUT_S)
    assert [type(error) for error in errors] == [Closed]


def test_a_callback_that_would_wait_for_itself_is_told(client: Client, broker: FakeBroker) -> None:
    heard: list[BaseException] = []
    done = threading.Event()

    def callback(_: object) -> None:
        try:
            client.list_groups()
        except PlanariaError as error:
            heard.append(error)
        done.set()

    broker.kill_partition("T", 0)  # not acknowledged before it has a callback, which would run in this thread
    client.producer().publish("T", b"x", partition=0).add_callback(callback)
    broker.start_partition("T", 0)
    assert done.wait(TIMEOUT_S)
    assert "callback" in str(heard[0])


class Broken:
    def handle(self, event: Any, now: int) -> list[Any]:
        raise RuntimeError("a bug")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_network_thread_that_fails_leaves_nobody_waiting(client: Client, broker: FakeBroker) -> None:
    broker.fault("produce", "swallow")  # a lone message is sent at once, and would be acknowledged
    producer = client.producer()
    delivery = producer.publish("T", b"v")
    consumer = client.consumer(None, "T")
    told = queue.Queue[Exception]()

    def wait() -> None:
        try:
            consumer.poll(None)
        except PlanariaError as error:
            told.put(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    client._network.post(Broken(), None)
    with pytest.raises(DeliveryUncertain, match="network thread failed: RuntimeError"):
        delivery.result(10)
    assert "network thread failed" in str(told.get(timeout=TIMEOUT_S))
    waiting.join()
    for late in (lambda: producer.publish("T", b"v"), client.list_topics):
        with pytest.raises(PlanariaError, match="network thread failed"):
            late()


@pytest.mark.parametrize("is_block_raising", [False, True])
def test_one_that_cannot_be_closed_leaves_none_of_the_others_open(
    remote_broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, is_block_raising: bool
) -> None:
    def fail(*_: object) -> None:
        raise PlanariaError("cannot close")

    client = Client(remote_broker.endpoint)
    first, second = batching_of(client.producer()), client.consumer(topics="T")
    closed: list[bool] = []
    close, leave = second.close, second.__exit__
    monkeypatch.setattr(first, "close", fail)
    monkeypatch.setattr(first, "__exit__", fail, raising=False)
    monkeypatch.setattr(second, "close", lambda: closed.append(close() is None))
    monkeypatch.setattr(second, "__exit__", lambda *why: closed.append(leave(*why) is None), raising=False)
    why = ValueError("left") if is_block_raising else None
    with pytest.raises(PlanariaError, match="cannot close"):
        client.__exit__(type(why) if why else None, why, None)
    assert closed == [True]
    with pytest.raises(Closed):
        second.poll(0)
