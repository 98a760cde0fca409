"""Dedup ids: how a client without state identifies a record so that a duplicate is recognised. Pure.

A record with a dedup id is the only one of its batch, which is marked DEDUP and uncompressed, with the id in the
record's header `dedup-id`. So a partition knows the batches to open, the id is stored with the record, and the
remembered ids are a function of the log. Made by producers and gateways, read by partitions.
"""

from collections.abc import Mapping

from .batch import DEDUP, NO_PRODUCER, BatchHeader, Headers, InvalidBatch, Record, build, decode_records
from .compression import CODEC_MASK, CODEC_NONE, Buffer
from .partitioner import partition_for_key

DEDUP_HEADER = "dedup-id"
MAX_DEDUP_ID_BYTES = 256


def dedup_id_fault(dedup_id: str) -> str | None:
    """Return the fault of a dedup id."""
    size_bytes = len(dedup_id.encode("utf-8", "replace"))
    if 1 <= size_bytes <= MAX_DEDUP_ID_BYTES:
        return None
    return f"dedup_id: must have 1 to {MAX_DEDUP_ID_BYTES} bytes, not {size_bytes}"


def identified_headers(headers: Mapping[str, str] | None, dedup_id: str) -> Headers:
    """Return the record's headers with its dedup id added."""
    return {**(headers or {}), DEDUP_HEADER: dedup_id}


def partition_for_dedup_id(dedup_id: str, partitions: int) -> int:
    """Return the partition of a record without a key: always the same one, or a duplicate would not be noticed."""
    return partition_for_key(dedup_id.encode(), partitions)


def identified_batch(record: Record, timestamp_ms: int) -> bytes:
    """Return the batch of one record with `dedup-id` among its headers."""
    key, value, _, headers = record
    return build(
        [(key, value, 0, headers)],
        first_timestamp_ms=timestamp_ms,
        max_timestamp_ms=timestamp_ms,
        attributes=DEDUP,
    )


def dedup_id_of(frame: Buffer, header: BatchHeader) -> str | None:
    """Return the dedup id of a batch, None if it is not marked. Raises InvalidBatch if the batch contradicts its
    mark."""
    if not header.attributes & DEDUP:
        return None
    if header.attributes & CODEC_MASK != CODEC_NONE:
        raise InvalidBatch("a batch with a dedup id is not compressed")
    if header.record_count != 1:
        raise InvalidBatch(f"a batch with a dedup id holds one record, not {header.record_count}")
    if header.producer_id != NO_PRODUCER:
        # Answering a duplicate without writing it would leave a gap in its producer's sequence.
        raise InvalidBatch("a batch with a dedup id has no producer id: the dedup id makes it idempotent")
    (_, _, _, headers), *_ = decode_records(frame, header)
    dedup_id = (headers or {}).get(DEDUP_HEADER)
    if dedup_id is None:
        raise InvalidBatch(f"a batch with a dedup id names it in its record's header {DEDUP_HEADER!r}")
    fault = dedup_id_fault(dedup_id)
    if fault is not None:
        raise InvalidBatch(fault)
    return dedup_id
