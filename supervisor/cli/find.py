"""`planaria find`: print the messages of a topic that have a key, headers, or values in their JSON."""

import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from ...transport.addresses import TopicPartition
from ...transport.client.options import InvalidOption
from .connection import DEFAULT_ENDPOINT, ConnectOption, attached
from .consume import IsolationOption
from .failures import CommandFailed
from .matching import criteria_of
from .output import plural
from .records import FORMATS

if TYPE_CHECKING:
    from ...transport.client.bounded import Span
    from ...transport.client.client import Client
    from ...transport.client.messages import Message
    from ...transport.protocol.data import Isolation

SHOWN_EVERY_S = 0.2
SinceOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--since",
        metavar="TIME",
        help="From 2026-01-31T12:00 (local time unless it names a zone), yesterday, or 90m, 2h, 3d ago.",
    ),
]


def find(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", show_default=False, help="Topic to search.")],
    key: Annotated[
        str | None, typer.Option("--key", "-k", metavar="KEY", help="Only messages with this key.")
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", "-H", metavar="NAME=TEXT", help="Only messages with this header. Repeatable."
        ),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--json",
            metavar="PATH=VALUE",
            help="Only messages with this value in their JSON, such as customer.id=7. Repeatable.",
        ),
    ] = None,
    since: SinceOption = "beginning",
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, metavar="N", help="End after N messages.")
    ] = None,
    isolation: IsolationOption = "read_committed",
    output_format: Annotated[
        Literal["value", "json", "full"],
        typer.Option("--format", metavar="FORMAT", help="value, json or full."),
    ] = "full",
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Print the messages of TOPIC that meet all criteria, up to the present end of the topic.

    Reads the whole topic, or the part since a time; on a terminal,
    standard error shows how far. The formats are those of "consume". The
    exit code is 1 when no message is found, and 130 after Ctrl-C.

    Examples:
      planaria find ORDERS --key order-1 --since 24h
      planaria find ORDERS --header source=web --json customer.id=7
      planaria find ORDERS --key order-1 --format json | jq .value
    """
    try:
        wanted = criteria_of(key, header or (), field or ())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if wanted.is_empty:
        raise typer.BadParameter("give --key, --header or --json; all messages are those of planaria consume")
    line, found = FORMATS[output_format], 0
    with attached(connect) as client, Progress() as progress:
        for message in scanned(client, topic, since, isolation, progress):
            if not wanted.match(message):
                continue
            found += 1
            progress.clear()
            sys.stdout.buffer.write(line(message) + b"\n")
            sys.stdout.buffer.flush()  # one at a time: matches may be hours of log apart
            if found == count:
                break
    if not found:
        raise CommandFailed(f"none of {plural(progress.scanned, 'message')} matches")


class Progress:
    """One line on standard error, replaced again and again, if that is a terminal."""

    def __init__(self) -> None:
        self.scanned = 0
        self._is_shown = sys.stderr is not None and sys.stderr.isatty()
        self._is_on_screen = False
        self._next_s = time.monotonic() + SHOWN_EVERY_S

    def update(self, share: float) -> None:
        """Show the share of the offsets that have been read, now and then."""
        if not self._is_shown or (now_s := time.monotonic()) < self._next_s:
            return
        self._next_s = now_s + SHOWN_EVERY_S
        sys.stderr.write(f"\r\x1b[K{plural(self.scanned, 'message')} read, {share:.0%}")
        sys.stderr.flush()
        self._is_on_screen = True

    def clear(self) -> None:
        if self._is_on_screen:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._is_on_screen = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()


def scanned(
    client: "Client", topic: str, since: str, isolation: "Isolation", progress: Progress
) -> "Iterator[Message]":
    """Yield the messages of a topic, and report how many were read."""
    from ...transport.client.reading import messages_of_spans, reading  # noqa: PLC0415

    try:
        what = reading(topic, since, "now", None, isolation, client._request_timeout_ms)
    except InvalidOption as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error
    network = client._network
    spans = what.spans(network)
    begun = {
        tp: _begin(what.ask(network, tp.partition, "earliest").offset, span) for tp, span in spans.items()
    }
    total = sum(span.end - begun[tp] for tp, span in spans.items())
    read: dict[TopicPartition, int] = {}
    for message in messages_of_spans(network, what, spans, network.keep):
        yield message
        progress.scanned += 1
        if progress.scanned % 1_000 == 0:
            read[message.topic_partition] = message.offset - begun[message.topic_partition]
            progress.update(_share(read, total))


def _begin(start: int, span: "Span") -> int:
    return min(max(start, span.start or 0), span.end)


def _share(read: Mapping[TopicPartition, int], total: int) -> float:
    return min(1.0, sum(read.values()) / total) if total else 1.0
