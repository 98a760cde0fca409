"""The share consumer through real processes: locks, verdicts, renewal, batching, the end."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from live_trees import read_topic, until
from patience import TIMEOUT_S
from planaria import Broker, Closed, PlanariaError, Reject, Release
from planaria.transport.protocol.errors import ProtocolError

pytestmark = pytest.mark.processes


def publish(broker: Broker, count: int, topic: str = "T") -> None:
    with broker.producer() as producer:
        for number in range(count):
            producer.publish(topic, {"number": number})


def done(broker: Broker, group: str = "g") -> int:
    share = broker.client.describe_group(group).share
    assert share is not None
    return sum(each.start_offset for each in share.partitions)


def test_many_records_are_taken_from_large_batches_each_once(broker: Broker) -> None:
    broker.create_topic("MANY", 3)
    publish(broker, 30_000, "MANY")
    seen = []
    with broker.share_consumer("g", "MANY") as consumer:
        while len(seen) < 30_000:
            messages = consumer.poll(TIMEOUT_S, max_messages=1_000)
            assert messages
            assert {message.delivery_count for message in messages} == {1}
            consumer.acknowledge(messages)
            seen += [message.data["number"] for message in messages]
        assert consumer.flush() == []
        assert consumer.poll(0.0) == []
    assert sorted(seen) == list(range(30_000))
    assert done(broker) == 30_000


def test_implicitly_a_poll_accepts_what_the_last_one_returned(broker: Broker) -> None:
    broker.create_topic("T", 1)
    publish(broker, 10)
    with broker.share_consumer("g", "T", acknowledge="implicit") as consumer:
        first = consumer.poll(TIMEOUT_S, max_messages=6)
        first[-1].fail()
        assert [message.offset for message in consumer.poll(TIMEOUT_S, max_messages=1)] == [len(first) - 1]
        left = 10 - len(first)
        while left:
            left -= len(consumer.poll(TIMEOUT_S))
    assert done(broker) == 10


def test_what_a_closed_consumer_held_goes_to_the_next_uncharged(broker: Broker) -> None:
    broker.create_topic("T", 1)
    publish(broker, 3)
    with broker.share_consumer("g", "T") as consumer:
        consumer.poll(TIMEOUT_S)[0].accept()
    with broker.share_consumer("g", "T") as consumer:
        found = consumer.poll(TIMEOUT_S)
        assert [(message.offset, message.delivery_count) for message in found] == [(1, 1), (2, 1)]


def test_locks_are_renewed_while_a_program_works(broker: Broker) -> None:
    broker.create_topic("T", 1)
    publish(broker, 2)
    broker.client.configure_share_group("g", lock_ms=6_000)
    with broker.share_consumer("g", "T") as consumer, broker.share_consumer("g", "T") as other:
        (kept, lost) = consumer.poll(TIMEOUT_S)
        assert other.poll(7.0) == []
        kept.accept()
        lost.fail()
        consumer.flush()
        assert [message.offset for message in other.poll(TIMEOUT_S)] == [1]


def test_what_is_said_too_late_is_told(broker: Broker) -> None:
    broker.create_topic("T", 1)
    publish(broker, 2)
    broker.client.configure_share_group("g", lock_ms=200)
    with broker.share_consumer("g", "T", renew=False) as consumer, broker.share_consumer("g", "T") as other:
        messages = consumer.poll(TIMEOUT_S)
        assert len(other.poll(TIMEOUT_S)) == 2
        consumer.acknowledge(messages)
        refused = consumer.flush()
        assert [(each.offset, each.error.code) for each in refused] == [
            (0, "NOT_ACQUIRED"),
            (1, "NOT_ACQUIRED"),
        ]
        with pytest.raises(PlanariaError, match="not held"):
            messages[0].accept()


def test_acknowledgements_are_sent_without_another_poll(broker: Broker) -> None:
    broker.create_topic("T", 1)
    publish(broker, 1)
    threads = threading.active_count()
    with broker.share_consumer("g", "T") as consumer:
        consumer.poll(TIMEOUT_S)[0].accept()
        until(lambda: done(broker) == 1, "it is accepted")
        assert threading.active_count() <= threads, "it needs no thread of its own"


def test_dead_letters_and_bad_input(broker: Broker) -> None:
    broker.create_topic("T", 1)
    broker.create_topic("DLQ", 1)
    publish(broker, 1)
    client = broker.client
    with pytest.raises(ProtocolError, match="no topic 'NOPE'"):
        client.configure_share_group("g", dead_letter="NOPE")
    client.configure_share_group("g", dead_letter="DLQ", max_deliveries=2)
    with broker.share_consumer("g", "T") as consumer:
        for count in (1, 2):
            (message,) = consumer.poll(TIMEOUT_S)
            assert message.delivery_count == count
            message.fail(reason=f"failure {count}")
        consumer.flush()
        (letter,) = until(lambda: read_topic(client, "DLQ"), "the letter")
        assert letter.headers["dead-letter-reason"] == "failure 2"
        assert letter.data == {"number": 0}
    with (
        pytest.raises(ProtocolError, match="own dead-letter topic"),
        client.share_consumer("g", "DLQ") as other,
    ):
        other.poll(0.0)
    with pytest.raises(PlanariaError, match="acknowledge"):
        client.share_consumer("g", "T", acknowledge="sometimes")
    with pytest.raises(ProtocolError, match="share group"), client.consumer("g", ["T"]) as member:
        until(lambda: member.poll(0.1), "refused")


def test_an_idle_poll_waits_as_long_as_it_is_told(broker: Broker) -> None:
    broker.create_topic("T", 1)
    with broker.share_consumer("g", "T") as consumer:
        started = time.monotonic()
        assert consumer.poll(0.5) == []
        assert time.monotonic() - started > 0.45


@pytest.mark.parametrize("mode", ["explicit", "implicit"])
def test_what_a_loop_has_not_yielded_is_never_accepted_and_comes_again(broker: Broker, mode: str) -> None:
    broker.create_topic("T", 1)
    publish(broker, 10)
    seen = []
    with broker.share_consumer("g", "T", acknowledge=mode) as consumer:
        for _ in range(3):
            for message in consumer:
                seen.append(message.offset)
                if mode == "explicit":
                    message.accept()
                break
        assert seen == [0, 1, 2]
    with broker.share_consumer("g", "T", acknowledge=mode) as consumer:
        left = consumer.poll(TIMEOUT_S)
        assert [(message.offset, message.delivery_count) for message in left] == [
            (offset, 1) for offset in range(3, 10)
        ]


def test_what_a_loop_has_left_behind_goes_to_others_before_its_lock_ends(broker: Broker) -> None:
    broker.create_topic("T", 1)
    publish(broker, 10)
    with broker.share_consumer("g", "T") as first, broker.share_consumer("g", "T") as second:
        for message in first:
            message.accept()
            break
        found = []
        while len(found) < 9:
            found += second.poll(TIMEOUT_S)
    assert {message.delivery_count for message in found} == {1}


def test_a_loop_whose_body_closes_the_consumer_ends(broker: Broker) -> None:
    broker.create_topic("T", 1)
    publish(broker, 3)
    consumer = broker.share_consumer("g", "T", acknowledge="implicit")
    seen = []
    for message in consumer:
        seen.append(message.offset)
        consumer.close()
    assert seen == [0]
    assert done(broker) == 1


@pytest.mark.parametrize("mode", ["explicit", "implicit"])
def test_a_loop_over_a_work_queue_leaves_the_work_to_others(broker: Broker, mode: str) -> None:
    broker.create_topic("T", 1)
    publish(broker, 10)
    with broker.share_consumer("g", "T", acknowledge=mode) as first, broker.share_consumer("g", "T") as other:
        jobs = iter(first)
        assert next(jobs).data == {"number": 0}
        assert len(other.poll(TIMEOUT_S)) == 8  # one is in progress, one more has been taken


def test_a_with_block_accepts_or_fails(broker: Broker) -> None:
    broker.create_topic("T", 1)
    broker.create_topic("DLQ", 1)
    publish(broker, 6)
    broker.client.configure_share_group("g", dead_letter="DLQ")
    with broker.share_consumer("g", "T") as consumer:
        jobs = consumer.poll(TIMEOUT_S)
        with jobs[0] as job:
            assert job is jobs[0]
        with pytest.raises(ValueError, match="no amount"), jobs[1]:
            raise ValueError("no amount")
        with pytest.raises(Reject), jobs[2]:
            raise Reject("does not parse")
        with pytest.raises(Release), jobs[3]:
            raise Release("later")
        with jobs[4] as job:
            job.fail(delay=600, reason="by itself")
        with pytest.raises(KeyboardInterrupt), jobs[5]:
            raise KeyboardInterrupt
        assert consumer.flush() == []
        found = {message.offset: message.delivery_count for message in consumer.poll(TIMEOUT_S)}
        assert found == {1: 2, 3: 1, 5: 1}
        share = broker.client.describe_group("g").share
        assert share is not None
        assert [each.reason for each in share.partitions[0].retrying] == ["by itself"]
        (letter,) = until(lambda: read_topic(broker.client, "DLQ"), "the letter")
        assert letter.headers["dead-letter-reason"] == "does not parse"


def test_three_workers_share_a_queue_evenly(broker: Broker) -> None:
    """Each prefetches at most one job: in every round each has one, and the last three may be held by fewer."""
    broker.create_topic("T", 1)
    publish(broker, 90)
    did: dict[str, int] = dict.fromkeys("abc", 0)
    all_have_one = threading.Barrier(len(did))

    def work(name: str) -> None:
        with broker.share_consumer("g", "T", member_id=name) as consumer:
            for job in consumer:
                with job:
                    all_have_one.wait(TIMEOUT_S / 4)
                    did[name] += 1
                if did[name] == 28:
                    return

    workers = [threading.Thread(target=work, args=(name,)) for name in did]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(TIMEOUT_S)
    assert did == dict.fromkeys("abc", 28)


def test_records_of_a_topic_made_again_are_not_taken_for_those_of_the_old_one(broker: Broker) -> None:
    def fill(word: str) -> None:
        broker.create_topic("T", 1)
        with broker.producer() as producer:
            for number in range(100):
                producer.publish("T", f"{word} {number}")

    fill("old")
    with broker.share_consumer("g", "T", acknowledge="implicit") as consumer:
        assert [message.data for message in consumer.poll(TIMEOUT_S, 2)] == ["old 0", "old 1"]
        broker.client.delete_topic("T")
        fill("new")
        seen: list[str] = []

        def read() -> bool:
            seen.extend(message.data for message in consumer.poll(0.5, 7))
            return "new 99" in seen

        until(read, "the new topic's records")
        assert [word for word in seen if word.startswith("new")] == [f"new {number}" for number in range(100)]


def test_a_program_that_ends_without_close_has_said_what_it_said(broker: Broker) -> None:
    broker.create_topic("T", 1)
    publish(broker, 3)
    program = f"""if True:
        from planaria import Client
        jobs = Client({broker.endpoint!r}).share_consumer("g", "T").poll({TIMEOUT_S})
        jobs[0].accept()
    """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=TIMEOUT_S)
    assert done(broker) == 1
    with broker.share_consumer("g", "T") as consumer:
        assert [(job.offset, job.delivery_count) for job in consumer.poll(TIMEOUT_S)] == [(1, 1), (2, 1)]


def test_a_closed_consumer_refuses(broker: Broker) -> None:
    broker.create_topic("T", 1)
    publish(broker, 1)
    consumer = broker.share_consumer("g", "T")
    (job,) = consumer.poll(TIMEOUT_S)
    consumer.close()
    for call in (job.accept, consumer.flush, consumer.renew, lambda: consumer.poll(0.0)):
        with pytest.raises(Closed):
            call()


def test_stop_ends_a_loop_after_its_message_and_wakes_a_waiting_one(broker: Broker) -> None:
    broker.create_topic("T", 1)
    publish(broker, 3)
    seen = []
    with broker.share_consumer("g", "T") as consumer:
        for message in consumer:
            with message:
                seen.append(message.offset)
                consumer.stop()
        assert consumer.is_stopped
        assert consumer.poll(60.0) == []
    assert seen == [0]
    with broker.share_consumer("g", "T") as consumer:
        assert [(each.offset, each.delivery_count) for each in consumer.poll(TIMEOUT_S)] == [(1, 1), (2, 1)]
    with broker.share_consumer("g", "T", acknowledge="implicit") as consumer:
        consumer.poll(TIMEOUT_S)
        stopper = threading.Timer(0.3, consumer.stop)
        stopper.start()
        assert list(consumer) == []
        stopper.join()


def test_a_waiting_poll_is_stopped_by_a_signal_handler_and_locks_nothing(broker: Broker) -> None:
    broker.create_topic("T", 1)
    consumer = broker.share_consumer("g", "T")
    before = signal.signal(signal.SIGUSR1, lambda *_: consumer.stop())
    try:
        sender = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
        sender.start()
        assert consumer.poll(None) == []
        sender.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    publish(broker, 5)
    with broker.share_consumer("g", "T") as other:
        found = 0  # all come, though the stopped one is still open
        while found < 5:
            messages = other.poll(TIMEOUT_S)
            assert messages
            found += len(messages)
    consumer.close()
