"""Traces by OpenTelemetry: spans for publishing, receiving, processing and settling messages (the extra `otel`).

    import planaria.otel
    planaria.otel.instrument()

The only module that knows OpenTelemetry, and the names of its messaging conventions, which are in development. Installs
itself at the hooks of `transport/tracing.py`. docs/tracing.md describes the spans.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from threading import Lock
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .transport import tracing
from .transport.batch import Headers
from .transport.client.messages import Message

__all__ = ["instrument", "processing", "uninstrument"]

TRACEPARENT = "traceparent"
MAX_LINKS = 128
MAX_FAILED = 10_000
"""Records whose failed attempts are remembered, to link the next one to them."""

_propagator = TraceContextTextMapPropagator()


def instrument(tracer_provider: TracerProvider | None = None) -> None:
    """Make spans from now on, in this process, for clients and handlers that are made or loaded afterwards.

    `tracer_provider`: default: the global one of OpenTelemetry.
    """
    tracing.active = _Tracer(trace.get_tracer("planaria", tracer_provider=tracer_provider))


def uninstrument() -> None:
    """Make no further spans for consumers, and for producers and handlers that are made or loaded afterwards."""
    tracing.active = None


@contextmanager
def processing(message: Message, group: str | None = None) -> Iterator[Span]:
    """Make a span for the work on one message, as a handler has it by itself.

        for message in consumer:
            with planaria.otel.processing(message, "billing"):
                charge(message.data)

    It belongs to the trace of the message's `traceparent`. An exception marks it as failed, and propagates.
    """
    active = tracing.active
    tracer = active if isinstance(active, _Tracer) else _Tracer(trace.get_tracer("planaria"))
    with tracer.process(message, group, getattr(message, "delivery_count", 1)) as span:
        yield span


class _Tracer:
    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._failed: OrderedDict[tuple[str | None, str, int, int], SpanContext] = OrderedDict()
        """The span of the last failed attempt at a record, by group and place."""
        self._lock = Lock()

    def now_ns(self) -> int:
        return time.time_ns()

    def publishing(self, publish: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(publish)
        def traced(topic: str, value: Any, *args: Any, headers: Any = None, **details: Any) -> Any:
            if headers is not None and not isinstance(headers, dict):
                return publish(topic, value, *args, headers=headers, **details)  # is refused
            is_created = headers is not None and TRACEPARENT in headers
            span = self._tracer.start_span(
                f"publish {topic}",
                kind=SpanKind.CLIENT if is_created else SpanKind.PRODUCER,
                links=_links([headers]) if is_created else (),
                attributes=_attributes("publish", "send", topic, partition=details.get("partition")),
            )
            if not is_created:
                headers = _injected(headers, span)
            try:
                handle = publish(topic, value, *args, headers=headers, **details)
            except BaseException as error:
                _end(span, error)
                raise
            _end_with(span, handle)
            return handle

        return traced

    def created(self, topic: str, headers: Headers | None) -> Headers | None:
        if headers is not None and TRACEPARENT in headers:
            return headers
        attributes = _attributes("create", "create", topic)
        with self._tracer.start_as_current_span(
            f"create {topic}", kind=SpanKind.PRODUCER, attributes=attributes
        ) as span:
            return _injected(headers, span)

    def handling(self, handler: Callable[..., Any], group: str, *, is_async: bool) -> Callable[..., Any]:
        @wraps(handler)
        def traced(message: Message, *context: Any) -> Any:
            with self.process(message, group, tracing.attempt.get()):
                return handler(message, *context)

        async def awaited(attempt: int, message: Message, *context: Any) -> Any:
            with self.process(message, group, attempt):
                return await handler(message, *context)

        @wraps(handler)
        def traced_async(message: Message, *context: Any) -> Any:
            # The thread that calls has the number of the attempt; the coroutine runs in another.
            return awaited(tracing.attempt.get(), message, *context)

        return traced_async if is_async else traced

    @contextmanager
    def process(self, message: Message, group: str | None, attempt: int) -> Iterator[Span]:
        """Make the current span of the work on a message; its parent is the span that created the message."""
        place = (group, message.topic, message.partition, message.offset)
        links = _links([message.headers])
        with self._lock:
            before = self._failed.pop(place, None)
        if before is not None:
            links.append(Link(before, {"planaria.link": "previous attempt"}))
        attributes = _attributes("process", "process", message.topic, partition=message.partition)
        attributes |= {"planaria.message.offset": message.offset, "planaria.delivery.attempt": attempt}
        if group is not None:
            attributes["messaging.consumer.group.name"] = group
        span = self._tracer.start_span(
            f"process {message.topic}",
            context=_propagator.extract(message.headers, Context())
            if TRACEPARENT in message.headers
            else None,
            kind=SpanKind.CONSUMER,
            links=links,
            attributes=attributes,
        )
        with trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            except BaseException as error:
                self._remember(place, span)
                _end(span, error)
                raise
        span.end()

    def _remember(self, place: tuple[str | None, str, int, int], span: Span) -> None:
        with self._lock:
            self._failed[place] = span.get_span_context()
            if len(self._failed) > MAX_FAILED:
                self._failed.popitem(last=False)

    def received(self, consumer: Any, messages: Any, since_ns: int) -> None:
        if not messages:
            return
        topics = {message.topic for message in messages}
        topic = topics.pop() if len(topics) == 1 else None
        attributes = _attributes("poll", "receive", topic, group=_group_of(consumer))
        attributes["messaging.batch.message_count"] = len(messages)
        links = _links([message.headers for message in messages[:MAX_LINKS]])
        span = self._tracer.start_span(
            f"poll {topic}" if topic is not None else "poll",
            kind=SpanKind.CLIENT,
            links=links,
            attributes=attributes,
            start_time=since_ns,
        )
        span.end()

    @contextmanager
    def settling(self, name: str, consumer: Any, messages: Any) -> Iterator[None]:
        topics = {message.topic for message in messages or ()}
        topic = topics.pop() if len(topics) == 1 else None
        attributes = _attributes(name, "settle", topic, group=_group_of(consumer))
        if messages:
            attributes["messaging.batch.message_count"] = len(messages)
        span = self._tracer.start_span(
            f"{name} {topic}" if topic is not None else name, kind=SpanKind.CLIENT, attributes=attributes
        )
        try:
            yield
        except BaseException as error:
            _end(span, error)
            raise
        span.end()


def _attributes(
    name: str, kind: str, topic: str | None, *, partition: int | None = None, group: str | None = None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "messaging.system": "planaria",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
    }
    if topic is not None:
        found["messaging.destination.name"] = str(topic)
    if partition is not None:
        found["messaging.destination.partition.id"] = str(partition)
    if group is not None:
        found["messaging.consumer.group.name"] = group
    return found


def _injected(headers: Headers | None, span: Span) -> Headers | None:
    """Return the headers with the context of a span; headers of a program stay."""
    carrier: Headers = {}
    _propagator.inject(carrier, trace.set_span_in_context(span, Context()))
    return {**carrier, **(headers or {})} if carrier else headers


def _links(all_headers: Sequence[Headers | None]) -> list[Link]:
    """Return links to the spans that created the messages with these headers."""
    found = []
    for headers in all_headers:
        if headers and TRACEPARENT in headers:
            created = trace.get_current_span(_propagator.extract(headers, Context())).get_span_context()
            if created.is_valid:
                found.append(Link(created))
    return found


def _group_of(consumer: Any) -> str | None:
    group = getattr(consumer, "_group", None)
    return group if isinstance(group, str) else None


def _end_with(span: Span, handle: Any) -> None:
    """End a span when its message is acknowledged or has failed; a message that waits for its topic, at once."""
    batch = getattr(handle, "_batch", None)
    if batch is None:
        span.end()
        return

    def end(_: object) -> None:
        span.set_attribute("messaging.destination.partition.id", str(batch.partition))
        offset = batch.offset_of(handle._record) if batch.error is None else None
        if offset is not None:
            span.set_attribute("planaria.message.offset", offset)
        _end(span, batch.error)

    with batch.lock:
        is_done = batch.is_done
        if not is_done:
            batch.callbacks.append((end, handle))
    if is_done:
        end(handle)


def _end(span: Span, error: BaseException | None) -> None:
    if error is not None:
        span.set_attribute("error.type", getattr(error, "code", None) or type(error).__qualname__)
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, str(error)))
    span.end()
