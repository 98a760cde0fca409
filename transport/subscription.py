"""The configuration of a hosted subscriber: checked options of a subscription, and addresses of its processes. Pure.

The embedding process builds a SubscriberOptions and installs it, as the arguments of a child spec, through the
supervisor's control endpoint; the subscriber reads it back. An object that exists is valid: construction raises
InvalidSubscription, one plain line. Handlers are only serialized here (`source_of`); only the subscriber's process
loads them.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_type_hints

import cloudpickle
import msgspec

from .addresses import is_internal, subscriber_address
from .client.options import OFFSET_RESETS, OffsetReset, choices_of
from .patterns import name_fault
from .payloads import UnusableAnnotation, decoder_of, unwrapped
from .protocol.control import ChildSpec
from .protocol.errors import PlanariaError
from .protocol.groups import MAX_SESSION_MS
from .protocol.operations import RETRY_ALARM_MS

Delivery = Literal["at-most-once", "at-least-once", "exactly-once"]
OnDamage = Literal["stop", "skip"]
ON_DAMAGE: tuple[str, ...] = get_args(OnDamage)
DELIVERIES: tuple[str, ...] = get_args(Delivery)
Coalesce = Literal["none", "latest"]
COALESCES: tuple[str, ...] = get_args(Coalesce)
Expired = Literal["deliver", "skip", "dead_letter"]
EXPIREDS: tuple[str, ...] = get_args(Expired)
SHUTDOWN_MS = 30_000
"""Time for a stopping subscriber to finish the current record before it is killed."""
MAX_CONCURRENCY = 256
MAX_WEIGHT = 100
MAX_WEIGHTS = 1_000
MIN_MEMORY_LIMIT_BYTES = 16 * 1024 * 1024
STOP_MARGIN_MS = 2_000
"""Part of it reserved for the last commit and for leaving the group."""

_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class InvalidSubscription(PlanariaError, ValueError):
    """The options of a subscription contradict each other or name something that does not exist."""


class HandlerSource(msgspec.Struct, frozen=True, kw_only=True):
    """A serialized handler: pickled by value, or `module:function`. Exactly one of the two."""

    pickled: bytes | None = None
    path: str | None = None
    member: str | None = None
    """Name of a handler in the application that `path` names, `module:app`."""

    def __post_init__(self) -> None:
        if (self.pickled is None) == (self.path is None):
            raise InvalidSubscription("handler: give either a function or 'module:function'")
        if self.path is not None and not _PATH.fullmatch(self.path):
            raise InvalidSubscription(f"handler: {self.path!r} is not of the form 'module:function'")


class SubscriberOptions(msgspec.Struct, frozen=True, kw_only=True):
    """One subscription, identical for all its members."""

    group: str
    topics: list[str]
    handler: HandlerSource
    endpoint: str
    """The gateway's endpoint."""
    sys_path: list[str] = msgspec.field(default_factory=list)
    """The module path of the embedding process, so that the handler's modules are found too."""
    identity: str = ""
    """Name of the worker outside the broker to which this process belongs, in front of its own among the members."""
    version: int = 0
    """Counts the versions of the handler's code in a worker."""
    delivery: Delivery = "at-least-once"
    retries: int = 5
    """Number of retries of a failed record. At-most-once has none."""
    backoff_ms: int | list[int] = 1_000
    """The wait before the first retry, `backoff_factor` times longer with each; or a list of all waits."""
    backoff_factor: float = 2.0
    backoff_max_ms: int = 60_000
    backoff_jitter: float = 0.2
    """Each wait is longer or shorter by up to this share. A list is used as it is; its last entry repeats."""
    dead_letter: str | None = None
    """The topic for records that failed for good. None parks them: retried every longest wait, under an alarm in
    `status`."""
    retry_alarm_ms: int = RETRY_ALARM_MS
    """A record that has been failing for this long is an alarm in `status`."""
    concurrency: int = 1
    """Number of records handled at a time, each in a thread; records of one key are handled one after another."""
    max_in_flight_per_key: int = 1
    """Number of records of one key that are handled at a time; above 1 in any order. Needs `concurrency`."""
    rate_per_key: float = 0.0
    """Limit of handler calls a second for the records of one key, retries included, in bursts of a second's worth; 0: no
    limit. Needs `concurrency`."""
    weights: dict[str, int] = {}
    """The number of records that a key, as text, has handled in one turn; 1 for all others. Needs `concurrency`."""
    coalesce: Coalesce = "none"
    """The records of a key that are handled: all that wait, or only the newest. Needs `concurrency`."""
    expired: Expired = "deliver"
    """The end of a record whose header `expires-at-ms` is past when it is its turn: handled all the same, skipped, or
    dead-lettered."""
    max_wait_ms: int = 0
    """With `coalesce`: the time for which records of a key are collected before the newest is handled."""
    breaker_window: int = 20
    """Number of recent records that the circuit breaker considers; 0: it never opens."""
    breaker_share: float = 0.5
    """The share of these that must have failed, each counted once, for the member to pause."""
    breaker_pause_ms: int = 1_000
    """The first pause, doubled each time, up to a minute."""
    handler_timeout_ms: int | None = None
    """Time limit for one record; None means no limit."""
    cpu_limit: float | None = None
    """Limit of CPU time, in seconds, for one record; None means no limit."""
    memory_limit: int | None = None
    """Limit of memory, in bytes, that a process may use beyond its memory at start; None means no limit. Linux
    only."""
    session_timeout_ms: int = 10_000
    auto_offset_reset: OffsetReset = "earliest"
    on_damage: OnDamage = "stop"
    """Action at records that cannot be read: stop before them under an alarm, or continue after them."""
    max_records: int = 10_000
    """Limit of records buffered for the handler, by partition."""
    correlation_header: str | None = None
    """Header that the messages of `context.publish` take over from their record; None: no header."""

    def __post_init__(self) -> None:
        for check in (_check_source, _check_delivery, _check_header, _check_numbers, _check_keys):
            check(self)

    @property
    def is_limited_by_key(self) -> bool:
        return self.rate_per_key > 0 or self.coalesce != "none" or bool(self.weights)


