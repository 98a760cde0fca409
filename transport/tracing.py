"""The hooks at which spans of a trace begin: publishing, receiving, handling, settling.

Owns the tracer that a program installs (`planaria.otel`), for its whole process. Without one each hook is a look at a
variable, and objects made before an installation keep publishing without spans. Knows nothing of OpenTelemetry. Called by
producers, consumers, contexts and workers.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from .batch import Headers

P = ParamSpec("P")
SelfT = TypeVar("SelfT")
ResultT = TypeVar("ResultT")


class Tracer(Protocol):
    def publishing(self, publish: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that publishes within a span, which ends with the acknowledgement."""

    def created(self, topic: str, headers: Headers | None) -> Headers | None:
        """Return the headers of a message that is published later, with the context of a span that creates it."""

    def handling(self, handler: Callable[..., Any], group: str, *, is_async: bool) -> Callable[..., Any]:
        """Return the handler within a span for each call."""

    def received(self, consumer: Any, messages: Any, since_ns: int) -> None:
        """Report the messages of a poll that began at this time."""

    def settling(self, name: str, consumer: Any, messages: Any) -> AbstractContextManager[Any]:
        """Return a block for a call that settles messages."""

    def now_ns(self) -> int:
        """Return the time at which a span begins."""


active: Tracer | None = None
attempt: ContextVar[int] = ContextVar("attempt", default=1)
"""The attempt at the record for which this thread calls the handler."""
_NOTHING: AbstractContextManager[Any] = nullcontext()


def publishing(publish: Callable[..., ResultT]) -> Callable[..., ResultT]:
    return publish if active is None else active.publishing(publish)


def settling(name: str, consumer: Any, messages: Any = None) -> AbstractContextManager[Any]:
    return _NOTHING if active is None else active.settling(name, consumer, messages)


def receiving(
    poll: Callable[Concatenate[SelfT, P], list[ResultT]],
) -> Callable[Concatenate[SelfT, P], list[ResultT]]:
    """Report the messages that a poll returns."""

    @wraps(poll)
    def traced(self: SelfT, /, *args: P.args, **kwargs: P.kwargs) -> list[ResultT]:
        tracer = active
        if tracer is None:
            return poll(self, *args, **kwargs)
        since_ns = tracer.now_ns()
        messages = poll(self, *args, **kwargs)
        tracer.received(self, messages, since_ns)
        return messages

    return traced


def receiving_async(
    poll: Callable[Concatenate[SelfT, P], Awaitable[list[ResultT]]],
) -> Callable[Concatenate[SelfT, P], Any]:
    """As `receiving`, for a coroutine function."""

    @wraps(poll)
    async def traced(self: SelfT, /, *args: P.args, **kwargs: P.kwargs) -> list[ResultT]:
        tracer = active
        if tracer is None:
            return await poll(self, *args, **kwargs)
        since_ns = tracer.now_ns()
        messages = await poll(self, *args, **kwargs)
        tracer.received(self, messages, since_ns)
        return messages

    return traced
