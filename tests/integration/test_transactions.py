"""Transactions through real processes: all or nothing, once, whatever is killed or comes too late."""

import random
import threading
import time

import pytest

from live_trees import TIMEOUT_S, actor, read_topic, until, until_reborn
from planaria import Broker, Message, PlanariaError, ProtocolError
from planaria.transport.client.errors import (
    CommitFailed,
    ProducerFenced,
    TransactionAborted,
    TransactionUncertain,
)
from planaria.transport.client.options import InvalidOption
from planaria.transport.protocol.groups import LeaveGroup
from planaria.transport.protocol.message import Done

pytestmark = pytest.mark.processes


INPUTS = 600
KEYS = 7


def values(broker: Broker, topic: str) -> list[bytes]:
    return [message.value for message in read_committed(broker, topic) if message.value is not None]


def read_committed(broker: Broker, topic: str) -> list[Message]:
    """Return all records that readers of committed records get, once no transaction is open."""
    partitions = len(broker.client.describe_topic(topic).partitions)

    def is_stable() -> bool:
        return all(
            broker.client._fetch(topic, n, 0)[0].last_stable_offset
            == broker.client.list_offsets(topic, n).offset
            for n in range(partitions)
        )

    until(is_stable, "no transaction is open")
    return read_topic(broker.client, topic)


def test_all_or_nothing_over_partitions(broker: Broker) -> None:
    broker.create_topic("T", 3)
    with broker.producer(transactional_id="x") as producer:
        with producer.transaction() as tx:
            for number in range(9):
                tx.publish("T", b"yes%d" % number, partition=number % 3)
        doomed = producer.transaction()
        doomed.publish("T", b"no", partition=1)
        doomed.__exit__(KeyError, KeyError(), None)
        with producer.transaction() as tx:
            tx.publish("T", b"changed my mind")
            tx.abort()
        with producer.transaction():
            pass
        with producer.transaction() as tx:
            tx.publish("T", b"last", partition=2)
    assert sorted(values(broker, "T")) == sorted([*(b"yes%d" % n for n in range(9)), b"last"])
    with broker.consumer(
        partitions=[("T", 1)], auto_offset_reset="earliest", isolation="read_uncommitted"
    ) as reader:
        assert b"no" in [message.value for message in until(lambda: reader.poll(0.1), "something")]


def test_offsets_move_with_the_transaction_or_not_at_all(broker: Broker) -> None:
    broker.create_topic("IN", 1)
    broker.create_topic("OUT", 1)
    for number in range(4):
        broker.publish("IN", "k", number)
    options = {"auto_commit": False, "auto_offset_reset": "earliest"}
    with (
        broker.producer(transactional_id="x") as producer,
        broker.consumer("g", ["IN"], **options) as consumer,
    ):
        until(lambda: consumer.poll(0.1, max_messages=2), "two messages")
        doomed = producer.transaction()
        doomed.commit_offsets(consumer)
        doomed.__exit__(KeyError, KeyError(), None)
        assert broker.client.group_offsets("g") == {}
        with producer.transaction() as tx:
            tx.publish("OUT", b"made of it")
            tx.commit_offsets(consumer)
            assert broker.client.group_offsets("g") == {}
        until(lambda: broker.client.group_offsets("g") == {("IN", 0): 2}, "the offsets have moved")
    with broker.consumer("g", ["IN"], **options) as consumer:
        assert until(lambda: consumer.poll(0.1), "the rest")[0].data == 2


def test_a_member_that_lost_its_partitions_cannot_move_their_offsets(broker: Broker) -> None:
    broker.create_topic("IN", 1)
    broker.publish("IN", "k", 1)
    options = {"auto_commit": False, "auto_offset_reset": "earliest"}
    with (
        broker.producer(transactional_id="x") as producer,
        broker.consumer("g", ["IN"], **options) as consumer,
    ):
        until(lambda: consumer.poll(0.1), "the message")
        member = broker.client.describe_group("g").members[0].member_id
        broker.client._ask(LeaveGroup(group="g", member_id=member), Done)
        with pytest.raises(CommitFailed), producer.transaction() as tx:
            tx.commit_offsets(consumer)
    assert broker.client.group_offsets("g") == {}


def test_who_comes_with_the_same_id_shuts_the_other_out(broker: Broker) -> None:
    broker.create_topic("T", 1)
    with broker.producer(transactional_id="x") as old, broker.producer(transactional_id="x") as new:
        half = old.transaction()
        half.publish("T", b"half").result(TIMEOUT_S)
        with new.transaction() as tx:
            tx.publish("T", b"new")
        with pytest.raises((ProducerFenced, TransactionAborted)):
            half.commit()
        with pytest.raises(ProducerFenced):
            old.transaction()
    assert values(broker, "T") == [b"new"]