ONLY_SHARED = {
    "fair": "with a `concurrency` above 1 the keys of a hosted subscriber take turns",
    "priority": "a hosted subscriber handles the records of a key in their order",
}
"""Options by key that share groups alone have, and the reason."""

_BY_BROKER = frozenset({"group", "topics", "handler", "endpoint", "sys_path", "identity", "version"})


def options_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a subscription given by a program; each must be known and of its type. Raises
    InvalidSubscription."""
    hints = get_type_hints(SubscriberOptions)
    known = sorted(set(hints) - _BY_BROKER)
    taken = dict(given)
    for name, value in given.items():
        if name in ONLY_SHARED:
            raise InvalidSubscription(f"{name}: {ONLY_SHARED[name]}; share groups have this option")
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise InvalidSubscription(
                f"unknown option {name!r}, the nearest is {nearest!r}; known are {', '.join(known)}"
            )
        if choices_of(hints[name]):
            continue  # `_check_delivery` reports the known values
        try:
            taken[name] = msgspec.convert(value, hints[name])
            msgspec.msgpack.encode(value)
        except OverflowError as error:
            raise InvalidSubscription(f"{name}: must have at most 64 bits, not {value}") from error
        except msgspec.ValidationError as error:
            what = str(error).partition(" - at ")[0]
            raise InvalidSubscription(f"{name}: {what[0].lower()}{what[1:]}, {value!r}") from error
    return taken


def check_enforceable(options: SubscriberOptions, *, is_linux: bool, has_thread_clocks: bool) -> None:
    """Raise InvalidSubscription for a budget that this machine cannot enforce."""
    if options.memory_limit is not None and not is_linux:
        raise InvalidSubscription("memory_limit: the kernel of this machine does not enforce it; Linux does")
    if options.cpu_limit is not None and not has_thread_clocks:
        raise InvalidSubscription("cpu_limit: this machine cannot tell the CPU time of another thread")


def source_of(handler: Callable[[Any], Any] | str) -> HandlerSource:
    """Return a handler in serialized form. Raises InvalidSubscription if that is impossible."""
    if isinstance(handler, str):
        return HandlerSource(path=handler)
    if not callable(handler):
        raise InvalidSubscription(f"handler: {handler!r} is not callable")
    if (fault := handler_fault(handler)) is not None:
        raise InvalidSubscription(f"handler: {fault}")
    try:
        decoder_of(handler)
    except UnusableAnnotation as error:
        raise InvalidSubscription(f"handler: {error}") from error
    try:
        return HandlerSource(pickled=cloudpickle.dumps(handler))
    except Exception as error:
        # Pickling may raise any exception, depending on the function's references.
        raise InvalidSubscription(f"handler: cannot be sent to another process: {error}") from error


def handler_fault(handler: Callable[..., object]) -> str | None:
    """Return why a callable cannot be a handler: the result of a call must be iterated over."""
    called = unwrapped(handler)
    if inspect.isasyncgenfunction(called) or inspect.isgeneratorfunction(called):
        return "a generator function: a call of it runs nothing; use a function that returns"
    return None


def is_async(handler: Callable[..., object]) -> bool:
    """Return True if a call of the handler returns a coroutine."""
    return inspect.iscoroutinefunction(unwrapped(handler))


def child_spec(options: SubscriberOptions, number: int, start: str) -> ChildSpec:
    """Return the child spec of one member. `start` is the dotted path of the subscriber's entry point."""
    return ChildSpec(
        address=subscriber_address(options.group, number),
        start=start,
        arguments=msgspec.to_builtins(options, builtin_types=(bytes,)),
        restart="permanent",
        shutdown_ms=SHUTDOWN_MS,
    )


