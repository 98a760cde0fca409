"""Check the expectation that a publisher gives with a message, and give the message an id. Used by `publish`."""

from uuid import uuid4

from ..protocol.data import Expected
from .content import is_number
from .options import MAX_NUMBER, InvalidOption


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
