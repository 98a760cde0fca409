"""The producer against a fake broker: restarts, lost answers, deadlines, flush and close."""

import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fake_broker import FakeBroker
from live_trees import until
from patience import TIMEOUT_S, wait_until
from planaria.transport.batch import build
from planaria.transport.client.client import Client
from planaria.transport.client.content import RECORD_OVERHEAD_BYTES
from planaria.transport.client.errors import (
    BufferFull,
    Closed,
    DeliveryError,
    DeliveryFailed,
    DeliveryUncertain,
    TimedOut,
    UnknownTopic,
)
from planaria.transport.client.placement import BATCH_OVERHEAD_BYTES
from planaria.transport.client.producer import batching_of
from planaria.transport.protocol.errors import ErrorCode, ProtocolError


def numbers(broker: FakeBroker, partition: int = 0) -> list[int]:
    return [int(value) for value in broker.partitions["T", partition].values() if value is not None]


def publish(producer: Any, count: int, start: int = 0) -> list[Any]:
    return [producer.publish("T", b"%d" % number, partition=0) for number in range(start, start + count)]


def test_offsets_follow_each_other(client: Client, broker: FakeBroker) -> None:
    producer = client.producer()
    deliveries = publish(producer, 1_000)
    producer.flush(10)
    assert all(delivery.done() for delivery in deliveries)
    assert [delivery.result(0).offset for delivery in deliveries] == list(range(1_000))
    assert numbers(broker) == list(range(1_000))


def test_a_delivery_that_is_kept_does_not_keep_the_encoded_batch(client: Client, broker: FakeBroker) -> None:
    delivery: Any = client.producer().publish("T", bytes(50_000), partition=0)
    delivery.result(TIMEOUT_S)
    assert len(delivery._batch.records.take()) == 0


def test_records_go_directly_to_a_partition_on_this_machine(client: Client, broker: FakeBroker) -> None:
    client.producer().publish("T", b"1", partition=1).result(10)
    where = {
        door
        for request, door in zip(broker.seen, broker.doors, strict=True)
        if "Produce" in repr(type(request))
    }
    assert "T-1" in where