def test_a_transaction_that_takes_too_long_is_aborted(broker: Broker) -> None:
    broker.create_topic("T", 1)
    with broker.producer(transactional_id="x", transaction_timeout_ms=500) as producer:
        slow = producer.transaction()
        slow.publish("T", b"slow").result(TIMEOUT_S)
        until(lambda: broker.client._fetch("T", 0, 0)[0].last_stable_offset == 2, "the marker is there")
        with pytest.raises(TransactionAborted):
            slow.commit()

        def next_one() -> bool:
            """Return False if it has taken too long as well, on a busy machine."""
            try:
                with producer.transaction() as tx:
                    tx.publish("T", b"next")
            except TransactionAborted:
                return False
            return True

        until(next_one, "the next transaction")
    assert values(broker, "T") == [b"next"]


def test_what_a_dead_producer_left_open_holds_nobody_up_for_ever(broker: Broker) -> None:
    broker.create_topic("T", 1)
    dead = broker.client.producer(transactional_id="dead", transaction_timeout_ms=2_000)
    dead.transaction().publish("T", b"half").result(TIMEOUT_S)
    dead._current = None  # as if its process had ended: the transaction stays open
    broker.publish("T", None, "behind")
    with broker.consumer(partitions=[("T", 0)], auto_offset_reset="earliest") as reader:
        (message,) = until(lambda: reader.poll(0.1), "what lies behind it")
        assert message.data == "behind"


def test_misuse_is_said(broker: Broker) -> None:
    broker.create_topic("T", 1)
    with pytest.raises(InvalidOption, match="acks"):
        broker.producer(transactional_id="x", acks=1)
    with pytest.raises(InvalidOption, match="transactional_id"):
        broker.producer(transactional_id="")
    with broker.producer(transactional_id="x") as producer, broker.consumer("g", ["T"]) as consumer:
        with producer.transaction() as tx:
            with pytest.raises(PlanariaError, match="open already"):
                producer.transaction()
            with pytest.raises(InvalidOption, match="dedup_id"):
                tx.publish("T", b"a", dedup_id="a")
            with pytest.raises(InvalidOption, match="delay"):
                tx.publish("T", b"a", delay=1)
            with pytest.raises(InvalidOption, match="auto_commit"):
                tx.commit_offsets(consumer)
        for use in (lambda: tx.publish("T", b"a"), lambda: tx.commit_offsets(consumer), tx.commit):
            with pytest.raises(PlanariaError, match="has ended"):
                use()
    with pytest.raises(PlanariaError, match="closed"):
        producer.transaction()


class Pipeline(threading.Thread):
    """Turns IN into OUT, in transactions, and starts again after any failure."""

    def __init__(self, broker: Broker, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self._broker = broker
        self._chance = chance
        self.over = threading.Event()
        self.lives = 0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self.over.is_set():
                self.lives += 1
                try:
                    self._live()
                except (ProtocolError, TransactionAborted, TransactionUncertain, CommitFailed):
                    continue
        except Exception as error:  # noqa: BLE001 - the test shows it
            self.error = error

    def _live(self) -> None:
        options = {"auto_commit": False, "auto_offset_reset": "earliest", "session_timeout_ms": 2_000}
        with (
            self._broker.client.producer(transactional_id="pipeline") as producer,
            self._broker.client.consumer("g", ["IN"], **options) as consumer,
        ):
            while not self.over.is_set():
                messages = consumer.poll(0.1, max_messages=self._chance.randrange(1, 40))
                if not messages:
                    continue
                with producer.transaction() as tx:
                    for message in messages:
                        tx.publish("OUT", message.value, key=message.key)
                    tx.commit_offsets(consumer)
                    if self._chance.random() < 0.1:
                        tx.abort()
                        return


@pytest.mark.parametrize("kills", [10, pytest.param(150, marks=pytest.mark.chaos)])
def test_every_input_has_one_output_over_kills(broker: Broker, seed: int, kills: int) -> None:
    broker.create_topic("IN", 2)
    broker.create_topic("OUT", 2)
    chance = random.Random(seed)
    pipeline = Pipeline(broker, random.Random(seed + 1))
    pipeline.start()
    published = 0
    with broker.producer() as source:
        for _ in range(kills):
            for _ in range(INPUTS // 10):
                source.publish("IN", b"%d" % published, key=b"k%d" % (published % KEYS))
                published += 1
            time.sleep(chance.uniform(0, 0.3))  # at a random moment of the pipeline's work
            addresses = [
                each.address
                for each in broker.status().actors
                if each.address.startswith(("partition/IN", "partition/OUT", "partition/__", "gateway/"))
                or each.address.startswith(("coordinator/", "transactions/"))
            ]
            before = actor(broker.client, chance.choice(addresses))
            broker.client.kill(before.address)
            until_reborn(broker.client, before)

    def is_done() -> bool:
        assert pipeline.error is None, pipeline.error
        return sum(broker.client.group_offsets("g").values()) >= published

    until(is_done, "every input is consumed")
    pipeline.over.set()
    pipeline.join(TIMEOUT_S)
    found = read_committed(broker, "OUT")
    assert sorted(int(message.value or b"") for message in found) == list(range(published))
    for key in range(KEYS):
        of_key = [int(message.value or b"") for message in found if message.key == b"k%d" % key]
        assert of_key == sorted(of_key)
