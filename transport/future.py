"""Limit on a record's timestamp ahead of the broker's clock, and the refusal of records beyond it. Pure.

A timestamp in another unit (microseconds given as milliseconds) lies thousands of years ahead, and retention by time
would keep its segment, and all later ones, until then. Partitions check each batch by its header, gateways each
record of a `publish`, schedulers the records they deliver.
"""

from .protocol.errors import ErrorBody, ErrorCode

UNLIMITED = -1
LATEST_MS = 2**63 - 1


def latest_ms(now_ms: int, max_ahead_ms: int) -> int:
    """Return the latest timestamp that a topic accepts."""
    return LATEST_MS if max_ahead_ms == UNLIMITED else now_ms + max_ahead_ms


def too_far_ahead(timestamp_ms: int, latest_ms: int) -> ErrorBody:
    message = (
        f"timestamp_ms: {timestamp_ms} is {timestamp_ms - latest_ms} ms further ahead of the broker's clock than the "
        "topic accepts (max_timestamp_ahead_ms); the unit is milliseconds since 1970"
    )
    return ErrorBody(ErrorCode.INVALID_TIMESTAMP, message)
