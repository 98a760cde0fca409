"""The options of clients, producers and consumers: names, defaults and limits, checked when the object is made. Pure.

Whatever a program gets wrong here is one InvalidOption that names the option, before anything has been sent.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from math import isnan
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_origin, get_type_hints, overload

import msgspec
from msgspec import Meta, Struct

from ..addresses import TopicPartition
from ..durations import in_milliseconds
from ..patterns import name_fault
from ..protocol.data import (
    DEFAULT_TRANSACTION_MS,
    Acks,
    Isolation,
    TransactionalId,
    TransactionMilliseconds,
    WaitMilliseconds,
)
from ..protocol.errors import PlanariaError
from ..protocol.groups import AssignorName, SessionMilliseconds

Compression = Literal["none", "zstd", "lz4"]
OnBackpressure = Literal["block", "raise"]
OffsetReset = Literal["earliest", "latest", "error"]
OFFSET_RESETS: tuple[str, ...] = get_args(OffsetReset)
Rebalanced: TypeAlias = Callable[[list[TopicPartition]], object]
Duration: TypeAlias = float | timedelta
"""Seconds, or a timedelta."""

MAX_NUMBER = 2**63 - 1
Milliseconds = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
PositiveMilliseconds = Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
PositiveCount = Annotated[int, Meta(ge=1, le=MAX_NUMBER)]

REQUEST_TIMEOUT_MS = 30_000
MAX_WAIT_S = 365 * 86_400.0
"""In practice unlimited, and a number that every clock can hold."""


class InvalidOption(PlanariaError, ValueError):
    """An option of a client, producer or consumer is unknown or has a value it cannot have."""


class ClientOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a client."""

    client_id: str = ""
    request_timeout_ms: PositiveMilliseconds = REQUEST_TIMEOUT_MS
    metadata_timeout_ms: Milliseconds = 1_000


class ProducerOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`linger_ms` lets a batch wait for more records while many are published, unless a caller waits for its delivery.

    `batch_bytes` and `batch_records` bound a batch, `buffer_bytes` all batches that are full or in flight. A message that
    is not acknowledged after `delivery_timeout_ms` fails. While a partition refuses for backpressure its messages wait
    and do not grow old, and `publish` blocks when the buffer is full (`on_backpressure` "block"), or `publish` raises
    Backpressure ("raise").

    With a `transactional_id` the producer writes in transactions. Only one producer has a transactional id at a time. A
    transaction that is open for longer than `transaction_timeout_ms` is aborted.
    """

    acks: Acks = "all"
    linger_ms: Milliseconds = 5
    batch_bytes: PositiveCount = 512 * 1024
    batch_records: PositiveCount = 10_000
    buffer_bytes: PositiveCount = 32 * 1024 * 1024
    max_block_ms: Milliseconds = 60_000
    delivery_timeout_ms: PositiveMilliseconds = 120_000
    request_timeout_ms: PositiveMilliseconds = REQUEST_TIMEOUT_MS
    compression: Compression = "none"
    on_backpressure: OnBackpressure = "block"
    transactional_id: TransactionalId | None = None
    transaction_timeout_ms: TransactionMilliseconds = DEFAULT_TRANSACTION_MS


class ConsumerOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With `isolation` "read_committed" nothing of an open or aborted transaction is handed out.
    `auto_offset_reset` decides where to start without a committed offset, and where to go on when the position has
    left the log: "latest", "earliest", or "error" (NoOffset, OffsetOutOfRange).

    Callbacks run inside `poll`; `on_revoked` before the partitions are released, with the messages of earlier polls
    already committed if `auto_commit` is set; `on_lost` (or else `on_revoked`) when they are gone. A static member
    (`instance_id`) keeps its partitions over a restart within the session timeout.
    """

    partitions: Sequence[TopicPartition] | None = None
    auto_offset_reset: OffsetReset = "latest"
    isolation: Isolation = "read_committed"
    auto_commit: bool = True
    auto_commit_interval_ms: Milliseconds = 5_000
    session_timeout_ms: SessionMilliseconds = 10_000
    max_poll_interval_ms: PositiveMilliseconds = 300_000
    fetch_max_bytes: PositiveCount = 1024 * 1024
    fetch_min_bytes: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] = 1
    fetch_max_wait_ms: WaitMilliseconds = 500
    prefetch_bytes: PositiveCount = 16 * 1024 * 1024
    on_assigned: Rebalanced | None = None
    on_revoked: Rebalanced | None = None
    on_lost: Rebalanced | None = None
    skip_expired: bool = False
    instance_id: Annotated[str, Meta(min_length=1)] | None = None
    assignor: AssignorName | None = None
    client_id: str = ""
    request_timeout_ms: PositiveMilliseconds = REQUEST_TIMEOUT_MS


