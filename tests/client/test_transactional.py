"""A transactional producer's two halves: in any order of the network thread, a message stays in its transaction."""

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fake_broker import FakeBroker
from live_trees import until
from planaria.transport.addresses import GATEWAY
from planaria.transport.batch import BatchHeader, split
from planaria.transport.calls.events import Deliver
from planaria.transport.client.client import Client
from planaria.transport.client.errors import DeliveryFailed, DeliveryUncertain, TransactionAborted
from planaria.transport.client.gate import Gate
from planaria.transport.client.lanes import ProducerIdentity
from planaria.transport.client.options import ProducerOptions
from planaria.transport.client.producer import BatchingProducer
from planaria.transport.client.producer_bridge import Concluded, Posted
from planaria.transport.machine import Answered, Call, SetTimer, TimerFired
from planaria.transport.protocol.data import ProducedBatch, ProduceReply
from planaria.transport.protocol.errors import PlanariaError
from planaria.transport.protocol.transactions import EndTransaction, EndTransactionReply


class StillNetwork:
    """Keeps posted items until `go_on`."""

    def __init__(self) -> None:
        self.posted: deque[tuple[Any, Any]] = deque()
        self.now = 0
        self.topics = SimpleNamespace(
            topic_id=lambda _: "id",
            partition_count=lambda _: 1,
            largest_batch_bytes=lambda _: None,
            is_online=lambda *_: True,
        )

    def now_ms(self) -> int:
        return self.now

    def forget(self, _: Any) -> None:
        """Do nothing: nothing is closed with it."""

    def notify_of_end(self, _: Any) -> None:
        """Do nothing: it never fails."""

    def post(self, owner: Any, event: Any) -> None:
        self.posted.append((owner, event))

    def partitions_of(self, *_: Any, **__: Any) -> int:
        return 1

    def let_pass(self, gate: Gate) -> None:
        gate.open()

    def wait(self, gate: Gate, timeout_s: float | None = None) -> bool:
        return gate.wait(timeout_s)

    def call_back(self, callback: Callable[[], None]) -> None:
        callback()


@pytest.fixture
def network() -> StillNetwork:
    return StillNetwork()


@pytest.fixture
def producer(network: StillNetwork) -> BatchingProducer:
    return BatchingProducer(network, ProducerOptions(transactional_id="t", linger_ms=0))  # type: ignore[arg-type]


def go_on(network: StillNetwork, count: int | None = None) -> list[Call]:
    """Handle the posted items; return the requests sent."""
    asks: list[Call] = []
    for _ in range(len(network.posted) if count is None else count):
        owner, event = network.posted.popleft()
        asks += [effect for effect in owner.handle(event, 0) if isinstance(effect, Call)]
    return asks


def header(ask: Call) -> BatchHeader:
    ((found, _),) = split(ask.payload[0])
    return found


def acknowledge(producer: BatchingProducer, ask: Call) -> list[Any]:
    reply = ProduceReply(batches=[ProducedBatch(0)], high_watermark=1)
    return producer.bridge.handle(Answered(ask.key, reply), 0)


def test_a_message_goes_out_under_the_transaction_it_was_published_in(
    producer: BatchingProducer, network: StillNetwork
) -> None:
    producer.begin(ProducerIdentity(7, 0))
    first = producer.publish("T", b"1", partition=0)
    (ask,) = go_on(network)
    assert (header(ask).producer_epoch, header(ask).base_sequence) == (0, 0)
    acknowledge(producer, ask)
    assert first.done()
    producer.accumulator.suspend(PlanariaError("it has ended"))
    producer.begin(ProducerIdentity(7, 1))
    second = producer.publish("T", b"2", partition=0)
    # A timer of the previous transaction comes first.
    asks = [
        effect
        for effect in producer.bridge.handle(TimerFired(("linger", ("T", 0))), 0)
        if isinstance(effect, Call)
    ]
    assert (header(asks[0]).producer_epoch, header(asks[0]).base_sequence) == (1, 0)
    assert go_on(network) == []
    acknowledge(producer, asks[0])
    assert second.done()


def test_what_was_dropped_with_one_transaction_does_not_fail_the_next(
    producer: BatchingProducer, network: StillNetwork
) -> None:
    producer.begin(ProducerIdentity(7, 0))
    go_on(network)
    producer.accumulator.suspend(PlanariaError("it has ended"))
    producer.drop()
    go_on(network)
    # Nothing was written, so the numbers are the same.
    producer.begin(ProducerIdentity(7, 0))
    delivery = producer.publish("T", b"1", partition=0)
    (ask,) = go_on(network)
    acknowledge(producer, ask)
    assert delivery.exception(0) is None


END = Call(
    None,
    GATEWAY,
    EndTransaction(producer_id=7, producer_epoch=0, commit=True),
    EndTransactionReply,
    is_retried=True,
    timeout_ms=30_000,
)