def _check_source(options: SubscriberOptions) -> None:
    if not options.group:
        raise InvalidSubscription("group: must not be empty")
    if not options.topics:
        raise InvalidSubscription("topics: name at least one")
    for what, name in [("group", options.group), *(("topics", topic) for topic in options.topics)]:
        _check_name(what, name)
    if len(set(options.topics)) != len(options.topics):
        raise InvalidSubscription("topics: one is named twice")
    if options.dead_letter == "":
        raise InvalidSubscription("dead_letter: must not be empty")
    if options.dead_letter is not None:
        _check_name("dead_letter", options.dead_letter)
        if is_internal(options.dead_letter):
            raise InvalidSubscription(f"dead_letter: {options.dead_letter!r} is an internal topic")
    if options.dead_letter in options.topics:
        raise InvalidSubscription(
            f"dead_letter: {options.dead_letter!r} is subscribed to; failed records would be consumed again"
        )


def _check_name(what: str, name: str) -> None:
    fault = name_fault(name)
    if fault is not None:
        raise InvalidSubscription(f"{what}: {fault}")


def _check_delivery(options: SubscriberOptions) -> None:
    delivery: str = options.delivery
    if delivery not in DELIVERIES:
        raise InvalidSubscription(f"delivery: {delivery!r} is unknown; choose one of {', '.join(DELIVERIES)}")
    if options.auto_offset_reset not in OFFSET_RESETS:
        raise InvalidSubscription(
            f"auto_offset_reset: {options.auto_offset_reset!r} is unknown; choose one of {', '.join(OFFSET_RESETS)}"
        )
    if options.on_damage not in ON_DAMAGE:
        raise InvalidSubscription(
            f"on_damage: {options.on_damage!r} is unknown; choose one of {', '.join(ON_DAMAGE)}"
        )


def _check_header(options: SubscriberOptions) -> None:
    if options.correlation_header == "":
        raise InvalidSubscription("correlation_header: must not be empty")


def _check_numbers(options: SubscriberOptions) -> None:
    _at_least("retries", options.retries, 0)
    if not 100 <= options.session_timeout_ms <= MAX_SESSION_MS:
        raise InvalidSubscription(
            f"session_timeout_ms: must be from 100 to {MAX_SESSION_MS}, not {options.session_timeout_ms}"
        )
    _at_least("max_records", options.max_records, 1)
    _at_least("retry_alarm_ms", options.retry_alarm_ms, 1)
    if not 1 <= options.concurrency <= MAX_CONCURRENCY:
        raise InvalidSubscription(
            f"concurrency: must be from 1 to {MAX_CONCURRENCY}, not {options.concurrency}"
        )
    if options.handler_timeout_ms is not None:
        _at_least("handler_timeout_ms", options.handler_timeout_ms, 1)
    if options.cpu_limit is not None and not 0.1 <= options.cpu_limit <= 86_400:
        raise InvalidSubscription(f"cpu_limit: must be from 0.1 to 86400 seconds, not {options.cpu_limit}")
    if options.memory_limit is not None:
        _at_least("memory_limit", options.memory_limit, MIN_MEMORY_LIMIT_BYTES)
    _check_backoff(options)
    _check_breaker(options)


