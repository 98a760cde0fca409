"""Check the arguments of `publish` that few messages have: the time of expiry, the priority, the expectation.

The first two travel as headers, and the last one makes the message a batch of its own, with an id. Called by the
accumulator.
"""

from datetime import datetime
from typing import TypeAlias
from uuid import uuid4

from ..attributes import EXPIRES_HEADER, HIGHEST_PRIORITY, PRIORITY_HEADER
from ..batch import Headers
from ..protocol.data import MAX_TIMESTAMP_MS, Expected
from .content import copy_headers, is_number
from .options import MAX_NUMBER, InvalidOption
from .schedule import milliseconds_at

ExpiresAt: TypeAlias = datetime | int
"""A time, or milliseconds since the epoch."""


def with_attributes(
    headers: Headers | None, expires_at: ExpiresAt | None, priority: int | None
) -> Headers | None:
    """Return the headers with those of the arguments that are given. Raises InvalidOption."""
    if expires_at is None and priority is None:
        return headers
    added: Headers = {}
    if expires_at is not None:
        at_ms = milliseconds_at(expires_at)
        if not (is_number(at_ms) and 0 < at_ms <= MAX_TIMESTAMP_MS):
            raise InvalidOption(
                f"expires_at: must be a datetime or milliseconds since 1970, not {expires_at!r}"
            )
        added[EXPIRES_HEADER] = str(at_ms)
    if priority is not None:
        if not (is_number(priority) and 0 <= priority <= HIGHEST_PRIORITY):
            raise InvalidOption(f"priority: must be a number from 0 to {HIGHEST_PRIORITY}, not {priority!r}")
        added[PRIORITY_HEADER] = str(int(priority))
    return added if headers is None else {**copy_headers(headers), **added}


def expectation(offset: int | None, key_version: int | None) -> Expected | None:
    """Return the expectation of a publisher, None without one. Raises InvalidOption."""
    if offset is None and key_version is None:
        return None
    if offset is not None and not (is_number(offset) and 0 <= offset <= MAX_NUMBER):
        raise InvalidOption(f"expected_offset: must be a number from 0 up, not {offset!r}")
    if key_version is not None and not (is_number(key_version) and -1 <= key_version <= MAX_NUMBER):
        raise InvalidOption(
            f"expected_key_version: must be an offset, or -1 for a key without a record, not {key_version!r}"
        )
    return Expected(offset=offset, key_version=key_version)


def recognisable(
    expected: Expected, partition: int | None, key: bytes | None, dedup_id: str | None, unnamed: str
) -> str:
    """Return the dedup id of a message with an expectation: after a lost answer the partition must recognise it.

    `unnamed` is the reason why no message may have one, empty if it may. Raises InvalidOption.
    """
    if unnamed:
        raise InvalidOption(f"expected_offset, expected_key_version: {unnamed}")
    if key is None and expected.key_version is not None:
        raise InvalidOption("expected_key_version: the message has no key")
    if key is None and partition is None:
        raise InvalidOption("expected_offset: needs a partition, or a key, which has one")
    return uuid4().hex if dedup_id is None else dedup_id
