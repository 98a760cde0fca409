"""Dead letters of a hosted subscriber: the causes, and the dead letter of a failed record. Pure.

The format is `transport/dead_letters.py`.
"""

from ...transport.addresses import TopicPartition
from ...transport.dead_letters import DeadLetterHeaders, dead_letter_id, encode
from .effects import Cause, DeadLetterRecord
from .lanes import Lane

CAUSES: dict[Cause, str] = {
    "failed": "the handler raised, in a process that has ended since",
    "rejected": "the handler rejected the record, in a process that has ended since",
    "released": "the handler released the record",
    "timed out": "the handler exceeded handler_timeout_ms",
    "cpu exceeded": "the handler exceeded cpu_limit",
    "killed": "the handler killed its process",
}


def dead_letter_for(
    lane: Lane, topic: str, group: str, lineage: bytes, wall_offset_ms: int
) -> DeadLetterRecord:
    """Return the dead letter, for the topic `topic`, of the lane's first record, which has failed.

    `wall_offset_ms` is added to the lane's monotonic times.
    """
    record, failure = lane.held[0], lane.last_failure
    assert failure is not None
    fields = DeadLetterHeaders(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        group=group,
        failures=lane.attempts,
        deliveries=lane.handed,
        first_failure_ms=lane.first_failed_ms + wall_offset_ms,
        last_failure_ms=lane.last_failed_ms + wall_offset_ms,
        reason=failure.reason,
        exception=failure.exception,
        traceback=failure.traceback,
        exit=failure.exit,
        stack=failure.stack,
        peak_memory_bytes=failure.peak_bytes,
    )
    tp = TopicPartition(record.topic, record.partition)
    dedup_id = dead_letter_id(group, tp, record.offset, record.leader_epoch, lineage)
    return DeadLetterRecord(topic, record.key, record.value, encode(record.headers, fields), dedup_id)