def _check_keys(options: SubscriberOptions) -> None:
    """Check the limits by key. A partition's order, or a commit before the handler, leaves no record to defer."""
    coalesce: str = options.coalesce
    if coalesce not in COALESCES:
        raise InvalidSubscription(f"coalesce: {coalesce!r} is unknown; choose one of {', '.join(COALESCES)}")
    if not 0 <= options.rate_per_key <= 100_000:
        raise InvalidSubscription(f"rate_per_key: must be from 0 to 100000, not {options.rate_per_key}")
    if len(options.weights) > MAX_WEIGHTS:
        raise InvalidSubscription(f"weights: at most {MAX_WEIGHTS} keys, not {len(options.weights)}")
    for key, weight in options.weights.items():
        if not 1 <= weight <= MAX_WEIGHT:
            raise InvalidSubscription(f"weights: {key!r} must be from 1 to {MAX_WEIGHT}, not {weight}")
    if not 0 <= options.max_wait_ms <= 3_600_000:
        raise InvalidSubscription(f"max_wait_ms: must be from 0 to 3600000, not {options.max_wait_ms}")
    if options.max_wait_ms and coalesce == "none":
        raise InvalidSubscription("max_wait_ms: needs coalesce='latest'")
    expired: str = options.expired
    if expired not in EXPIREDS:
        raise InvalidSubscription(f"expired: {expired!r} is unknown; choose one of {', '.join(EXPIREDS)}")
    if expired == "dead_letter" and options.dead_letter is None:
        raise InvalidSubscription("expired: 'dead_letter' needs a dead_letter topic")
    if not 1 <= options.max_in_flight_per_key <= MAX_CONCURRENCY:
        raise InvalidSubscription(
            f"max_in_flight_per_key: must be from 1 to {MAX_CONCURRENCY}, not {options.max_in_flight_per_key}"
        )
    if options.max_in_flight_per_key > 1 and (coalesce != "none" or options.weights):
        raise InvalidSubscription(
            "max_in_flight_per_key: not with coalesce or weights, which take a key's records one after the other"
        )
    limits = {
        "max_in_flight_per_key": options.max_in_flight_per_key > 1,
        "rate_per_key": options.rate_per_key > 0,
        "weights": bool(options.weights),
        "coalesce": coalesce != "none",
    }
    for name, is_given in limits.items():
        if is_given and options.concurrency == 1:
            raise InvalidSubscription(
                f"{name}: needs a concurrency above 1; with 1 a partition's records are handled in their order"
            )
        if is_given and options.delivery == "at-most-once":
            raise InvalidSubscription(
                f"{name}: not with at-most-once, whose records are committed before they are handled"
            )


def _check_backoff(options: SubscriberOptions) -> None:
    waits = options.backoff_ms if isinstance(options.backoff_ms, list) else [options.backoff_ms]
    if not waits:
        raise InvalidSubscription("backoff_ms: a list of waits must not be empty")
    for wait_ms in waits:
        _at_least("backoff_ms", wait_ms, 1)
    if isinstance(options.backoff_ms, int) and options.backoff_max_ms < options.backoff_ms:
        raise InvalidSubscription("backoff_max_ms: must not be less than backoff_ms")
    if not 1 <= options.backoff_factor <= 100:
        raise InvalidSubscription(f"backoff_factor: must be from 1 to 100, not {options.backoff_factor}")
    if not 0 <= options.backoff_jitter <= 1:
        raise InvalidSubscription(f"backoff_jitter: must be from 0 to 1, not {options.backoff_jitter}")


def _check_breaker(options: SubscriberOptions) -> None:
    if not 0 <= options.breaker_window <= 10_000:
        raise InvalidSubscription(f"breaker_window: must be from 0 to 10000, not {options.breaker_window}")
    if not 0.01 <= options.breaker_share <= 1:
        raise InvalidSubscription(f"breaker_share: must be from 0.01 to 1, not {options.breaker_share}")
    if not 1 <= options.breaker_pause_ms <= 60_000:
        raise InvalidSubscription(
            f"breaker_pause_ms: must be from 1 to 60000, not {options.breaker_pause_ms}"
        )


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InvalidSubscription(f"{name}: must be at least {least}, not {value}")
