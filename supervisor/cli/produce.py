"""`planaria produce`: publish lines or JSON from a file or standard input to a topic."""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, TypeAlias

import msgspec
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from ...transport.client.errors import TimedOut
from ...transport.durations import duration_ms
from ...transport.protocol.errors import PlanariaError
from ...transport.times import time_ms
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .failures import CommandFailed, describe
from .output import error_console, note, plural, print_json, rate_text
from .records import JSON_HEADERS, Parser, json_parser, line_parser

if TYPE_CHECKING:
    from ...transport.client.delivery import Delivery
    from ...transport.client.producer import Producer

MAX_UNCONFIRMED = 100_000
"""Deliveries kept for checking; above that, the older half is awaited."""
DELIVERY_TIMEOUT_MS = 30_000
LAST_FLUSH_S = 5.0
"""Time that an interrupted or failed command waits for the outcomes of its published messages."""
LINES_A_LOOK = 1_000
"""Lines between two updates of the progress bar."""

_ACKS: dict[str, Any] = {"0": 0, "1": 1, "all": "all"}


class Produced(msgspec.Struct, kw_only=True):
    """Counts of a run so far."""

    topic: str
    messages: int = 0
    bytes: int = 0
    seconds: float = 0.0


Advance: TypeAlias = Callable[[Produced], None]
DelayOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--delay", metavar="DURATION", help="Deliver after a delay such as 500ms, 90s, 15m, 2h or 3d."
    ),
]
DeliverAtOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--deliver-at",
        metavar="TIME",
        help="Deliver at a time such as 2026-01-31T12:00 (local unless it names a zone).",
    ),
]
ExpiresAtOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--expires-at",
        metavar="TIME",
        help="Time after which the messages expire, or a duration such as 15m.",
    ),
]
PriorityOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--priority", min=0, max=9, metavar="N", help="Priority within a share group; initially 0."),
]
AcksOption: TypeAlias = Annotated[
    Literal["0", "1", "all"],
    typer.Option("--acks", metavar="0|1|all", help="0 does not wait for acknowledgements."),
]


