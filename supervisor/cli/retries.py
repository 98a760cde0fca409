"""Failed records that wait for their next attempt, as `planaria inflight` and `planaria group describe` show them.

Those of hosted handlers come with `status`, those of share groups with `describe_group`. A share group's coordinator
does not know the keys: they are read from the partitions.
"""

import time
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from msgspec import Struct
from rich.text import Text

from ...transport.addresses import Address, Kind, TopicPartition
from ...transport.protocol.operations import MAX_RETRYING_SHOWN, shown_key
from .output import UNKNOWN, duration_text, note, plural, print_table, show
from .tables import Listing

if TYPE_CHECKING:
    from ...transport.client.client import Client
    from ...transport.client.descriptions import BrokerStatus, GroupDescription

KEY_TIMEOUT_S = 2.0


class RetryingRecord(Struct, kw_only=True):
    group: str
    topic: str
    partition: int
    offset: int
    key: str | None
    member: str | None
    """Hosted member that holds the record; None in a share group."""
    attempts: int
    reason: str | None
    first_failed_ms: int | None
    next_try_ms: int
    parked: bool = False


class RetryingRecords(Struct):
    count: int = 0
    """Total number, including records not shown."""
    records: list[RetryingRecord] = []

    def __add__(self, other: "RetryingRecords") -> "RetryingRecords":
        return RetryingRecords(self.count + other.count, self.records + other.records)


def of_hosted(found: "BrokerStatus", group: str | None = None, topic: str | None = None) -> RetryingRecords:
    """Return the records of hosted handlers, filtered by group and topic unless they are None."""
    count = 0
    records: list[RetryingRecord] = []
    for actor in found.actors:
        address = Address.parse(actor.address)
        # A share group's coordinator reports its own records too: `of_share_group` returns those, with their keys.
        if address.kind not in (Kind.SUBSCRIBER, Kind.DEPLOYED) or group not in (None, address.name):
            continue
        shown = [each for each in actor.retrying.records if topic in (None, each.topic)]
        count += len(shown) if topic is not None else actor.retrying.count
        records += [
            RetryingRecord(
                group=address.name,
                topic=each.topic,
                partition=each.partition,
                offset=each.offset,
                key=each.key,
                member=actor.address,
                attempts=each.attempts,
                reason=each.reason,
                first_failed_ms=each.first_failed_ms,
                next_try_ms=each.next_try_ms,
                parked=each.parked,
            )
            for each in shown
        ]
    return RetryingRecords(count, records)


def of_share_group(client: "Client", found: "GroupDescription", topic: str | None = None) -> RetryingRecords:
    """Return the records of a share group, with their keys if readable now."""
    count = 0
    records: list[RetryingRecord] = []
    for part in found.share.partitions if found.share is not None else ():
        if topic not in (None, part.topic):
            continue
        for each in part.retrying:
            count += each.last_offset + 1 - each.first_offset
            shown = range(each.first_offset, each.last_offset + 1)[: MAX_RETRYING_SHOWN - len(records)]
            records += [
                RetryingRecord(
                    group=found.group,
                    topic=part.topic,
                    partition=part.partition,
                    offset=offset,
                    key=None,
                    member=None,
                    attempts=each.delivery_count,
                    reason=each.reason,
                    first_failed_ms=each.first_failed_ms,
                    next_try_ms=each.next_try_ms,
                )
                for offset in shown
            ]
    for tp, some in groupby(records, lambda record: TopicPartition(record.topic, record.partition)):
        _read_keys(client, tp, list(some))
    return RetryingRecords(count, records)


def _read_keys(client: "Client", tp: TopicPartition, records: Sequence[RetryingRecord]) -> None:
    with client.consumer(None, partitions=[tp], isolation="read_uncommitted") as consumer:
        for record in records:
            consumer.seek(*tp, record.offset)
            found = consumer.poll(KEY_TIMEOUT_S, 1)
            if not found:
                return  # unreachable now
            if found[0].offset == record.offset:
                record.key = shown_key(found[0].key)


def print_retrying(found: RetryingRecords) -> None:
    """Print the records; print nothing if there are none."""
    if not found.count:
        return
    now_ms = int(time.time() * 1000)
    columns = Listing(
        "record", "key", "group", "failed", "next try", "reason", numbers=["failed"], prose=["reason"]
    )
    note(f"\nfailed, waiting for the next attempt: {plural(found.count, 'record')}\n")
    print_table(columns, [_row(record, now_ms) for record in found.records])
    if found.count > len(found.records):
        note(f"and {found.count - len(found.records)} more")


def print_alarms(alarms: Sequence[str]) -> None:
    for alarm in alarms:
        show(Text(f"\n{alarm}", "bold red"))


def _row(record: RetryingRecord, now_ms: int) -> tuple[str, ...]:
    left_ms = record.next_try_ms - now_ms
    return (
        f"{record.topic}/{record.partition}@{record.offset}",
        UNKNOWN if record.key is None else record.key,
        record.group,
        str(record.attempts),
        ("in " + duration_text(left_ms) if left_ms > 0 else "now") + (", parked" if record.parked else ""),
        UNKNOWN if record.reason is None else record.reason,
    )