OptionsT = TypeVar("OptionsT", bound=Struct)


def checked(kind: type[OptionsT], given: Mapping[str, Any]) -> OptionsT:
    """Return the options of `kind`. Raises InvalidOption, one line that names the option."""
    given = in_milliseconds(given)
    for name, value in given.items():
        if isinstance(value, str):
            check_text(f"{name}:", value)
    try:
        return msgspec.convert(known(kind, given), kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        name = where.rstrip("`").partition("[")[0]
        choices = choices_of(get_type_hints(kind)[name])
        if choices:
            what = f"{given[name]!r} is unknown; choose one of {', '.join(map(str, choices))}"
        raise InvalidOption(f"{name}: {what[0].lower()}{what[1:]}") from error


def checked_producer(given: Mapping[str, Any]) -> ProducerOptions:
    """Return the options of a producer. Raises InvalidOption, also for those that do not fit together."""
    found = checked(ProducerOptions, given)
    if found.transactional_id is not None and found.acks != "all":
        raise InvalidOption("acks: must be 'all' with a transactional_id")
    return found


def known(kind: type[Struct], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `given`. Raises InvalidOption for a name that `kind` does not have."""
    for name in given:
        if name not in kind.__struct_fields__:
            nearest = difflib.get_close_matches(name, kind.__struct_fields__, n=1, cutoff=0)[0]
            raise InvalidOption(f"{name}: no such option; the nearest is {nearest}")
    return given


def as_topics(topics: str | Sequence[str]) -> list[str]:
    """Return the names of the topics, each once. Raises InvalidOption for an invalid name."""
    given: Any = topics
    found = [given] if isinstance(given, str) or not isinstance(given, Sequence) else list(given)
    for topic in found:
        check_name("topics", topic)
    return list(dict.fromkeys(found))


def check_sources(
    group: str | None, topics: Sequence[str], partitions: Sequence[TopicPartition] | None
) -> None:
    """Raise InvalidOption unless a consumer is given topics or partitions, of which it needs one."""
    if partitions is None:
        if not topics:
            who = "consumer without partitions" if group is None else "member of a group"
            raise InvalidOption(f"topics: a {who} needs at least one")
    elif topics:
        raise InvalidOption("partitions: cannot be combined with topics, whose partitions are assigned")
    elif not partitions:
        raise InvalidOption("partitions: a consumer of partitions needs at least one")


def as_partition(what: str, given: object) -> TopicPartition:
    """Return a topic and a partition's number. Raises InvalidOption for anything else."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise InvalidOption(f"{what}: must be (topic, partition), not {given!r}")
    topic, partition = given
    check_name(what, topic)
    if not isinstance(partition, int) or not 0 <= partition <= MAX_NUMBER:
        raise InvalidOption(f"{what}: a partition must be a number from 0 up, not {partition!r}")
    return TopicPartition(topic, partition)


def as_partitions(what: str, given: Iterable[tuple[str, int]]) -> list[TopicPartition]:
    found: Any = given
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise InvalidOption(f"{what}: must be a list of (topic, partition), not {found!r}")
    return [as_partition(what, each) for each in found]


def check_name(what: str, name: str) -> None:
    """Raise InvalidOption for an invalid name of a topic or group."""
    fault = name_fault(name)
    if fault is not None:
        raise InvalidOption(f"{what}: {fault}")


@overload
def wait_limit_s(timeout: Duration) -> float: ...


@overload
def wait_limit_s(timeout: Duration | None) -> float | None: ...


def wait_limit_s(timeout: Duration | None) -> float | None:
    """Return the seconds that a call may wait: None is unlimited, infinity a year.

    Raises InvalidOption for anything but a number or a timedelta.
    """
    given: Any = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if given is None:
        return None
    if not isinstance(given, int | float) or isnan(given):
        raise InvalidOption(f"timeout: must be seconds or a timedelta, not {timeout!r}")
    return min(max(0.0, given), MAX_WAIT_S)


def check_text(what: str, text: object) -> None:
    """Raise InvalidOption for anything but text that has a UTF-8 form."""
    if not isinstance(text, str):
        raise InvalidOption(f"{what} must be text, not {text!r}")
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise InvalidOption(f"{what} cannot be encoded as UTF-8: {error}") from error


def check_offset(offset: object) -> None:
    if not isinstance(offset, int) or not 0 <= offset <= MAX_NUMBER:
        raise InvalidOption(f"offset: must be a number from 0 up, not {offset!r}")


def check_count(what: str, count: object) -> None:
    if not isinstance(count, int) or count < 1:
        raise InvalidOption(f"{what}: must be at least 1, not {count!r}")


def choices_of(hint: Any) -> tuple[Any, ...]:
    """Return the values of a Literal, alone or in a union."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((found for each in get_args(hint) if (found := choices_of(each))), ())