def test_the_end_is_asked_for_once_all_is_acknowledged(
    producer: BatchingProducer, network: StillNetwork
) -> None:
    sender: Any = object()
    producer.begin(ProducerIdentity(7, 0))
    producer.publish("T", b"1", partition=0)
    (batch,) = go_on(network)
    producer.publish("T", b"2", partition=0)
    assert go_on(network) == [], "it waits for company while one is under way"
    producer.accumulator.suspend(PlanariaError("it has ended"))
    (late,) = producer.bridge.handle(Concluded(sender, lambda: END), 0)
    assert acknowledge(producer, batch) == []
    (end,) = acknowledge(producer, late)
    assert (end.address, end.request) == (GATEWAY, END.request)
    reply = Answered(end.key, EndTransactionReply(producer_id=7, producer_epoch=1))
    assert producer.bridge.handle(reply, 0) == [Deliver(sender, reply)]


def test_a_transaction_in_which_nothing_was_published_ends_at_once(producer: BatchingProducer) -> None:
    producer.begin(ProducerIdentity(7, 0))
    sender: Any = object()
    (end,) = producer.bridge.handle(Concluded(sender, lambda: END), 0)
    assert end.request is END.request


def test_an_end_that_was_interrupted_is_not_asked_for(
    producer: BatchingProducer, network: StillNetwork
) -> None:
    sender: Any = object()
    producer.begin(ProducerIdentity(7, 0))
    delivery = producer.publish("T", b"1", partition=0)
    (batch,) = go_on(network)
    producer.bridge.handle(Concluded(sender, lambda: END), 0)
    assert producer.bridge.handle(Posted.DROPPED, 0) == []
    assert isinstance(delivery.exception(0), DeliveryUncertain)
    assert acknowledge(producer, batch) == []


class InterruptedNetwork(StillNetwork):
    """Ctrl-C comes while the program waits for the end of its transaction; the network thread goes on."""

    def outcome(self, owner: Any, event_for: Callable[[Any], Any]) -> Any:
        self.post(owner, event_for(object()))
        raise KeyboardInterrupt

    def post(self, owner: Any, event: Any) -> None:
        super().post(owner, event)
        if event is Posted.DROPPED:
            go_on(self)


def test_ctrl_c_while_a_transaction_ends_leaves_nothing_of_it_under_way() -> None:
    network = InterruptedNetwork()
    producer = BatchingProducer(network, ProducerOptions(transactional_id="t", linger_ms=0))  # type: ignore[arg-type]
    producer.begin(ProducerIdentity(7, 0))
    delivery = producer.publish("T", b"1", partition=0)
    (batch,) = go_on(network)
    producer.accumulator.suspend(PlanariaError("it has ended"))
    with pytest.raises(KeyboardInterrupt):
        producer.conclude(lambda: END)
    assert isinstance(delivery.exception(0), DeliveryUncertain)
    assert acknowledge(producer, batch) == [], "its end is not asked for"


def test_messages_of_a_short_transaction_go_out_with_its_end(network: StillNetwork) -> None:
    producer = BatchingProducer(network, ProducerOptions(transactional_id="t"))  # type: ignore[arg-type]
    producer.begin(ProducerIdentity(7, 0))
    go_on(network)
    producer.publish("T", b"1", partition=0)
    assert not network.posted, "one message is no reason to wake the network thread"
    network.now = 50
    producer.accumulator.suspend(PlanariaError("it has ended"))
    sender: Any = object()
    sent = producer.bridge.handle(Concluded(sender, lambda: END), network.now)
    assert [header(effect).record_count for effect in sent if isinstance(effect, Call)] == [1]
    assert producer.accumulator.unfinished()[0].created_ms == network.now, (
        "the time to deliver it begins here"
    )
    producer.begin(ProducerIdentity(7, 1))
    assert not network.posted, "somebody sweeps already"


def test_messages_of_a_long_transaction_do_not_wait_for_its_end(network: StillNetwork) -> None:
    producer = BatchingProducer(network, ProducerOptions(transactional_id="t"))  # type: ignore[arg-type]
    producer.begin(ProducerIdentity(7, 0))
    owner, event = network.posted.popleft()
    (timer,) = owner.handle(event, 0)
    producer.publish("T", b"1", partition=0)
    effects = owner.handle(TimerFired(timer.key), timer.at)
    assert [header(effect).record_count for effect in effects if isinstance(effect, Call)] == [1]
    assert timer.key in [effect.key for effect in effects if isinstance(effect, SetTimer)]
    producer.accumulator.suspend(PlanariaError("it has ended"))
    assert owner.handle(TimerFired(timer.key), timer.at) == []
    producer.begin(ProducerIdentity(7, 1))
    assert len(network.posted) == 1, "the sweep begins anew"


def test_a_transaction_whose_messages_never_left_is_aborted_and_not_uncertain(broker: FakeBroker) -> None:
    with Client(broker.endpoint, request_timeout_ms=2_000) as client:
        producer = client.producer(transactional_id="t", delivery_timeout_ms=400)
        producer.claim()
        client.publish("T", b"1", partition=0)  # the topic is known
        broker.kill_partition("T", 0)
        broker.kill_gateway()
        until(lambda: not client._network.has_session, "the client notices the gateway's end")
        # Until it notices the partition's end too, a message may leave, and is uncertain.
        connections = client._network._directory._connections
        until(lambda: all(each.partition is None for each in connections), "and the partition's")
        with pytest.raises(TransactionAborted) as told, producer.transaction() as tx:
            tx.publish("T", b"2", partition=0)
        assert isinstance(told.value.__cause__, DeliveryFailed)
    assert [value for value in broker.partitions["T", 0].values() if value is not None] == [b"1"]