def produce(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", show_default=False, help="Topic to publish to.")],
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", metavar="FILE", help="Read this file instead of standard input."),
    ] = None,
    input_format: Annotated[
        Literal["lines", "json"],
        typer.Option("--format", metavar="lines|json", help="Format of a line: any text, or one JSON value."),
    ] = "lines",
    key_field: Annotated[
        str | None,
        typer.Option("--key-field", metavar="NAME", help="Field that holds the key, with --format json."),
    ] = None,
    key_separator: Annotated[
        str | None,
        typer.Option(
            "--key-separator", metavar="TEXT", help="Text between key and value, with --format lines."
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="NAME=VALUE", help="Header of every message. Repeatable."),
    ] = None,
    partition: Annotated[
        int | None,
        typer.Option(
            "--partition", min=0, metavar="N", help="Target partition (default: by key, else round robin)."
        ),
    ] = None,
    acks: AcksOption = "all",
    delay: DelayOption = None,
    deliver_at: DeliverAtOption = None,
    expires_at: ExpiresAtOption = None,
    priority: PriorityOption = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Publish one message per line, and print the number of acknowledged messages.

    On Ctrl-C or an error, the line from which to continue is printed.

    Examples:
      echo hello | planaria produce ORDERS
      planaria produce ORDERS --file orders.txt --key-separator :
      planaria produce ORDERS --file orders.jsonl --format json --key-field id
      echo wake up | planaria produce ORDERS --delay 15m

    --json: {"topic", "messages", "bytes", "seconds"}
    """
    parser = _parser(input_format, key_field, key_separator)
    options: dict[str, Any] = {
        "partition": partition,
        "headers": {**(JSON_HEADERS if input_format == "json" else {}), **_headers(header or [])} or None,
        "priority": priority,
        "expires_at": _time_of_expiry(expires_at),
        **_time_of_delivery(delay, deliver_at, acks),
    }
    produced = Produced(topic=topic)
    with (
        _opened(file) as (source, size_bytes),
        attached(connect) as client,
        _progress(produced, size_bytes) as advance,
        client.producer(acks=_ACKS[acks], delivery_timeout_ms=DELIVERY_TIMEOUT_MS) as producer,
    ):
        client.describe_topic(topic)  # fails if the topic does not exist, even for empty input
        _Publishing(producer, produced, options).run(source, parser, advance)
    if as_json:
        print_json(produced)
    else:
        seconds = produced.seconds
        rate = rate_text(produced.messages, seconds)
        note(f"{plural(produced.messages, 'message')} to {topic} in {seconds:.2f} s ({rate})")


class _Publishing:
    """Publish lines until one fails, and track their acknowledgements."""

    def __init__(self, producer: "Producer", produced: Produced, options: dict[str, Any]) -> None:
        self._producer = producer
        self._produced = produced
        self._options = options
        self._unconfirmed: deque[tuple[int, Delivery]] = deque()
        """Each with the number of its line."""
        self._lines_taken = 0
        """Lines up to this one hold no message or have a delivery.

        An interrupt within `publish` leaves its line out.
        """
        self._started_at = time.monotonic()

    def run(self, source: BinaryIO, parser: Parser, advance: Advance) -> None:
        number = 0
        try:
            for number, line in enumerate(source, 1):
                self._publish(parser, line, number)
                self._lines_taken = number
                if not number % LINES_A_LOOK:
                    advance(self._produced)
            self._producer.flush()
            self._confirm(0)
        except CommandFailed as error:
            self._producer.flush()
            self._confirm(0)
            before = plural(self._produced.messages, "message")
            raise CommandFailed(f"line {number}: {error}; published before it: {before}") from error
        except PlanariaError as error:
            raise CommandFailed(f"{describe(error)}; {self._outcome_of_all()}") from error
        except OSError as error:
            name = "standard input" if source is sys.stdin.buffer else source.name
            raise CommandFailed(f"{name}: {error.strerror}; {self._outcome_of_all()}") from error
        except KeyboardInterrupt:
            error_console().print(self._outcome_of_all(), soft_wrap=True)
            raise
        finally:
            self._produced.seconds = round(time.monotonic() - self._started_at, 3)
            advance(self._produced)

    def _outcome_of_all(self) -> str:
        """Wait for the outcome of all published messages; return it with the first line not acknowledged."""
        with suppress(TimedOut):
            self._producer.flush(LAST_FLUSH_S)
        go_on_at = self._lines_taken + 1
        while self._unconfirmed:
            line, delivery = self._unconfirmed.popleft()
            if delivery.done() and delivery.exception() is None:
                self._produced.messages += 1
            else:
                go_on_at = min(go_on_at, line)
        before = plural(self._produced.messages, "message")
        return f"acknowledged: {before}; continue from line {go_on_at}"

    def _publish(self, parser: Parser, line: bytes, number: int) -> None:
        parsed = parser(line.rstrip(b"\r\n"))
        if parsed is None:
            return
        key, value = parsed
        delivery = self._producer.publish(self._produced.topic, value, key=key, **self._options)
        self._unconfirmed.append((number, delivery))
        self._produced.bytes += len(line)
        if len(self._unconfirmed) > MAX_UNCONFIRMED:
            self._confirm(MAX_UNCONFIRMED // 2)

    def _confirm(self, at_most: int) -> None:
        """Await the oldest deliveries until at most `at_most` remain. Raises the error of a failed one."""
        while len(self._unconfirmed) > at_most:
            error = self._unconfirmed[0][1].exception()  # keep it queued for `_outcome_of_all`
            if error is not None:
                raise error
            self._unconfirmed.popleft()
            self._produced.messages += 1


def _parser(input_format: str, key_field: str | None, key_separator: str | None) -> Parser:
    if input_format == "json":
        if key_separator is not None:
            raise typer.BadParameter("is for --format lines", param_hint="--key-separator")
        return json_parser(key_field)
    if key_field is not None:
        raise typer.BadParameter("is for --format json", param_hint="--key-field")
    if key_separator == "":
        raise typer.BadParameter("must not be empty", param_hint="--key-separator")
    return line_parser(key_separator)


def _time_of_delivery(delay: str | None, deliver_at: str | None, acks: str) -> dict[str, Any]:
    """Return the arguments of `publish` for a delayed message."""
    if delay is not None and deliver_at is not None:
        raise typer.BadParameter("--delay and --deliver-at are both given", param_hint="--delay")
    if (delay is not None or deliver_at is not None) and acks == "0":
        raise typer.BadParameter("a delayed message must be acknowledged: 1 or all", param_hint="--acks")
    if delay is not None:
        wait_ms = duration_ms(delay)
        if wait_ms is None:
            raise typer.BadParameter(f"{delay!r} is not like 90s or 15m", param_hint="--delay")
        return {"delay": wait_ms / 1000}
    if deliver_at is not None:
        at_ms = time_ms(deliver_at)
        if at_ms is None:
            raise typer.BadParameter(
                f"{deliver_at!r} is not a time like 2026-01-31T12:00", param_hint="--deliver-at"
            )
        return {"deliver_at": at_ms}
    return {}


def _time_of_expiry(text: str | None) -> int | None:
    """Return the time, in ms since the epoch: a time, or a duration from now."""
    if text is None:
        return None
    wait_ms = duration_ms(text)
    at_ms = time_ms(text) if wait_ms is None else int(time.time() * 1000) + wait_ms
    if at_ms is None:
        raise typer.BadParameter(
            f"{text!r} is not a time like 2026-01-31T12:00, nor like 15m", param_hint="--expires-at"
        )
    return at_ms


def _headers(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{pair!r} is not like NAME=VALUE", param_hint="--header")
        found[name] = text
    return found


@contextmanager
def _opened(file: Path | None) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open the input; return it with its size in bytes, None if unknown."""
    if file is None or str(file) == "-":
        if sys.stdin.isatty():
            error_console().print("one message a line; Ctrl-D ends", soft_wrap=True)
        yield sys.stdin.buffer, None
        return
    with file.open("rb") as source:
        yield source, os.fstat(source.fileno()).st_size or None


@contextmanager
def _progress(produced: Produced, size_bytes: int | None) -> Iterator[Advance]:
    """Show a progress bar if standard error is a terminal and input is not typed into it."""
    if not sys.stderr.isatty() or (size_bytes is None and sys.stdin.isatty()):
        yield lambda _: None
        return
    columns = (
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[messages]:,} acknowledged"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=error_console(), transient=True) as bar:
        task = bar.add_task(produced.topic, total=size_bytes, messages=0)
        yield lambda now: bar.update(task, completed=now.bytes, messages=now.messages)
