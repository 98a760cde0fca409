"""The producer that programs hold, and the accumulator behind it. Its half on the network thread is producer_bridge.py.

A Producer has an accumulator and binds its `publish` once, so that the hot path is one call. Called by `Client.producer`.
"""

import atexit
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from time import monotonic
from types import TracebackType
from typing import Any, Self

from ..addresses import TopicPartition
from ..batch import Headers
from ..calls.events import Withdrawn
from ..calls.retry import RetryPolicy
from ..compression import CODECS, CodecUnavailable, require
from ..forks import notify_of_fork
from ..machine import Answered, Call
from ..protocol.errors import ErrorCode, PlanariaError
from ..tracing import publishing
from .accumulator import Accumulator
from .batches import HeldPartitions, Lingers
from .delivery import Delivery
from .destinations import Destinations
from .errors import Closed, DeliveryUncertain, Forked, TimedOut
from .exit_flush import flush_with_warning
from .gate import may_wait
from .identified import DelayedRecords, IdentifiedRecords
from .lanes import ProducerIdentity
from .network import Network
from .options import Duration, InvalidOption, ProducerOptions, wait_limit_s
from .producer_batch import PartitionQueue, ProducerBatch
from .producer_bridge import Concluded, LaneReady, NamedReady, Posted, ProducerBridge
from .producing import Producing

INTERRUPTED_FLUSH_S = 5.0
"""How long a `with` block that ends by an exception waits for the messages published in it."""


def _lingers(options: ProducerOptions) -> Lingers:
    if options.linger_ms == 0:
        return "not at all"
    return "for a time" if options.transactional_id is None else "to the end"


def _require_codec(options: ProducerOptions) -> None:
    try:
        require(CODECS[options.compression])
    except CodecUnavailable as error:
        raise InvalidOption(f"compression: {error}") from error


def _why_unnamed(options: ProducerOptions) -> str:
    if options.transactional_id is not None:
        return "not within a transaction; publish it afterwards"
    return "" if options.acks != 0 else "needs acks 1 or 'all'; with 0 no answer would ever tell the outcome"


class Producer:
    """Publishes messages, each once and in order within its partition; safe to use from several threads.

    A failed delivery is reported by its Delivery and not retried: DeliveryFailed when the message is certainly not in
    the log, DeliveryUncertain when it may be.
    """

    def __init__(self, network: Network, options: ProducerOptions | None = None) -> None:
        self._batching = BatchingProducer(network, options)
        # Hides the method of this name: calling through it would cost a quarter of a publish.
        self.__dict__["publish"] = self._batching.publish

    def publish(
        self,
        topic: str,
        value: Any,
        *,
        key: bytes | str | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: datetime | int | None = None,
        dedup_id: str | None = None,
        deliver_at: datetime | int | None = None,
        delay: timedelta | float | None = None,
        scheduled_id: str | None = None,
        expected_offset: int | None = None,
        expected_key_version: int | None = None,
        expires_at: datetime | int | None = None,
        priority: int | None = None,
    ) -> Delivery:
        """Accept a message, to be sent with its batch; wait only while the buffer is full. Safe from any thread.

            delivery = producer.publish("ORDERS", {"amount": 100}, key="order-1")
            print(delivery.result(timeout=10).offset)

        `value`: bytes, or None for a message without a value, are sent unchanged; any other value is sent as JSON with
        the header `content-type: application/json`. `key`: bytes, or text as UTF-8; messages of a key go to one
        partition, in order. Without key and `partition`, batches take turns among the partitions that are online.
        `timestamp_ms`: a datetime or milliseconds since the epoch; default: the time of this call.

        A `dedup_id` identifies the message, for programs that keep no state: within the topic's `dedup_window_ms` a
        repeat is not written, and its Delivery returns the location of the first. Each such message is a batch of its
        own; without a key the id selects the partition. They keep their order among themselves, not with others.

        With `deliver_at` (a datetime, or milliseconds since the epoch) or `delay` (seconds or a timedelta, counted from
        this call) the broker holds the message back until then; its Delivery is done when that is durable.
        `scheduled_id` identifies it until its delivery, to cancel it and to recognise a repeat; default: a random id.
        A datetime without a zone is local time.

        With `expected_offset` the message is appended only if it gets that offset; with `expected_key_version` only if
        the last message with its key has that offset (-1: there is none, or it has no value; for topics created with
        `key_versions`). Otherwise its Delivery raises Conflict, with the present one. Such messages are sent as those
        with a `dedup_id` are.

        `expires_at` (a datetime, or milliseconds since the epoch) and `priority` (0 to 9) travel as the headers
        `expires-at-ms` and `priority`, which share groups and consumers with `skip_expired` look at.

        Raises InvalidOption, UnknownTopic, BufferFull after `max_block_ms`, Backpressure (`on_backpressure`
        "raise"), Closed.
        """
        raise NotImplementedError  # the accumulator's method is bound in its place

    def flush(self, timeout: Duration | None = None) -> None:
        """Wait until each message published so far is acknowledged or has failed.

        `timeout` is in seconds or a timedelta; None: without limit. Failures are reported by the Deliveries. Raises
        TimedOut; the deliveries continue.
        """
        self._batching.flush(timeout)

    def close(self, timeout: Duration | None = None) -> None:
        """Flush, then refuse further messages. Does nothing in a forked child: the parent sends its own messages.

        Messages not acknowledged after `timeout` (seconds or a timedelta; None: without limit) fail, and TimedOut is
        raised.
        """
        self._batching.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batching.__exit__(kind, error, trace)


