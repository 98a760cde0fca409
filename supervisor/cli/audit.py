"""`planaria audit`: print the records of administrative acts and of refusals."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from ...transport.addresses import AUDIT_TOPIC, TopicPartition
from ...transport.audit_record import AuditRecord, decode_record, encode_record
from ...transport.client.errors import UnknownTopic
from ...transport.client.options import InvalidOption
from . import EXIT_INTERRUPTED
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .failures import CommandFailed
from .find import SinceOption
from .output import print_table
from .tables import Listing

if TYPE_CHECKING:
    from ...transport.client.client import Client
    from ...transport.client.messages import Message

COLUMNS = ("time", "principal", "address", "op", "resource", "outcome", "times")
RECHECK_S = 1.0
NO_AUDIT = "this broker records no audit: it has no authentication, or the option `audit` is off"


def audit(
    since: SinceOption = "beginning",
    principal: Annotated[
        str | None, typer.Option("--principal", metavar="NAME", help="Only records of this principal.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new records as they arrive, until Ctrl-C.")
    ] = False,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Print administrative acts and refused requests, with principal and outcome.

    Needs the right operate on cluster. An act whose outcome is not known is
    shown as "begun"; with --follow also one whose outcome follows. Refusals
    of five seconds are one line, with their number.

    Examples:
      planaria audit --since 24h
      planaria audit --principal shop --follow

    --json: one object a line: {"id", "time_ms", "outcome", "op", "resource",
    "principal", "client_id", "address", "error", "count", "first_ms", "node",
    "details"}, without empty ones; an act has two, with the same id
    """
    # Imported late, as the client itself is in connection.py.
    from ...transport.client.reading import messages_of_spans, reading  # noqa: PLC0415

    with attached(connect) as client:
        try:
            what = reading(AUDIT_TOPIC, since, "now", None, "read_uncommitted", client._request_timeout_ms)
        except InvalidOption as error:
            raise typer.BadParameter(str(error), param_hint="--since") from error
        try:
            spans = what.spans(client._network)
        except UnknownTopic as error:
            raise CommandFailed(NO_AUDIT) from error
        messages = messages_of_spans(client._network, what, spans, client._network.keep)
        found = _of(principal, _records(messages))
        if as_json:
            _print_lines(found)
        else:
            rows = [_row(each) for each in _concluded(found)]
            print_table(Listing(*COLUMNS, numbers=["times"]), rows, empty="" if follow else "no records")
        if follow:
            _follow(client, {tp: span.end for tp, span in spans.items()}, principal, as_json)


def _follow(client: "Client", ends: dict[TopicPartition, int], principal: str | None, as_json: bool) -> None:
    partitions = [(tp.topic, tp.partition) for tp in ends]
    try:
        with client.consumer(None, partitions=partitions, isolation="read_uncommitted") as consumer:
            for tp, end in ends.items():
                consumer.seek(tp.topic, tp.partition, end)
            while True:
                found = _of(principal, _records(consumer.poll(RECHECK_S)))
                if as_json:
                    _print_lines(found)
                    continue
                for each in _concluded(found):
                    sys.stdout.write("  ".join(_row(each)) + "\n")
                sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _records(messages: "Iterable[Message]") -> Iterator[AuditRecord]:
    for message in messages:
        record = decode_record(message.value or b"")
        if record is not None:
            yield record


def _of(principal: str | None, records: Iterable[AuditRecord]) -> Iterator[AuditRecord]:
    return (each for each in records if principal is None or each.principal == principal)


def _concluded(records: Iterable[AuditRecord]) -> list[AuditRecord]:
    """Return the records with one for each act: its outcome where that is known, at the time of its beginning."""
    shown: dict[str, AuditRecord] = {}
    for each in records:
        begun = shown.get(each.id)
        shown[each.id] = each if begun is None else msgspec.structs.replace(each, time_ms=begun.time_ms)
    return sorted(shown.values(), key=lambda each: each.time_ms)


def _print_lines(records: Iterable[AuditRecord]) -> None:
    for each in records:
        sys.stdout.buffer.write(encode_record(each) + b"\n")
    sys.stdout.buffer.flush()


def _row(record: AuditRecord) -> tuple[str, ...]:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.time_ms / 1000))
    outcome = f"{record.outcome} {record.error}".strip()
    return (
        at,
        record.principal or "-",
        record.address or "-",
        record.op or "-",
        record.resource or "-",
        outcome,
        str(record.count),
    )
