"""Identities of records: how a client that keeps no state names a record so that its repeat is recognised. Pure.

A record with an identity travels alone in a batch marked DEDUP, uncompressed, with the identity in its header
`dedup-id`. So the mark tells a partition which batches to open, the identity is stored with the record, and what a
partition remembers is a function of its log. Made by producers and gateways, read by partitions.
"""

from collections.abc import Mapping

from .batch import DEDUP, NO_PRODUCER, BatchHeader, Headers, InvalidBatch, Record, build, decode_records
from .compression import CODEC_MASK, CODEC_NONE, Buffer
from .partitioner import partition_for_key

DEDUP_HEADER = "dedup-id"
MAX_DEDUP_ID_BYTES = 256


def dedup_id_fault(dedup_id: str) -> str | None:
    """What is wrong with an identity."""
    size_bytes = len(dedup_id.encode("utf-8", "replace"))
    if 1 <= size_bytes <= MAX_DEDUP_ID_BYTES:
        return None
    return f"dedup_id: must have 1 to {MAX_DEDUP_ID_BYTES} bytes, not {size_bytes}"


def identified_headers(headers: Mapping[str, str] | None, dedup_id: str) -> Headers:
    """The record's headers with its identity among them."""
    return {**(headers or {}), DEDUP_HEADER: dedup_id}


def partition_for_dedup_id(dedup_id: str, partitions: int) -> int:
    """Where a record without a key goes: the same place each time, or a repeat would not be noticed."""
    return partition_for_key(dedup_id.encode(), partitions)


def identified_batch(record: Record, timestamp_ms: int) -> bytes:
    """The batch of one record that holds `dedup-id` among its headers."""
    key, value, _, headers = record
    return build(
        [(key, value, 0, headers)],
        first_timestamp_ms=timestamp_ms,
        max_timestamp_ms=timestamp_ms,
        attributes=DEDUP,
    )


def dedup_id_of(frame: Buffer, header: BatchHeader) -> str | None:
    """The identity in a batch, None when it is not marked. Raises InvalidBatch when the mark promises what is not so."""
    if not header.attributes & DEDUP:
        return None
    if header.attributes & CODEC_MASK != CODEC_NONE:
        raise InvalidBatch("a batch with an identity is not compressed")
    if header.record_count != 1:
        raise InvalidBatch(f"a batch with an identity holds one record, not {header.record_count}")
    if header.producer_id != NO_PRODUCER:
        # Answering a repeat without writing it would leave a gap in its producer's sequence.
        raise InvalidBatch("a batch with an identity has no producer id: the identity is its idempotence")
    (_, _, _, headers), *_ = decode_records(frame, header)
    dedup_id = (headers or {}).get(DEDUP_HEADER)
    if dedup_id is None:
        raise InvalidBatch(f"a batch with an identity names it in its record's header {DEDUP_HEADER!r}")
    fault = dedup_id_fault(dedup_id)
    if fault is not None:
        raise InvalidBatch(fault)
    return dedup_id