def batching_of(producer: Producer) -> "BatchingProducer":
    """Return the inner part of a producer, for the parts of the broker that ask about topics before they publish."""
    return producer._batching


class BatchingProducer:
    """An accumulator, and its side of the network: its destinations, a flush, an end."""

    def __init__(
        self,
        network: Network,
        options: ProducerOptions | None = None,
        on_done: Callable[[TopicPartition, Exception | None], None] | None = None,
        may_wait: Callable[[], bool] = may_wait,
        destinations: type[Destinations] = Destinations,
        make_batch: Callable[..., ProducerBatch] = ProducerBatch,
        place: Callable[..., Any] | None = None,
    ) -> None:
        """Take `on_done`, called on the network thread with the outcome of each batch, before its deliveries.

        `make_batch` and `place` are those of the Accumulator.
        """
        options = options or ProducerOptions()
        _require_codec(options)
        is_patient = options.on_backpressure == "block"
        held = HeldPartitions(is_patient=is_patient)
        self.destinations = destinations(network, self, held, options)
        self.accumulator = Accumulator(
            batch_bytes=options.batch_bytes,
            batch_records=options.batch_records,
            buffer_bytes=options.buffer_bytes,
            max_block_ms=options.max_block_ms,
            destinations=self.destinations,
            held=held,
            notify=self._announce,
            notify_identified=self._announce_identified,
            now_ms=network.now_ms,
            unnamed=_why_unnamed(options),
            lingers=_lingers(options),
            let_pass=network.let_pass,
            wait_at=network.wait,
            call=network.call_back,
            may_wait=may_wait,
            make_batch=make_batch,
            place=place,
        )
        self.publish = publishing(self.accumulator.publish)
        self.publish_in_detail = publishing(self.accumulator.publish_in_detail)
        self._network = network
        self._is_closed = False
        self._pid = os.getpid()
        machine = Producing(
            acks=options.acks,
            delivery_timeout_ms=options.delivery_timeout_ms,
            request_timeout_ms=options.request_timeout_ms,
            retry=RetryPolicy(),
            jitter=random.random,
            is_patient=is_patient,
            is_transactional=options.transactional_id is not None,
            topic_id_of=network.topics.topic_id,
        )
        limits = (options.delivery_timeout_ms, options.request_timeout_ms, is_patient)
        self.bridge = ProducerBridge(
            self.accumulator,
            machine,
            IdentifiedRecords(options.acks, *limits),
            DelayedRecords(*limits),
            acks=options.acks,
            linger_ms=options.linger_ms,
            request_timeout_ms=options.request_timeout_ms,
            codec=CODECS[options.compression],
            on_done=on_done,
        )
        network.notify_of_end(self)
        notify_of_fork(self)

    def on_network_end(self, error: PlanariaError) -> None:
        """Accept no more messages, and fail those that are not acknowledged."""
        self.accumulator.stop(error)
        self.bridge.end(self._fail_unfinished(error), error, self._network.now_ms())

    def on_fork(self) -> None:
        """Fail all messages, as at the network's end. The parent's threads hold no lock here, and wait for nothing."""
        error = Forked(self._pid)
        self.accumulator.on_fork(error)
        self._fail_unfinished(error)

    def flush_at_exit(self) -> None:
        batches = self.accumulator.unfinished()
        if batches:
            flush_with_warning(self.flush, sum(batch.record_count for batch in batches))

    def _fail_unfinished(self, error: PlanariaError) -> list[ProducerBatch]:
        batches = self.accumulator.unfinished()
        for batch in batches:
            self.accumulator.finish(batch, -1, DeliveryUncertain(ErrorCode.SHUTTING_DOWN, str(error)))
        return batches

    def _refuse_when_closed(self) -> None:
        self._network.refuse_when_closed()
        if self._is_closed:
            raise Closed("the producer is closed")

    def _announce(self, lane: PartitionQueue) -> None:
        self._network.post(self.bridge, LaneReady(lane))

    def begin(self, identity: ProducerIdentity) -> None:
        """Publish under this producer id and epoch; all earlier messages are done."""
        self.accumulator.reopen(identity)
        if not self.bridge.is_sweeping:
            self._network.post(self.bridge, Posted.BEGUN)

    def conclude(self, ask: Callable[[], Call | None]) -> Answered:
        """Wait until all messages are done, and for the reply to the call that `ask` then makes in the network thread.

        Raises as the asking does. Interrupted, it leaves nothing that is not done.
        """
        try:
            return self._network.outcome(self.bridge, lambda waiter: Concluded(waiter, ask))
        except PlanariaError:
            raise
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Fail all messages that are not done, and wait for that."""
        self._network.post(self.bridge, Posted.DROPPED)
        for batch in self.accumulator.unfinished():
            batch.wait(None)

    def _announce_identified(self, batch: ProducerBatch) -> None:
        self._network.post(self.bridge, NamedReady(batch))

    def flush(self, timeout: Duration | None = None) -> None:
        limit_s = wait_limit_s(timeout)
        deadline = None if limit_s is None else monotonic() + limit_s
        with self.flushing():
            for batch in self.accumulator.unfinished():
                left = None if deadline is None else max(0.0, deadline - monotonic())
                if not batch.wait(left):
                    count = len(self.accumulator.unfinished())
                    raise TimedOut(f"{count} batches not acknowledged within {limit_s} s")

    @contextmanager
    def flushing(self) -> Iterator[None]:
        """Let no batch linger while the block waits for those that are unfinished."""
        self._network.post(self.bridge, Posted.FLUSH_BEGUN)
        try:
            yield
        finally:
            self._network.post(self.bridge, Posted.FLUSH_ENDED)

    def close(self, timeout: Duration | None = None) -> None:
        if not self.begin_close():
            return
        try:
            self.flush(timeout)
        finally:
            self.end_close()

    def begin_close(self) -> bool:
        """Refuse further messages. Return False if that was done before. A flush and `end_close` follow."""
        if self._is_closed or self._network.is_lost:
            return False
        self._is_closed = True
        atexit.unregister(self.flush_at_exit)
        self.accumulator.stop(Closed("the producer is closed"))
        self._network.end_calls(self)
        return True

    def end_close(self) -> None:
        """Fail the messages that are not acknowledged, and leave the network thread."""
        self._network.post(self.bridge, Posted.ABANDONED)
        self._network.post(self._network.owner, Withdrawn(self.bridge))
        self._network.forget(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        try:
            self.close(INTERRUPTED_FLUSH_S)
        except TimedOut:
            pass  # the exception that ends the block is the one to report; the deliveries say the rest