def test_messages_fail_with_a_line_if_nothing_waits_for_their_deliveries(
    client: Client, broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    producer = client.producer()
    broker.fault("produce", ErrorCode.MESSAGE_TOO_LARGE, times=2)
    late = producer.publish("T", b"1", partition=0)
    producer.flush(10)
    with pytest.raises(DeliveryFailed):
        late.result(10)
    producer.publish("T", b"2", partition=0)
    client.close()
    assert (
        "1 messages failed, and the program did not check their deliveries; the last ones to T/0"
        in caplog.text
    )


def test_records_go_through_the_gateway_from_elsewhere(remote_broker: FakeBroker) -> None:
    with Client(remote_broker.endpoint) as client:
        client.producer().publish("T", b"1", partition=1).result(10)
    assert set(remote_broker.doors) == {"gateway"}
    assert numbers(remote_broker, 1) == [1]


@pytest.mark.parametrize("loss", ["answer lost", ErrorCode.STORAGE_FULL, ErrorCode.OVERLOADED])
def test_a_failed_attempt_is_repeated_without_a_repeat(client: Client, broker: FakeBroker, loss: Any) -> None:
    publish(client.producer(), 1)[0].result(
        10
    )  # the topic is known: nothing else must be answered within 100 ms
    producer = client.producer(request_timeout_ms=100, batch_records=1)
    broker.fault("produce", loss)
    deliveries = publish(producer, 8, start=1)
    assert [delivery.result(10).offset for delivery in deliveries] == list(range(1, 9))
    assert numbers(broker) == list(range(9))


def test_a_partition_restart_loses_and_repeats_nothing(client: Client, broker: FakeBroker) -> None:
    producer = client.producer(batch_records=7)
    deliveries = publish(producer, 500)
    broker.kill_partition("T", 0)
    deliveries += publish(producer, 500, start=500)
    broker.start_partition("T", 0)
    assert [delivery.result(10).offset for delivery in deliveries] == list(range(1_000))
    assert numbers(broker) == list(range(1_000))


def test_a_gateway_restart_loses_and_repeats_nothing(remote_broker: FakeBroker) -> None:
    with Client(remote_broker.endpoint) as client:
        producer = client.producer(batch_records=7)
        deliveries = publish(producer, 500)
        remote_broker.kill_gateway()
        deliveries += publish(producer, 500, start=500)
        remote_broker.start_gateway()
        assert [delivery.result(10).offset for delivery in deliveries] == list(range(1_000))
    assert numbers(remote_broker) == list(range(1_000))


def test_batches_without_a_key_avoid_a_partition_that_is_down(client: Client, broker: FakeBroker) -> None:
    producer = client.producer()
    producer.publish("T", b"0", partition=0).result(10)
    producer.publish("T", b"0", partition=1).result(10)
    broker.kill_partition("T", 0)
    stuck = producer.publish("T", b"1", partition=0)  # so that the client notices
    while client._network.topics.is_online("T", 0, client._network.now_ms()):
        producer.publish("T", b"2", partition=1).result(10)
    assert {producer.publish("T", b"3").result(10).partition for _ in range(4)} == {1}
    broker.start_partition("T", 0)
    stuck.result(10)


def test_an_unknown_topic_is_an_error_in_plain_words(client: Client, broker: FakeBroker) -> None:
    with pytest.raises(UnknownTopic, match=r"unknown topic 'NOPE'; create it with"):
        client.producer().publish("NOPE", b"1")


def test_a_topic_created_meanwhile_is_found(broker: FakeBroker) -> None:
    with Client(broker.endpoint, metadata_timeout_ms=10_000) as client:
        timer = threading.Thread(target=lambda: broker.create_topic("NEW"))
        producer = client.producer()
        broker.fault("create_topic", "swallow")  # unused: the topic appears without it
        timer.start()
        assert producer.publish("NEW", b"1").result(10).offset == 0
        timer.join()


def test_a_partition_added_meanwhile_is_found(broker: FakeBroker) -> None:
    with Client(broker.endpoint, metadata_timeout_ms=10_000) as client, client.producer() as producer:
        producer.publish("T", b"0", partition=1).result(10)
        before = broker.count("metadata")
        found: list[int] = []

        def publish() -> None:
            found.append(producer.publish("T", b"1", partition=2).result(10).partition)

        thread = threading.Thread(target=publish)
        thread.start()
        while broker.count("metadata") == before:
            broker.do(lambda: None)
        broker.add_partition("T")
        thread.join(TIMEOUT_S)
        assert found == [2]


def test_a_partition_that_is_not_there(client: Client) -> None:
    with pytest.raises(ProtocolError, match="UNKNOWN_PARTITION"):
        client.producer().publish("T", b"1", partition=2)


def test_a_refused_batch_fails_and_the_next_is_delivered(client: Client, broker: FakeBroker) -> None:
    producer = client.producer(batch_records=1)
    publish(producer, 1)[0].result(10)
    broker.fault("produce", ErrorCode.MESSAGE_TOO_LARGE)
    first, second = publish(producer, 2, start=1)
    with pytest.raises(DeliveryFailed, match="MESSAGE_TOO_LARGE") as caught:
        first.result(10)
    assert not isinstance(caught.value, DeliveryUncertain)
    assert second.result(10).offset == 1


def test_a_delivery_that_takes_too_long_fails_as_uncertain(
    client: Client, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's clock is advanced: the first message's timeout must not affect the next one on a busy machine."""
    network = client._network
    producer = client.producer(delivery_timeout_ms=60_000, request_timeout_ms=120_000)
    broker.fault("produce", "swallow")
    (delivery,) = publish(producer, 1)
    until(lambda: broker.count("produce"), "the message is under way")
    monkeypatch.setattr(network._clock, "_anchor_ns", network._clock._anchor_ns + 60_000_000_000)
    network._wakes.wake()
    with pytest.raises(DeliveryUncertain, match="delivery_timeout_ms"):
        delivery.result(10)
    assert publish(producer, 1, start=1)[0].result(10).offset == 0


def test_a_fenced_producer_refuses_everything(client: Client, broker: FakeBroker) -> None:
    producer = client.producer()
    broker.fault("produce", ErrorCode.PRODUCER_FENCED)
    with pytest.raises(ProtocolError, match="PRODUCER_FENCED"):
        publish(producer, 1)[0].result(10)
    with pytest.raises(ProtocolError, match="PRODUCER_FENCED"):
        publish(producer, 1)


def test_a_full_buffer_blocks_then_refuses(client: Client, broker: FakeBroker) -> None:
    broker.kill_partition("T", 0)
    producer = client.producer(buffer_bytes=1_000, batch_bytes=500, max_block_ms=50)
    with pytest.raises(BufferFull):
        publish(producer, 10_000)
    broker.start_partition("T", 0)
    producer.flush(10)


def test_who_waits_is_let_pass_when_the_network_thread_has_done_its_work(
    client: Client, broker: FakeBroker
) -> None:
    broker.kill_partition("T", 0)
    producer = client.producer()
    (delivery,) = publish(producer, 1)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(delivery.result, 10)
        while not (gates := list(delivery._batch.gates)):
            assert not waiting.done()
        # Until then the waiting thread may run the turns itself.
        wait_until(lambda: gates[0] in client._network._turns.handover.waits)
        passed: list[bool] = []
        delivery.add_callback(lambda _: passed.append(not gates[0]._lock.locked()))
        broker.start_partition("T", 0)
        assert waiting.result(10).offset == 0
    assert passed == [False]


def test_flush_says_when_it_is_not_done(client: Client, broker: FakeBroker) -> None:
    broker.kill_partition("T", 0)
    producer = client.producer()
    (delivery,) = publish(producer, 1)
    with pytest.raises(TimedOut):
        producer.flush(0.05)
    broker.start_partition("T", 0)
    producer.flush(10)
    assert delivery.done()


def test_close_delivers_then_refuses(client: Client, broker: FakeBroker) -> None:
    with client.producer(linger_ms=60_000) as producer:
        delivery = producer.publish("T", b"1", partition=0)
    assert delivery.done()
    assert numbers(broker) == [1]
    with pytest.raises(Closed):
        producer.publish("T", b"2")


def test_closing_in_time_fails_what_is_left(client: Client, broker: FakeBroker) -> None:
    broker.kill_partition("T", 0)
    producer = client.producer()
    (delivery,) = publish(producer, 1)
    with pytest.raises(TimedOut):
        producer.close(0.05)
    with pytest.raises(DeliveryFailed, match="closed"):
        delivery.result(10)


def test_a_producer_that_was_closed_leaves_no_request_and_no_timer(
    client: Client, broker: FakeBroker
) -> None:
    exchange = client._network._dispatch.performer.exchange
    producer = client.producer(linger_ms=0, request_timeout_ms=60_000)
    publish(producer, 1)[0].result(10)
    broker.fault("produce", "answer lost")
    publish(producer, 1)
    until(lambda: exchange._pending, "the request to be under way")
    with pytest.raises(TimedOut):
        producer.close(0.05)
    bridge = batching_of(producer).bridge
    until(lambda: not any(each.owner is bridge for each in exchange._pending.values()), "nothing to be left")


@pytest.mark.parametrize("more_bytes", [0, 1])
def test_the_largest_message_that_passes_the_check_is_taken_and_no_larger_one(
    client: Client, broker: FakeBroker, more_bytes: int
) -> None:
    producer = client.producer()
    publish(producer, 1)[0].result(10)
    most_bytes = client._network.topics.largest_batch_bytes("T")
    assert most_bytes is not None
    value = bytes(most_bytes - BATCH_OVERHEAD_BYTES - RECORD_OVERHEAD_BYTES + more_bytes)
    if more_bytes:
        with pytest.raises(ProtocolError, match="MESSAGE_TOO_LARGE"):
            batching_of(producer).destinations.check("T", 0, len(value))
    else:
        batching_of(producer).destinations.check("T", 0, len(value))
        frame = build(
            [(None, value, 0, None)],
            first_timestamp_ms=0,
            max_timestamp_ms=0,
            producer_id=1,
            producer_epoch=0,
            base_sequence=0,
        )
        assert len(frame) <= most_bytes


def test_ctrl_c_while_waiting_leaves_the_client_whole(client: Client, broker: FakeBroker) -> None:
    broker.kill_partition("T", 0)
    producer = client.producer()
    (delivery,) = publish(producer, 1)
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        until(lambda: delivery._batch.gates, "the main thread to wait")
        signal.pthread_kill(main, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        delivery.result(30)
    interrupting.join()
    broker.start_partition("T", 0)
    assert delivery.result(10).offset == 0


@pytest.mark.parametrize(("codec", "library", "number"), [("zstd", "zstandard", 1), ("lz4", "lz4", 2)])
def test_compressed_batches_arrive(
    client: Client, broker: FakeBroker, codec: Any, library: str, number: int
) -> None:
    pytest.importorskip(library)
    producer = client.producer(compression=codec)
    publish(producer, 100)
    producer.flush(10)
    assert numbers(broker) == list(range(100))
    header = broker.partitions["T", 0].batches[0][0]
    assert header.attributes == number


def test_nobody_waits_when_nobody_acknowledges(client: Client, broker: FakeBroker) -> None:
    producer = client.producer(acks=0)
    assert publish(producer, 1)[0].result(10).offset is None
    client.producer().publish("T", b"1", partition=0).result(10)
    assert numbers(broker) == [0, 1]


def _publish_and_wait(client: Client) -> None:
    client.publish("T", b"from a callback")


def _exit(client: Client) -> None:
    sys.exit(3)


def _divide(client: Client) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("act", [_publish_and_wait, _exit, _divide])
def test_whatever_a_delivery_callback_does_the_client_goes_on(
    client: Client, broker: FakeBroker, caplog: pytest.LogCaptureFixture, act: Callable[[Client], None]
) -> None:
    client.publish("T", b"0")  # the callback's own producer is available
    producer = client.producer()
    broker.kill_partition("T", 0)  # not acknowledged before it has a callback, which would run in this thread
    delivery = producer.publish("T", b"1", partition=0)
    delivery.add_callback(lambda _: act(client))
    broker.start_partition("T", 0)
    assert delivery.result(10).offset >= 0
    assert producer.publish("T", b"2").result(10).offset >= 0
    until(lambda: caplog.records, "the callback has failed")  # results may be there before callbacks end
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is not None


def publish_one(publisher: Any, options: dict[str, Any]) -> None:
    published = publisher.publish("T", b"2", partition=0, **options)
    if not isinstance(publisher, Client):
        published.result(10)


@pytest.mark.parametrize("kind", ["plain", "dedup", "delayed", "client"])
def test_what_is_published_while_the_broker_is_down_has_surely_failed(broker: FakeBroker, kind: str) -> None:
    options: dict[str, Any] = {"dedup": {"dedup_id": "x"}, "delayed": {"delay": 60}}.get(kind, {})
    with Client(broker.endpoint, request_timeout_ms=2_000) as client:
        producer = client.producer(delivery_timeout_ms=400)
        producer.publish("T", b"1", partition=0).result(10)
        broker.kill_partition("T", 0)
        broker.kill_partition("T", 1)
        broker.kill_gateway()
        until(lambda: not client._network.has_session, "the client notices")
        with pytest.raises(DeliveryFailed):
            publish_one(client if kind == "client" else producer, options)
    assert numbers(broker) == [1]


def test_failed_and_uncertain_are_siblings() -> None:
    assert issubclass(DeliveryFailed, DeliveryError)
    assert issubclass(DeliveryUncertain, DeliveryError)
    assert not issubclass(DeliveryUncertain, DeliveryFailed)
