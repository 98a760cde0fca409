"""A message as a program sees it: plain values, no None where a container is expected, a repr that fits on a line."""

import copy
import gc
import pickle
from datetime import UTC, datetime

import pytest

from planaria import Message, TopicPartition
from planaria.transport.batch import build, decode_fields, parse_header
from planaria.transport.client.messages import messages_of
from planaria.transport.client.share_messages import ShareMessage, locked


def message(value: bytes | None = b"v", headers: dict[str, str] | None = None) -> Message:
    return Message("T", 3, 17, b"k", value, 1_700_000_000_123, headers)


def test_a_message_without_headers_has_empty_headers() -> None:
    assert message().headers == {}
    assert message(headers={"a": "b"}).headers == {"a": "b"}


def test_empty_headers_are_not_shared_by_messages() -> None:
    first = message()
    first.headers["a"] = "b"
    assert first.headers == message().headers == {}


def test_the_time_of_a_message_is_its_timestamp_in_utc() -> None:
    assert message().time == datetime(2023, 11, 14, 22, 13, 20, 123_000, UTC)
    assert message().time.tzinfo is UTC
    assert Message("T", 0, 0, None, None, 0).time == datetime(1970, 1, 1, tzinfo=UTC)
    with pytest.raises(OverflowError):
        _ = Message("T", 0, 0, None, None, 2**53).time


def test_the_partition_of_a_message_has_its_topic() -> None:
    assert message().topic_partition == TopicPartition("T", 3) == ("T", 3)


def test_a_repr_is_short_however_large_the_value() -> None:
    assert repr(message()) == "<Message T/3 at 17, key=b'k', value=b'v'>"
    assert len(repr(message(bytes(1_000_000)))) < 250
    assert "(1,000,000 bytes)" in repr(message(bytes(1_000_000)))


@pytest.mark.parametrize("again", [copy.copy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_message_can_be_copied_and_pickled(again: object) -> None:
    assert again(message(headers={"a": "b"})) == message(headers={"a": "b"})  # type: ignore[operator]


def test_a_locked_message_keeps_what_the_message_says() -> None:
    found = locked(ShareMessage, message(), 2, None)
    assert (found.headers, found.delivery_count, found.time) == ({}, 2, message().time)
    assert repr(found).startswith("<ShareMessage T/3 at 17")


@pytest.mark.parametrize("headers", [None, {"a": "b"}])
def test_decoding_leaves_nothing_to_the_garbage_collector(headers: dict[str, str] | None) -> None:
    """It would scan all that a consumer holds again and again, for nothing: messages are in no cycles."""
    frame = build([(b"k", b"v", 1, headers)] * 3, first_timestamp_ms=5, max_timestamp_ms=6)
    header = parse_header(frame)
    for decoded in (decode_fields(frame, header), messages_of("T", 3, header, frame, 0)):
        assert not any(gc.is_tracked(each) or gc.is_tracked(each.headers) for each in decoded)
