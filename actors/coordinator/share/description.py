"""A share group as shown to operators: the answer to `describe_group`, its alarms, and records waiting for a retry.
Pure.

Called by group.py, with the decided state; changes nothing.
"""

from collections.abc import Mapping, Sequence

from ....transport.addresses import TopicPartition
from ....transport.protocol.groups import DescribeGroupReply
from ....transport.protocol.operations import MAX_RETRYING_SHOWN, Retrying, RetryReport
from ....transport.protocol.shares import ShareDescription
from .partition import SharePartition
from .records import ShareSettings

MAX_ALARMS = 10
"""Most alarms about failing records, one line for each partition."""


def describe(
    group: str,
    settings: ShareSettings,
    members: Sequence[str],
    partitions: Mapping[TopicPartition, SharePartition],
    wall_offset_ms: int,
) -> DescribeGroupReply:
    """Describe the group. `wall_offset_ms` is the wall clock minus the partitions' clock."""
    share = ShareDescription(
        lock_ms=settings.lock_ms,
        max_deliveries=settings.max_deliveries,
        dead_letter=settings.dead_letter,
        start=settings.start,
        members=list(members),
        partitions=[part.describe(*tp, wall_offset_ms) for tp, part in sorted(partitions.items())],
    )
    return DescribeGroupReply(
        group=group,
        state="stable" if members else "empty",
        generation=0,
        assignor="",
        members=[],
        offsets=[],
        type="share",
        share=share,
    )


def retry_alarms(partitions: Mapping[TopicPartition, SharePartition], now: int) -> tuple[str, ...]:
    """Return the alarms of records that have been failing for too long."""
    found = [text for tp, part in partitions.items() if (text := part.retry_alarm(*tp, now)) is not None]
    return tuple(sorted(found)[:MAX_ALARMS])


def retry_report(partitions: Mapping[TopicPartition, SharePartition]) -> RetryReport:
    """Return the records that wait for their next delivery. Their keys are known to the members alone."""
    count = 0
    records: list[Retrying] = []
    for (topic, partition), part in partitions.items():
        waiting = part.retrying_count
        count += waiting
        if not waiting or len(records) >= MAX_RETRYING_SHOWN:
            continue
        records += [
            Retrying(
                topic=topic,
                partition=partition,
                offset=offset,
                key=None,
                attempts=each.delivery_count,
                reason=each.reason,
                first_failed_ms=each.first_failed_ms,
                next_try_ms=each.next_try_ms,
            )
            for each in part.retrying()
            for offset in range(
                each.first_offset, min(each.last_offset, each.first_offset + MAX_RETRYING_SHOWN) + 1
            )
        ]
    records.sort(key=lambda each: each.next_try_ms)
    return RetryReport(count=count, records=records[:MAX_RETRYING_SHOWN])
