"""The hosted subscriber's process: a loop, a machine, a flight recorder, and the threads that work for it. Impure.

    the loop                  control, heartbeats, the machine     never blocks, whatever the handler does
      feed.py                 the member of the group              a task: polls and commits
      dead_letter_publisher.py  the dead letters                   a task for each
    threads
      worker.py               the handler                          `concurrency` records at a time
      coroutines.py           an `async def` handler               one event loop for all its records
      resource_monitor.py     the handler's CPU time, the memory
      the client's            the socket of consumer and producers

The handler may block for as long as it likes, so it has threads of its own. The client has one, as in every program,
because handlers publish with it. All else takes its turn in the loop.

It is a client like any other and connects to the gateway's endpoint. Its address is its instance id, so that it keeps
its partitions over a restart within the session timeout, and its transactional id, so that it fences its predecessor.
The group's coordinator stores the offsets; the flight recorder is the only local state. Started by the supervisor
through `main`. A handler that cannot be loaded ends it before it is ready.
"""

import logging
import os
import random
import time
from typing import Any

import msgspec
from msgspec import structs

from ...transport.actor import Actor, ActorContext
from ...transport.addresses import Kind
from ...transport.aio.calls import Caller
from ...transport.aio.loops import Bridge
from ...transport.aio.producer import AsyncProducer
from ...transport.aio.transactional import AsyncTransactionalProducer
from ...transport.client.client import Client
from ...transport.client.configuration import options_for
from ...transport.client.options import ConsumerOptions, checked, checked_producer
from ...transport.client.producer import Producer, batching_of
from ...transport.loop import run_actor
from ...transport.periodic import Schedule
from ...transport.protocol.errors import PlanariaError
from ...transport.protocol.operations import InFlight, RetryReport
from ...transport.publication import Publication
from ...transport.security.broker_keys import internal_key_in
from ...transport.subscription import SubscriberOptions
from .committing import DELIVERY_TIMEOUT_MS, TRANSACTION_TIMEOUT_MS, AtomicCommits, PlainCommits
from .coroutines import Coroutines, run_alone
from .dead_letter_publisher import DeadLetterPublisher
from .effects import (
    Abandon,
    Alarm,
    Crash,
    Forget,
    HandlerTimedOut,
    NoteTimeout,
    OwnEffect,
    OwnEvent,
    PublishDeadLetter,
    Recall,
    Recalled,
    Retire,
    Run,
    WriteLog,
)
from .feed import Feed
from .flight_recorder import FlightRecorder, flight_path
from .handler import HandlerUnusable, load_handler
from .machine import SubscriberMachine
from .member import Member, OnChange
from .output_topics import OutputTopics
from .resource_monitor import ResourceMonitor, limit_memory, take_stack
from .tasks import Tasks
from .threads import Callback, Inbox, ThreadFailed
from .worker import Workers

OUTPUT_TIMEOUT_MS = 30_000
"""Delivery timeout of dead letters and of the handler's messages."""

_log = logging.getLogger("planaria.subscriber")


class SubscriberCrashed(PlanariaError):
    """The process ended on purpose, to be restarted."""


