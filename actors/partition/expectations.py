"""A publisher's expectation about the end of the log, or the version of a key: compared and refused here. Pure.

Called by `appends.py` for each batch that is neither invalid nor a repeat. The answer is taken from all batches that the
leader has placed, visible or not: a record that is refused is not written, whatever becomes of them.
"""

from collections.abc import Sequence

from ...transport.batch import NO_PRODUCER, BatchHeader, InvalidBatch
from ...transport.compression import CODEC_MASK, Buffer
from ...transport.protocol.data import Expected
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ..log.key_versions import KeyVersions, KeyWrite, writes_of


def keys_of(frame: Buffer, header: BatchHeader) -> Sequence[KeyWrite]:
    """Return the keys in a batch of a topic that keeps their versions. Raises InvalidBatch."""
    if header.attributes & CODEC_MASK:
        raise InvalidBatch("a topic with key_versions does not accept compressed batches")
    return writes_of(frame, header)


def refusal_of(
    versions: KeyVersions,
    writes: Sequence[KeyWrite],
    header: BatchHeader,
    expected: Expected | None,
    log_end_offset: int,
) -> ErrorBody | None:
    """Return the reason why a batch is not placed at the end of the log."""
    if not versions.has_room_for(writes):
        return ErrorBody(ErrorCode.LIMIT_REACHED, "the partition cannot store the versions of more keys")
    if expected is None:
        return None
    if header.producer_id != NO_PRODUCER:
        message = (
            "a batch with an expectation has no producer id: refusing it would leave a gap in its sequence"
        )
        return ErrorBody(ErrorCode.INVALID_REQUEST, message)
    if expected.offset is not None and expected.offset != log_end_offset:
        message = f"expected offset {expected.offset}, the next one is {log_end_offset}"
        return ErrorBody(ErrorCode.CONFLICT, message, present=log_end_offset)
    if expected.key_version is not None:
        return _version_refusal(versions, writes, header, expected.key_version)
    return None


def _version_refusal(
    versions: KeyVersions, writes: Sequence[KeyWrite], header: BatchHeader, expected: int
) -> ErrorBody | None:
    if not versions.is_kept:
        return ErrorBody(ErrorCode.INVALID_REQUEST, "the topic was created without key_versions")
    if header.record_count != 1 or not writes:
        return ErrorBody(ErrorCode.INVALID_REQUEST, "only a single record with a key can expect its version")
    name = writes[0].name
    present = versions.version_of(name)
    if versions.is_unsettled(name):
        message = f"an open transaction has written the key, whose version is {present}"
        return ErrorBody(ErrorCode.CONFLICT, message, present=present)
    if present != expected:
        message = f"expected version {expected} of the key, the version is {present}"
        return ErrorBody(ErrorCode.CONFLICT, message, present=present)
    return None
