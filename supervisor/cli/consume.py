"""`planaria consume`: print messages of topics to standard output."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from ...transport.client.errors import UnknownTopic
from . import EXIT_INTERRUPTED
from .connection import DEFAULT_ENDPOINT, ConnectOption, attached
from .failures import CommandFailed
from .output import plural
from .records import FORMATS

if TYPE_CHECKING:
    from ...transport.client.client import Client
    from ...transport.client.consumer import Consumer
    from ...transport.client.messages import Message

MAX_MESSAGES_A_POLL = 500
COMMIT_INTERVAL_MS = 1_000
IsolationOption: TypeAlias = Annotated[
    Literal["read_committed", "read_uncommitted"],
    typer.Option(
        "--isolation",
        metavar="LEVEL",
        help="read_committed skips open and aborted transactions; read_uncommitted does not.",
    ),
]


def consume(
    topics: Annotated[list[str], typer.Argument(metavar="TOPIC", show_default=False, help="Topics to read.")],
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            "-g",
            metavar="GROUP",
            help="Read as a member of this consumer group and commit offsets.",
        ),
    ] = None,
    from_beginning: Annotated[
        bool,
        typer.Option(
            "--from-beginning", help="Start at the oldest message in partitions without a committed offset."
        ),
    ] = False,
    partition: Annotated[
        list[int] | None,
        typer.Option(
            "--partition", min=0, metavar="N", help="Read only this partition; not with --group. Repeatable."
        ),
    ] = None,
    isolation: IsolationOption = "read_committed",
    output_format: Annotated[
        Literal["value", "json", "full"],
        typer.Option("--format", metavar="FORMAT", help="value, json or full."),
    ] = "value",
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, metavar="N", help="Exit after N messages.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0, metavar="SECONDS", help="Exit after this time without a message."),
    ] = None,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Print the messages of topics as they arrive, until Ctrl-C, --count or --timeout.

    Without --from-beginning and without committed offsets, only messages
    published after the start are printed. With --group, offsets of printed
    messages are committed every second; a command that is killed prints the
    messages of its last second again. The exit code is 1 when --timeout ends
    the command before --count is reached, and 130 after Ctrl-C.

    Examples:
      planaria consume ORDERS --from-beginning --count 10
      planaria consume ORDERS --group billing --format json | jq .value

    --format json: one object a line: {"topic", "partition", "offset",
    "timestamp_ms", "key", "value", "headers"}; a value published as JSON is
    JSON; bytes that are not UTF-8 are in "key_base64", "value_base64" instead
    """
    if group is not None and partition:
        raise typer.BadParameter(
            "cannot be combined with --group, which assigns the partitions", param_hint="--partition"
        )
    printing = _Printing(output_format)
    try:
        with (
            attached(connect) as client,
            _consumer(client, group, topics, partition or [], from_beginning, isolation) as consumer,
        ):
            printing.run(consumer, count, timeout)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if printing.is_interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if count is not None and printing.printed < count:
        raise CommandFailed(
            f"{printing.printed} of {count} messages were received, none in the last {timeout:g} s"
        )


def _consumer(
    client: "Client",
    group: str | None,
    topics: list[str],
    partitions: list[int],
    from_beginning: bool,
    isolation: Literal["read_committed", "read_uncommitted"],
) -> "Consumer":
    """Automatic commits cover only messages of earlier polls, so no unprinted message is committed."""
    known = {summary.topic: summary.partitions for summary in client.list_topics(internal=True)}
    for topic in topics:
        # A group would wait for the topic to be created; a misspelled name must fail instead.
        if topic not in known:
            raise UnknownTopic(topic)
        for partition in partitions:
            if partition >= known[topic]:
                count = plural(known[topic], "partition")
                raise CommandFailed(f"topic {topic!r} has {count}: there is no {partition}")
    chosen = [(topic, partition) for topic in topics for partition in partitions] or None
    return client.consumer(
        group,
        [] if chosen else topics,
        partitions=chosen,
        auto_offset_reset="earliest" if from_beginning else "latest",
        auto_commit_interval_ms=COMMIT_INTERVAL_MS,
        isolation=isolation,
    )


class _Printing:
    """Polling and printing.

    A signal between two outputs ends the loop in order, so that the printed messages are committed. One that comes
    while messages are being written, which may block, raises KeyboardInterrupt: these are not committed.
    """

    def __init__(self, output_format: str) -> None:
        self.printed = 0
        self.is_interrupted = False
        self._is_writing = False
        self._line = FORMATS[output_format]

    def run(self, consumer: "Consumer", count: int | None, timeout: float | None) -> None:
        def interrupt(number: int, frame: FrameType | None) -> None:
            if self._is_writing or self.is_interrupted:
                signal.default_int_handler(number, frame)
            self.is_interrupted = True
            consumer.stop()

        with _handling(interrupt):
            self._run(consumer, count, timeout)

    def _run(self, consumer: "Consumer", count: int | None, timeout: float | None) -> None:
        silent_until = time.monotonic() + timeout if timeout is not None else None
        while count is None or self.printed < count:
            wait_s = None if silent_until is None else max(0.0, silent_until - time.monotonic())
            most = MAX_MESSAGES_A_POLL if count is None else min(MAX_MESSAGES_A_POLL, count - self.printed)
            messages = consumer.poll(wait_s, max_messages=most)
            if messages:
                self._print(messages)
            if not messages or self.is_interrupted:
                return
            silent_until = time.monotonic() + timeout if timeout is not None else None

    def _print(self, messages: "list[Message]") -> None:
        text = b"".join([self._line(message) + b"\n" for message in messages])
        self._is_writing = True
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
        self._is_writing = False
        self.printed += len(messages)


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle SIGINT and SIGTERM by `handler` in the block."""
    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)
