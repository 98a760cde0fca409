"""A backup of a busy broker is one instant: all that was acknowledged before, and nothing that contradicts it."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import planaria
from live_trees import read_topic
from patience import TIMEOUT_S
from planaria import Broker, Client, Message, TopicPartition

pytestmark = pytest.mark.processes

Account = dict[str, list[Any]]


def publish(client: Client, account: Account, stop: threading.Event) -> None:
    """Publish to a topic whose segments are small, and to one that is compacted."""
    with client.producer() as producer:
        number = 0
        while not stop.is_set():
            sent = [
                (
                    number + at,
                    producer.publish("PLAIN", number + at, key=str(at)),
                    producer.publish("COMPACTED", number + at, key=str(at)),
                )
                for at in range(20)
            ]
            for value, plain, compacted in sent:
                plain.result(TIMEOUT_S)
                compacted.result(TIMEOUT_S)
                account["published"].append(value)
            number += len(sent)


def transact(client: Client, account: Account, stop: threading.Event) -> None:
    """Move records of one topic to two others, with the offsets, in transactions."""
    with (
        client.producer(transactional_id="mover") as producer,
        client.consumer(
            "movers", ["PLAIN"], auto_offset_reset="earliest", auto_commit=False, session_timeout_ms=6_000
        ) as consumer,
    ):
        while not stop.is_set():
            messages = consumer.poll(0.5, 20)
            if not messages:
                continue
            with producer.transaction() as transaction:
                for message in messages:
                    transaction.publish("LEFT", message.value, key=message.key)
                    transaction.publish("RIGHT", message.value, key=message.key)
                transaction.commit_offsets(consumer)
            account["moved"] += [int(message.value) for message in messages]


def come_and_go(client: Client, account: Account, stop: threading.Event) -> None:
    """Create and delete topics, and delete old records."""
    while not stop.is_set():
        client.create_topic("PASSING", 1, if_not_exists=True)
        client.publish("PASSING", b"x")
        client.delete_topic("PASSING")
        client.delete_records("RETAINED", 0)
        client.publish("RETAINED", b"x")


def values(messages: list[Message]) -> list[int]:
    return [int(message.value) for message in messages]


def taken_while_busy(broker: Broker, backup: Path) -> list[tuple[str, Account]]:
    """Take two backups while all of the above runs; return their ids, with the account of before."""
    account: Account = {"published": [], "moved": []}
    stop, failed = threading.Event(), list[BaseException]()

    def run(work: Callable[[Client, Account, threading.Event], None]) -> None:
        try:
            with Client(broker.endpoint) as client:
                work(client, account, stop)
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in (publish, transact, come_and_go)]
    for thread in threads:
        thread.start()
    taken = []
    try:
        for count in (100, 300):
            while len(account["moved"]) < count and not failed:
                time.sleep(0.01)
            before = {name: list(done) for name, done in account.items()}
            done = planaria("backup", str(backup), "--json", "--connect", broker.endpoint)
            assert done.returncode == 0, done.stderr
            taken.append((f"{json.loads(done.stdout)['id']:015d}", before))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed, failed
    return taken


def check_restored(broker: Broker, account: Account) -> None:
    client = broker.client
    with client.producer(transactional_id="mover") as producer:
        producer.claim()  # ends the transaction that was open at the instant
    messages = read_topic(client, "PLAIN")
    plain = values(messages)
    assert set(account["published"]) <= set(plain)
    assert len(plain) == len(set(plain))
    newest = {message.key: int(message.value) for message in read_topic(client, "COMPACTED")}
    for value in account["published"]:
        assert newest[str(value % 20).encode()] >= value
    left, right = values(read_topic(client, "LEFT")), values(read_topic(client, "RIGHT"))
    assert sorted(left) == sorted(right)
    assert len(left) == len(set(left))
    assert set(account["moved"]) <= set(left)
    ends = {each.partition: each.high_watermark for each in client.describe_topic("PLAIN").partitions}
    offsets = client.group_offsets("movers")
    assert all(offset <= (ends[tp.partition] or 0) for tp, offset in offsets.items())
    remaining = [
        each for each in messages if each.offset >= offsets.get(TopicPartition("PLAIN", each.partition), 0)
    ]
    assert sorted(values(remaining) + left) == sorted(plain)
    client.publish("PLAIN", b"0")
    assert client.list_transactions() is not None


def test_a_backup_of_a_busy_broker_is_the_state_of_one_instant(data_dir: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with Broker(data_dir, heartbeat_interval_ms=200) as broker:
        broker.client.create_topic("PLAIN", 2, segment_bytes=20_000)
        broker.client.create_topic(
            "COMPACTED", 1, cleanup="compact", segment_bytes=4_000, min_cleanable_ratio=0.01
        )
        for topic in ("LEFT", "RIGHT", "RETAINED"):
            broker.client.create_topic(topic, 1, segment_bytes=10_000)
        taken = taken_while_busy(broker, backup)
        restarts = {each.address: each.restarts for each in broker.status().actors if each.restarts}
        assert not restarts
    done = planaria("verify", str(backup))
    assert done.returncode == 0, done.stderr
    identity, account = taken[-1]  # shares files with the first one
    done = planaria("restore", str(backup), str(tmp_path / "restored"), "--id", identity)
    assert done.returncode == 0, done.stderr
    with Broker(tmp_path / "restored") as broker:
        check_restored(broker, account)
