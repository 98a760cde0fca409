"""Programs that use the broker in a simulation: producers, consumers, requesters, on simulated connections.

A ClientHost takes the client's Dispatch through its turns, as the network thread does. Consumers are the real Consumer,
on a program's thread; producers are the real delivery machine under batches that tests can tell apart.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import zmq

from planaria.transport.addresses import GATEWAY, TopicPartition, partition_address
from planaria.transport.batch import build
from planaria.transport.calls.connections import Owner
from planaria.transport.calls.events import (
    Disconnected,
    Submitted,
    Wanted,
)
from planaria.transport.calls.exchange import Exchange
from planaria.transport.calls.retry import RetryPolicy
from planaria.transport.client.broker_directory import BrokerDirectory
from planaria.transport.client.consumer import Consumer
from planaria.transport.client.dispatch import Dispatch
from planaria.transport.client.errors import MemberFenced, TimedOut, error_from
from planaria.transport.client.lanes import Outcome, Transmit
from planaria.transport.client.options import ConsumerOptions
from planaria.transport.client.producing import LaneIdle, Producing
from planaria.transport.machine import Answered, Call, Effect, Event, Failed
from planaria.transport.protocol.data import Produce, ProduceReply
from planaria.transport.protocol.errors import ProtocolError
from planaria.transport.protocol.message import Reply, Request
from planaria.transport.protocol.session import Metadata, MetadataReply
from simulator_actors import GATEWAY_ENDPOINT
from simulator_checks import Checks
from simulator_network import Network, SimulatedSocket
from simulator_world import MS, BatonEvent, Host, Program, World

ReplyT = TypeVar("ReplyT", bound=Reply)


class Waiter:
    """A program that waits for one outcome."""

    def __init__(self, world: World) -> None:
        self.event: Event = None
        self.is_done = BatonEvent(world)

    def handle(self, event: Event, now: int) -> list[Effect]:
        self.event = event
        self.is_done.set()
        return []


class ClientHost(Host):
    """One client program's connection to the broker; replaces the real client's Network."""

    def __init__(self, world: World, network: Network, name: str, *, is_local: bool) -> None:
        super().__init__(world, name)
        self._network = network
        self._is_local = is_local
        self._socket: Any = SimulatedSocket(network, self, zmq.ROUTER)
        retry, jitter = RetryPolicy(), world.random.random
        self.metadata_timeout_ms = 60_000
        directory = BrokerDirectory(
            (GATEWAY_ENDPOINT,),
            client_id=name,
            metadata_timeout_ms=self.metadata_timeout_ms,
            retry=retry,
            jitter=jitter,
        )
        self.topics = directory.topics
        self._exchange = Exchange(directory, retry=retry, jitter=jitter)
        self._dispatch = Dispatch(
            self._exchange,
            self._socket,
            lambda *_: self._is_local,
            lambda _: None,
            lambda _: None,
            lambda _: None,
        )
        self._monitor: deque[tuple[str, bool]] = deque()
        self._is_begun = False
        self._next_timer_at: int | None = None
        self.wake()

    # Interface of a Network.

    is_lost = False

    def wait(self, gate: BatonEvent, timeout_s: float | None = None) -> None:
        gate.wait(timeout_s)

    @property
    def owner(self) -> Owner:
        return self._dispatch.performer

    def forget(self, item: object) -> None:
        """Do nothing: items registered here are never closed."""

    @property
    def is_running(self) -> bool:
        return self.is_alive

    def refuse_when_closed(self) -> None:
        assert self.is_alive

    def end_calls(self, requester: object) -> None:
        """Do nothing: an object is closed by the program that calls it."""

    def now_ms(self) -> int:
        return self.world.now_ms

    def notify_of_end(self, dependant: object) -> None:
        """Do nothing: a failure here ends the simulation."""

    def post(self, owner: Owner, event: Event, *, is_waiting: bool = False) -> None:
        self._dispatch.inbox.append((owner, event))
        self.wake(self.world.between(1, 30))

    def call(
        self,
        address: str,
        request: Request,
        reply_type: type[ReplyT],
        *,
        timeout_ms: int,
        is_retried: bool = True,
        requester: object = None,
    ) -> ReplyT:
        ask = Call(None, address, request, reply_type, timeout_ms=timeout_ms, is_retried=is_retried)
        reply: ReplyT = self.exchange(ask).reply
        return reply

    def exchange(self, call: Call, requester: object = None) -> Answered:
        return self.outcome(self.owner, lambda waiter: Submitted(waiter, call))

    def outcome(
        self, owner: Owner, event_for: Callable[[Owner], Event], requester: object = None
    ) -> Answered:
        waiter = Waiter(self.world)
        self.post(owner, event_for(waiter))
        waiter.is_done.wait()
        if isinstance(waiter.event, Failed):
            raise error_from(waiter.event.error)
        answered: Answered = waiter.event
        return answered

    def partitions_of(self, topic: str, timeout_ms: int, least: int = 1) -> int:
        self.post(self.owner, Wanted(topic))
        version: int | None = None
        while True:
            request = Metadata(topics=[topic], after_version=version, max_wait_ms=1_000 if version else 0)
            reply = self.call(GATEWAY, request, MetadataReply, timeout_ms=timeout_ms)
            if reply.topics and len(reply.topics[0].partitions) >= least:
                return len(reply.topics[0].partitions)
            version = reply.version

    # The turn.

    @property
    def open_asks(self) -> int:
        return len(self._exchange)

    def on_connection(self, endpoint: str, is_refused: bool) -> None:
        self._monitor.append((endpoint, is_refused))
        self.wake()

    def turn(self) -> None:
        now = self.world.now_ms
        if not self._is_begun:
            self._is_begun = True
            self._dispatch.start(now)
        while self._monitor:
            self._dispatch.hand(self.owner, Disconnected(*self._monitor.popleft()), now)
        self._dispatch.turn(now)
        self.busy(self.world.between(3, 40))
        self._sleep()

    def _sleep(self) -> None:
        if self._socket.inbox or self._dispatch.is_busy or self._monitor:
            self.wake()
        at = self._dispatch.next_at()
        if at is not None and not self.world.now_ms < (self._next_timer_at or 0) <= at:
            self._next_timer_at = at
            self.world.after(max(0, at - self.world.now_ms) * MS, self._on_timer, at)

    def _on_timer(self, at: int) -> None:
        if self._next_timer_at == at:
            self._next_timer_at = None
            self.wake()

    def thaw(self) -> None:
        self._next_timer_at = None
        super().thaw()

    def kill(self) -> None:
        self.is_alive = False
        self._network.kill(self)
        self.world.note("kill", self.name)


class Batch:
    """Values that occur only once."""

    def __init__(self, lane: TopicPartition, values: list[bytes], now_ms: int) -> None:
        self.lane = lane
        self.values = values
        self.created_ms = now_ms
        self.frame: tuple[Any, bytes] | None = None

    @property
    def record_count(self) -> int:
        return len(self.values)


class SimulatedProducer:
    """An idempotent producer: as many batches at once as the lane allows, every outcome reported to the checks."""

    attributes = 0

    def __init__(
        self, host: ClientHost, checks: Checks, *, delivery_timeout_ms: int, request_timeout_ms: int
    ) -> None:
        self.host = host
        self.machine = Producing(
            acks="all",
            delivery_timeout_ms=delivery_timeout_ms,
            request_timeout_ms=request_timeout_ms,
            retry=RetryPolicy(),
            jitter=host.world.random.random,
            topic_id_of=host.topics.topic_id,
        )
        self._checks = checks
        self._request_timeout_ms = request_timeout_ms
        self._count = 0

    @property
    def pending(self) -> int:
        return self.machine.pending

    def publish(self, lane: TopicPartition, record_count: int) -> None:
        if not self.host.is_alive:
            return
        values = []
        for _ in range(record_count):
            self._count += 1
            values.append(f"{self.host.name}:{self._count}".encode())
        batch = Batch(lane, values, self.host.now_ms())
        self._checks.on_published(self.host.name, lane, values)
        self.host.post(self, batch)

    def handle(self, event: Event, now: int) -> list[Effect]:
        left: list[Effect] = []
        machine = self.machine
        effects = (
            machine.put(event.lane, event, now) if isinstance(event, Batch) else machine.handle(event, now)
        )
        for effect in effects:
            match effect:
                case Transmit():
                    left.append(self._ask(effect))
                case Outcome(lane=lane, batch=batch):
                    self._checks.on_outcome(lane, batch.values, effect)
                case LaneIdle():
                    pass
                case _:
                    left.append(effect)
        return left

    def _ask(self, effect: Transmit) -> Call:
        topic, partition = effect.lane
        return Call(
            (effect.lane, effect.token),
            partition_address(topic, partition),
            Produce(topic=topic, partition=partition, acks="all"),
            ProduceReply,
            (self._frame(effect),),
            self._request_timeout_ms,
            is_retried=False,
        )

    def _frame(self, effect: Transmit) -> bytes:
        batch, identity = effect.batch, effect.identity
        numbers = (identity, effect.sequence)
        if batch.frame is None or batch.frame[0] != numbers:
            assert identity is not None
            frame = build(
                [(None, value, 0, None) for value in batch.values],
                first_timestamp_ms=batch.created_ms,
                max_timestamp_ms=batch.created_ms,
                producer_id=identity.producer_id,
                producer_epoch=identity.epoch,
                base_sequence=effect.sequence,
                attributes=self.attributes,
            )
            batch.frame = (numbers, frame)
        return bytes(batch.frame[1])


class SimulatedConsumer:
    """The real Consumer in a program that polls, works, and passes its records to the checks."""

    def __init__(
        self,
        host: ClientHost,
        checks: Checks,
        *,
        group: str | None,
        topics: list[str],
        options: ConsumerOptions,
        think_us: int,
    ) -> None:
        self.host = host
        self.group = group
        self.options = options
        self.consumer: Consumer | None = None
        self.is_closing = False
        self._checks = checks
        self._topics = topics
        self._think_us = think_us
        self.program = Program(host.world, self._run_until_replaced, host)

    @property
    def owned(self) -> frozenset[Any]:
        """Return the partitions assigned by the group."""
        membership = self.consumer._bridge._membership if self.consumer is not None else None
        return membership._owned if membership is not None else frozenset()

    def kill(self) -> None:
        self.host.kill()
        self.program.kill()

    def _run_until_replaced(self) -> None:
        try:
            self._run()
        except MemberFenced:
            assert self.options.instance_id is not None, "only static members have successors"
            self.host.kill()

    def _run(self) -> None:
        network: Any = self.host
        self.consumer = consumer = self._opened(network)
        world = self.host.world
        name = self.group or self.host.name
        while not self.is_closing:
            messages = consumer.poll(0.25, world.between(1, 50))
            epochs = consumer._machine.reader.epochs()
            for message in messages:
                tp = (message.topic, message.partition)
                assert message.value is not None
                self._checks.on_delivered(name, self.host.name, tp, epochs[tp], message.offset, message.value)
            world.note("poll", self.host.name, str(len(messages)))
            self.host.world.current_program.sleep(world.between(50, self._think_us))  # type: ignore[union-attr]
        consumer.close()

    def _opened(self, network: Any) -> Consumer:
        """Opening it may take longer than one request's timeout: a program retries."""
        while True:
            try:
                return Consumer(network, self.group, self._topics, self.options)
            except TimedOut as error:
                self.host.world.note("timed out", self.host.name, error.message)


class Sender:
    """A program that sends one request after the other."""

    def __init__(self, host: ClientHost, main: Callable[["Sender"], None]) -> None:
        self.host = host
        self.program = Program(host.world, lambda: main(self), host)

    def ask(
        self, request: Request, reply_type: type[ReplyT], timeout_ms: int = 60_000
    ) -> ReplyT | Literal["refused"]:
        try:
            return self.host.call(GATEWAY, request, reply_type, timeout_ms=timeout_ms)
        except ProtocolError as error:
            self.host.world.note("refused", self.host.name, error.code)
            return "refused"

    def sleep(self, duration_us: int) -> None:
        program = self.host.world.current_program
        assert program is not None
        program.sleep(duration_us)


__all__ = ["Answered", "Batch", "ClientHost", "Sender", "SimulatedConsumer", "SimulatedProducer"]
