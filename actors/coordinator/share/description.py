"""A share group as shown to operators: the answer to `describe_group`, its alarms, and records waiting for a retry.
Pure.

Called by group.py, with the decided state; changes nothing.
"""

from collections.abc import Mapping, Sequence

from ....transport.addresses import TopicPartition
from ....transport.protocol.groups import DescribeGroupReply
from ....transport.protocol.operations import MAX_RETRYING_SHOWN, Retrying, RetryReport
from ....transport.protocol.shares import HeldRange, ShareDescription, SharePartitionDescription
from .partition import SharePartition
from .records import ShareSettings
from .spans import State

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
        fair=settings.fair,
        max_in_flight_per_key=settings.max_in_flight_per_key,
        rate_per_key=settings.rate_per_key,
        weights=settings.weights,
        coalesce=settings.coalesce,
        max_wait_ms=settings.max_wait_ms,
        expired=settings.expired,
        members=list(members),
        partitions=[_partition(tp, part, wall_offset_ms) for tp, part in sorted(partitions.items())],
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
    lines = [
        part.retries.alarm(f"{tp.topic}/{tp.partition}", part.spans, now)
        for tp, part in partitions.items()
        if part.retries.has_notes
    ]
    return tuple(sorted(line for line in lines if line is not None)[:MAX_ALARMS])


def retry_report(partitions: Mapping[TopicPartition, SharePartition]) -> RetryReport:
    """Return the records that wait for their next delivery. Their keys are known to the members alone."""
    count = 0
    records: list[Retrying] = []
    for (topic, partition), part in partitions.items():
        waiting = _retrying_count(part)
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
            for each in part.retries.ranges(part.spans, 0)
            for offset in range(
                each.first_offset, min(each.last_offset, each.first_offset + MAX_RETRYING_SHOWN) + 1
            )
        ]
    records.sort(key=lambda each: each.next_try_ms)
    return RetryReport(count=count, records=records[:MAX_RETRYING_SHOWN])


def _retrying_count(part: SharePartition) -> int:
    """Return the number of records that have failed and wait for their next delivery."""
    return sum(span.count for span in part.spans if span.state == State.AVAILABLE and span.deliveries > 0)


def _partition(tp: TopicPartition, part: SharePartition, wall_offset_ms: int) -> SharePartitionDescription:
    return SharePartitionDescription(
        topic=tp.topic,
        partition=tp.partition,
        start_offset=part.spans.start,
        next_offset=part.spans.end,
        acquired=part.count(State.ACQUIRED),
        returned=part.count(State.AVAILABLE),
        dead=part.count(State.DEAD),
        held=[
            HeldRange(
                member_id=span.member,
                first_offset=span.first,
                last_offset=span.end - 1,
                delivery_count=span.deliveries,
                since_ms=span.since + wall_offset_ms,
                locked_until_ms=span.until + wall_offset_ms,
            )
            for span in part.spans
            if span.state == State.ACQUIRED
        ],
        retrying=part.retries.ranges(part.spans, wall_offset_ms),
    )
