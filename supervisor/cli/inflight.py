"""`planaria inflight`: records of a topic that are in flight, and those that wait for their next attempt."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from ...transport.addresses import Address
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached, operating
from .failures import CommandFailed
from .output import UNKNOWN, duration_text, note, print_json, print_table
from .retries import of_hosted, of_share_group, print_retrying
from .tables import Listing

if TYPE_CHECKING:
    from ...transport.client.descriptions import BrokerStatus, GroupDescription


def inflight(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", show_default=False, help="Topic of the records.")],
    group: Annotated[
        str | None,
        typer.Option(
            "--group", "-g", metavar="GROUP", show_default=False, help="Only records of this group."
        ),
    ] = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """List the records of TOPIC that are being handled, and those that failed and wait for their next attempt.

    Covers hosted subscribers, as of their last heartbeats, and members of
    share groups, whose process ids are unknown. On the broker's machine the
    former are shown even if the gateway does not answer.

    --json: {"records": [{"group", "topic", "partition", "offset",
    "member", "pid", "attempt", "since_ms"}], "retrying_count", "retrying":
    [{"group", "topic", "partition", "offset", "key", "member", "attempts",
    "reason", "first_failed_ms", "next_try_ms", "parked"}]}
    """
    with operating(connect) as operator:
        status = operator.status()
    records, retrying = records_of(status, topic, group), of_hosted(status, group, topic)
    try:
        with attached(connect) as client:
            client.describe_topic(topic)  # fails for a misspelled topic
            for name in client.list_groups() if group is None else [group]:
                found = client.describe_group(name)
                records += locked_records(found, topic)
                retrying += of_share_group(client, found, topic)
    except CommandFailed as error:
        note(f"hosted subscribers only; the members of share groups are unavailable: {error}")
    records.sort(key=lambda record: (record["partition"], record["offset"], record["group"]))
    if as_json:
        print_json({"records": records, "retrying_count": retrying.count, "retrying": retrying.records})
        return
    if records:
        now_ms = int(time.time() * 1000)
        columns = Listing(
            "partition", "offset", "group", "member", "pid", "attempt", "for",
            numbers=["partition", "offset", "pid", "attempt", "for"],
        )  # fmt: skip
        print_table(columns, [_row(record, now_ms) for record in records])
    else:
        note(f"no record of {topic} is being handled")
    print_retrying(retrying)


def records_of(found: "BrokerStatus", topic: str, group: str | None) -> list[dict[str, Any]]:
    """Return the records in flight in hosted handlers."""
    records: list[dict[str, Any]] = []
    for actor in found.actors:
        name = Address.parse(actor.address).group
        who = {"group": name, "member": actor.address, "pid": actor.pid}
        if group in (None, name):
            records += [who | msgspec.to_builtins(each) for each in actor.in_flight if each.topic == topic]
    return records


def locked_records(found: "GroupDescription", topic: str) -> list[dict[str, Any]]:
    """Return the records locked to members of a share group."""
    return [
        {
            "group": found.group,
            "member": held.member_id,
            "pid": None,
            "topic": topic,
            "partition": part.partition,
            "offset": offset,
            "attempt": held.delivery_count,
            "since_ms": held.since_ms,
        }
        for part in (found.share.partitions if found.share is not None else ())
        if part.topic == topic
        for held in part.held
        for offset in range(held.first_offset, held.last_offset + 1)
    ]


def _row(record: dict[str, Any], now_ms: int) -> tuple[str, ...]:
    told = (record[name] for name in ("partition", "offset", "group", "member", "pid", "attempt"))
    return *(UNKNOWN if value is None else str(value) for value in told), duration_text(
        max(0, now_ms - record["since_ms"])
    )
