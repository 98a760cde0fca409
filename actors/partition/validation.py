"""Which batches of a client a partition takes, before their place in the log is considered. Pure.

A batch is opened once (`transport/batch.py`, `judge`), and never decompressed. Refused are damaged batches, kinds that
only the broker writes, batches that contradict themselves, and batches that would cost their readers more than the
topic permits: the size on the wire bounds neither their work nor their memory. Called by `appends.py`.
"""

from ...transport.batch import (
    CONTROL,
    DEDUP,
    LOG_APPEND_TIME,
    NO_PRODUCER,
    SEQUENCE_LIMIT,
    TRANSACTIONAL,
    BatchHeader,
    InvalidBatch,
    Judged,
    judge,
)
from ...transport.compression import CODEC_MASK, Buffer
from ...transport.future import LATEST_MS, too_far_ahead
from ...transport.producer_ids import coordinator_of
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.topics import TopicConfig

BROKER_ATTRIBUTES = CONTROL | LOG_APPEND_TIME
"""Only the broker writes such batches: a client that could write them would forge commits."""


def validated(frame: Buffer, config: TopicConfig, latest_ms: int = LATEST_MS) -> BatchHeader | ErrorBody:
    """Return the header of a batch that is taken, or the refusal. No timestamp may lie after `latest_ms`."""
    if len(frame) > config.max_message_bytes:
        return ErrorBody(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"the batch has {len(frame)} bytes, the topic takes {config.max_message_bytes}",
        )
    try:
        judged = judge(frame)
    except InvalidBatch as error:
        return ErrorBody(ErrorCode.INVALID_BATCH, str(error))
    header = judged.header
    fault = _fault_of(header)
    if fault is not None:
        return ErrorBody(ErrorCode.INVALID_BATCH, fault)
    excess = _excess_of(judged, config)
    if excess is not None:
        return ErrorBody(ErrorCode.MESSAGE_TOO_LARGE, excess)
    newest_ms = max(header.first_timestamp_ms, header.max_timestamp_ms)
    return too_far_ahead(newest_ms, latest_ms) if newest_ms > latest_ms else header


def _fault_of(header: BatchHeader) -> str | None:
    if header.attributes & BROKER_ATTRIBUTES:
        return "control batches and log-append-time batches are reserved for the broker"
    if header.attributes & ~(CODEC_MASK | DEDUP | TRANSACTIONAL):
        return f"unknown batch attributes {header.attributes:#x}"
    if header.record_count >= SEQUENCE_LIMIT:
        return f"a batch cannot hold {header.record_count} records"
    if header.producer_id != NO_PRODUCER and (
        min(header.producer_id, header.producer_epoch, header.base_sequence) < 0
    ):
        return "an idempotent batch needs a producer id, an epoch and a sequence from zero up"
    if bool(header.attributes & TRANSACTIONAL) is (coordinator_of(header.producer_id) is None):
        return "a batch is transactional if and only if its producer id was assigned for a transactional_id"
    return None


def _excess_of(judged: Judged, config: TopicConfig) -> str | None:
    """Return the exceeded limit."""
    record_count = judged.header.record_count
    if record_count > config.max_records_per_batch:
        return f"the batch has {record_count} records, the topic accepts {config.max_records_per_batch}"
    if judged.unpacked_bytes > config.max_unpacked_bytes:
        return f"the batch unpacks to {judged.unpacked_bytes} bytes, the topic accepts {config.max_unpacked_bytes}"
    return None