class SubscriberProcess(Actor[OwnEvent, OwnEffect]):
    follows_wall_clock = True
    machine: SubscriberMachine

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self._options = msgspec.convert(context.arguments, SubscriberOptions)
        self._identity = str(context.address)
        if self._options.identity:
            self._identity = f"{self._options.identity}/{self._identity}"
        self._inbox = Inbox()
        self._tasks = Tasks(self._inbox)
        self._recorder: FlightRecorder
        self._client: Client
        self._producer: Producer
        self._caller: Caller
        self._feed: Feed
        self._workers: Workers
        self._resource_monitor: ResourceMonitor
        self._dead_letter_publisher: DeadLetterPublisher
        self._outputs: OutputTopics | None = None

    def endpoint(self) -> None:
        """Return no endpoint: a subscriber serves no requests."""

    def start(self) -> None:
        """Start. Raises HandlerUnusable, which the supervisor shows when it gives up."""
        options, context = self._options, self.context
        schedule = Schedule(self._publish_at, lambda: time.time_ns() // 1_000_000, run_alone)
        loaded = load_handler(options.handler, options.sys_path, schedule, options.group)
        coroutines = Coroutines() if loaded.is_async else None
        handler = loaded.call if coroutines is None else coroutines.awaiting(loaded.call)
        if coroutines is not None and options.concurrency > 1 and options.cpu_limit is not None:
            raise HandlerUnusable(
                "cpu_limit: the records of an `async def` handler share one thread; use concurrency=1"
            )
        number = str(context.address.number)
        if context.address.kind == Kind.DEPLOYED:
            number = f"{Kind.DEPLOYED}-{number}"
        path = flight_path(context.data_directory, options.group, number)
        # The stack of a process killed by a signal is written there, and logged when the next one starts.
        stack = take_stack(path.with_suffix(".stack"))
        if stack is not None:
            _log.error("the last process was killed", extra={"fields": {"stack": stack}})
        self._recorder = FlightRecorder(path, self.loop.now, context.last_end, stack, options.concurrency)
        # The retries bound how often a record may kill the process; the supervisor need not.
        self.is_death_accounted = self._recorder.is_death_explained
        self.machine = SubscriberMachine(options, self._recorder.recovered(), random.random)
        self._client = Client(options.endpoint, client_id=self._identity, **self._credentials())
        self._producer = producer = self._client.producer(delivery_timeout_ms=OUTPUT_TIMEOUT_MS)
        network = self._client._network
        self._caller = Caller(network, Bridge(self._tasks, network.let_pass))
        is_exact = options.delivery == "exactly-once"

        destinations = batching_of(producer).destinations

        def check(message: Publication) -> None:
            destinations.check(message.topic, message.partition, message.size_bytes)

        self._outputs = OutputTopics(check, destinations.partitions_known, time.monotonic)
        self._workers = Workers(
            handler,
            self._recorder,
            self._inbox,
            options.concurrency,
            check=self._outputs.check,
            send=None if is_exact else lambda message: producer.publish(**structs.asdict(message)),
            is_metered=options.cpu_limit is not None,
            now_ms=lambda: self.loop.now,
            calling_thread=None if coroutines is None else coroutines.ident,
            correlation_header=options.correlation_header,
        )
        self._resource_monitor = ResourceMonitor(
            self._recorder, self._workers, self._inbox, options.cpu_limit
        )
        letters = AsyncProducer(
            self._caller, checked_producer({"delivery_timeout_ms": OUTPUT_TIMEOUT_MS, "linger_ms": 0})
        )
        self._dead_letter_publisher = DeadLetterPublisher(
            letters, self._tasks, self._inbox.post, is_only_checked=is_exact
        )
        self._feed = Feed(
            self._join,
            options.max_records,
            self._caller.bridge,
            self._inbox.post,
            AtomicCommits(self._transactions()) if is_exact else PlainCommits(),
            skips_damage=options.on_damage == "skip",
        )
        self.loop.watch(self._inbox.fileno(), self._take_posted)
        self._tasks.start(self._feed.run())
        if options.memory_limit is not None:
            limit_memory(options.memory_limit)

    def perform(self, effect: OwnEffect) -> None:
        match effect:
            case Run():
                self._workers.run(effect)
            case Recall(number=number, worker=worker):
                self.loop.dispatch(Recalled(number, self._workers.recall(worker)))
            case PublishDeadLetter():
                self._dead_letter_publisher.send(effect)
            case Forget():
                self._recorder.forget((*effect.key, effect.offset))
            case Retire():
                self._recorder.discard()
            case WriteLog():
                _log.log(effect.level, effect.event, extra={"fields": effect.fields})
            case Alarm():
                self.alarms = effect.alarms
            case NoteTimeout():
                offset = self._recorder.time_out(effect.worker, effect.cause, effect.offset)
                before = self._workers.so_far(effect.worker)
                self.loop.dispatch(HandlerTimedOut(effect.number, offset, effect.cause, before))
            case Abandon():
                self.close()
            case Crash():
                raise SubscriberCrashed(effect.reason)
            case _:
                self._feed.perform(effect)

    def end_turn(self) -> None:
        """Run the tasks that the events of the turn have woken."""
        self._tasks.run()

    def alarms_now(self) -> tuple[str, ...]:
        return self.alarms + (self._outputs.alarms() if self._outputs is not None else ())

    def in_flight(self) -> tuple[InFlight, ...]:
        return tuple(
            InFlight(*note.spot, note.attempt, note.last_failed_ms + self.loop.wall_offset_ms)
            for note in self._recorder.in_progress()
        )

    def retrying(self) -> RetryReport:
        return self.machine.retrying().by_clock(self.loop.wall_offset_ms)

    def counters(self) -> dict[str, int]:
        return self.machine.counters()

    def close(self) -> None:
        """Abandon a handler that still runs; if the supervisor is gone, do not leave the group either."""
        self._workers.stop()
        self._resource_monitor.stop()
        self._recorder.abandon()

    def _take_posted(self) -> None:
        for event in self._inbox.take():
            if isinstance(event, ThreadFailed):
                raise event.error
            if isinstance(event, Callback):
                event.call()
            else:
                self.loop.dispatch(event)

    def _transactions(self) -> AsyncTransactionalProducer:
        options = {
            "transactional_id": self._identity,
            "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS,
            "delivery_timeout_ms": DELIVERY_TIMEOUT_MS,
            # A publish that waits for a backlog to shrink would keep a transaction open meanwhile.
            "on_backpressure": "raise",
        }
        return AsyncTransactionalProducer(self._caller, checked_producer(options))

    def _credentials(self) -> dict[str, Any]:
        """Return the broker's own credentials; outside the broker those that its client's configuration has."""
        if self._options.identity:
            return options_for(self._options.endpoint, os.environ)
        return {"key": internal_key_in(self.context.data_directory)} if self.context.is_secured else {}

    def _publish_at(self, topic: str, value: Any, key: str, deliver_at_ms: int, scheduled_id: str) -> None:
        """Publish a delayed message and wait until it is durable."""
        self._producer.publish(
            topic, value, key=key, deliver_at=deliver_at_ms, scheduled_id=scheduled_id
        ).result()

    def _join(self, on_change: OnChange) -> Member:
        options = self._options
        member = {
            "client_id": self._identity,
            "instance_id": self._identity,
            "auto_commit": False,
            "auto_offset_reset": options.auto_offset_reset,
            "session_timeout_ms": options.session_timeout_ms,
        }
        return Member(
            self._caller, options.group, options.topics, checked(ConsumerOptions, member), on_change
        )


def main(context: ActorContext) -> None:
    """The entry point named in a child spec."""
    run_actor(SubscriberProcess(context), context)
