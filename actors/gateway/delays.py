"""Records with delayed delivery: their fields in a publish, and their ids. Pure.

A record's id is the client's own, so that a repeat is recognised, or a unique one: the broker's instance, the
gateway's incarnation, the request's ticket, the record's position. Called by publish.py and publish_routes.py.
"""

from ...transport.batch import HEADER_BYTES
from ...transport.delayed_size import delivered_bytes
from ...transport.protocol.data import MAX_DELAY_MS, Publish, PublishRecord
from ...transport.protocol.delayed import ScheduleRecord, scheduled_id_fault
from ...transport.protocol.errors import ErrorCode, ProtocolError


def is_delayed(record: PublishRecord) -> bool:
    return record.deliver_at_ms is not None or record.delay_ms is not None


def scheduled_ids(request: Publish, prefix: str) -> dict[int, str]:
    """Return the ids of a request's delayed records, by their position in it. `prefix` begins those that the client did
    not give: it is unique to the request."""
    return {
        index: record.scheduled_id or f"{prefix}.{index}"
        for index, record in enumerate(request.records)
        if is_delayed(record)
    }


def check_time(index: int, record: PublishRecord, wall_ms: int) -> None:
    """Raises ProtocolError naming the invalid field."""
    if not is_delayed(record):
        if record.scheduled_id is not None:
            raise _refused(index, "scheduled_id: is for records with deliver_at_ms or delay_ms")
        return
    if record.deliver_at_ms is not None and record.delay_ms is not None:
        raise _refused(index, "deliver_at_ms and delay_ms are both given")
    if record.dedup_id is not None:
        raise _refused(index, "dedup_id: a delayed record is recognised by its scheduled_id")
    fault = None if record.scheduled_id is None else scheduled_id_fault(record.scheduled_id)
    if fault is not None:
        raise _refused(index, fault)
    if record.deliver_at_ms is not None and record.deliver_at_ms > wall_ms + MAX_DELAY_MS:
        raise _refused(index, f"deliver_at_ms: is more than {MAX_DELAY_MS} ms ahead")


def check_fits(index: int, record: ScheduleRecord, max_message_bytes: int) -> None:
    """Raises ProtocolError if the topic would refuse the record with the headers of its delivery."""
    size_bytes = HEADER_BYTES + delivered_bytes(record.scheduled_id, record)
    if size_bytes > max_message_bytes:
        message = f"records[{index}]: the topic accepts {max_message_bytes} bytes, when delivered this has {size_bytes}"
        raise ProtocolError(ErrorCode.MESSAGE_TOO_LARGE, message)


def _refused(index: int, why: str) -> ProtocolError:
    separator = "." if why.partition(":")[1] else ": "
    return ProtocolError(ErrorCode.INVALID_REQUEST, f"records[{index}]{separator}{why}")
