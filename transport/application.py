"""The application object: the subscriptions and periodic functions of a program, declared beside their handlers.

    app = planaria.App("shop")

    @app.subscribe("ORDERS", group="billing", retries=5, dead_letter="ORDERS.dlq")
    def charge(order: Order, context): ...

    @app.every("5m")
    def report(): ...

A declaration has no effect beyond this object: a decorator returns the function unchanged, and nothing connects. The
processes of `planaria worker module:app` run the handlers; each imports the module and takes one of them by name. Pure.
"""

import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar, Unpack

from msgspec import Struct

from .durations import in_milliseconds
from .keywords import SubscriberConfig
from .patterns import name_fault
from .payloads import unwrapped
from .periodic import Periodic, Schedule, Tick, due_function, period_of
from .subscription import (
    MAX_CONCURRENCY,
    HandlerSource,
    InvalidSubscription,
    SubscriberOptions,
    handler_fault,
    options_of,
)

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])
PERIODIC = "periodic functions"
"""Name of the handler that runs the periodic functions: no function can have it."""
MAX_WORKERS = 1_000


class AppSubscription(Struct, frozen=True, kw_only=True):
    """One declared subscription."""

    name: str
    """Name of its handler, unique in the application."""
    group: str
    topics: list[str]
    workers: int | None
    """Processes in each worker; None: as many as the worker is started with."""
    options: dict[str, Any]
    """Options of a hosted subscription."""


class AppDescription(Struct, frozen=True, kw_only=True):
    """An application as another process can know it, without its code."""

    subscriptions: list[AppSubscription]
    periodic_topic: str | None
    """Topic of one partition whose records order the runs of the periodic functions; None if there are none."""
    periods_ms: dict[str, int]
    """Periods of the periodic functions, by name."""


class AppReport(Struct, kw_only=True):
    """Result of importing an application in a process of its own."""

    app: AppDescription | None = None
    """None if the application cannot be used."""
    files: list[str] = []
    """Files of the program's modules."""
    error: str = ""
    traceback: str = ""


class App:
    """The handlers of a program; run by `planaria worker module:app`.

    `name` identifies the application among its workers, as part of a topic's and a group's name; without one it has no
    periodic functions. Raises InvalidSubscription.
    """

    def __init__(self, name: str | None = None) -> None:
        if name is not None and (fault := name_fault(name)) is not None:
            raise InvalidSubscription(f"name: {fault}")
        self.name = name
        self._subscriptions: dict[str, AppSubscription] = {}
        self._handlers: dict[str, Callable[..., object]] = {}
        self._periodic: dict[str, Periodic] = {}

    def subscribe(
        self,
        topic: str | list[str],
        *,
        group: str,
        workers: int | None = None,
        **options: Unpack[SubscriberConfig],
    ) -> Callable[[FunctionT], FunctionT]:
        """Declare the decorated function, plain or `async def`, as the handler of a group's messages.

        `workers` is the number of processes in each `planaria worker`, by default that of its option `--processes`; the
        options are those of `Broker.subscribe`. The annotation of the function's first parameter is the type of its
        payload. Raises InvalidSubscription.
        """
        topics = [topic] if isinstance(topic, str) else list(topic)
        if workers is not None and not (type(workers) is int and 1 <= workers <= MAX_WORKERS):
            raise InvalidSubscription(f"workers: must be from 1 to {MAX_WORKERS}, not {workers!r}")
        given = options_of(in_milliseconds(options))

        def declare(function: FunctionT) -> FunctionT:
            name = self._free_name(function)
            subscription = AppSubscription(
                name=name, group=group, topics=topics, workers=workers, options=given
            )
            SubscriberOptions(
                group=group, topics=topics, handler=HandlerSource(path="app:app"), endpoint="", **given
            )
            self._subscriptions[name] = subscription
            self._handlers[name] = function
            return function

        return declare

    def every(self, period: str | float | timedelta) -> Callable[[FunctionT], FunctionT]:
        """Declare the decorated function of no parameters, plain or `async def`, to run once per period over all workers.

        `period` is a text such as "30s", "5m" or "1d", seconds, or a timedelta; from 1 second to 366 days. Raises
        InvalidSubscription.
        """
        if self.name is None:
            raise InvalidSubscription('every: the application needs a name: App("shop")')
        try:
            period_ms = period_of(period)
        except ValueError as error:
            raise InvalidSubscription(f"every: {error}") from error

        def declare(function: FunctionT) -> FunctionT:
            name = self._free_name(function)
            self._periodic[name] = Periodic(name, function, period_ms)
            return function

        return declare

    def _free_name(self, function: Callable[..., object]) -> str:
        if not callable(function):
            raise InvalidSubscription(f"handler: {function!r} is not callable")
        if (fault := handler_fault(function)) is not None:
            raise InvalidSubscription(f"handler: {fault}")
        name = getattr(function, "__qualname__", None) or unwrapped(function).__qualname__
        if name in self._handlers or name in self._periodic:
            raise InvalidSubscription(f"handler: two are named {name!r}; rename one of them")
        return name


def description_of(app: App) -> AppDescription:
    subscriptions = list(app._subscriptions.values())
    topic = _topic_of_ticks(app) if app._periodic else None
    if topic is not None:
        # The runs of different functions do not delay each other; a failing one does not pause the others.
        options = {"concurrency": min(MAX_CONCURRENCY, len(app._periodic)), "breaker_window": 0}
        subscriptions.append(
            AppSubscription(name=PERIODIC, group=topic, topics=[topic], workers=1, options=options)
        )
    periods_ms = {each.name: each.period_ms for each in app._periodic.values()}
    return AppDescription(subscriptions=subscriptions, periodic_topic=topic, periods_ms=periods_ms)


def handler_of(app: App, name: str, schedule: Schedule | None) -> Callable[..., object]:
    """Return the handler of a subscription. `schedule` publishes ticks. Raises LookupError."""
    if name == PERIODIC and app._periodic and schedule is not None:
        return _on_tick(app._periodic, _topic_of_ticks(app), schedule)
    if name not in app._handlers:
        raise LookupError(f"the application has no handler {name!r}")
    return app._handlers[name]


def _topic_of_ticks(app: App) -> str:
    return f"{app.name}.periodic"


def _on_tick(functions: Mapping[str, Periodic], topic: str, schedule: Schedule) -> Callable[[Tick], None]:
    def run(tick: Tick) -> None:
        due = due_function(tick, functions, topic, schedule)
        if due is not None:
            result = due()
            if inspect.iscoroutine(result):
                schedule.run_coroutine(result)

    return run
