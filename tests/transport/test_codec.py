"""Headers and envelopes: both encodings alike, the wrong field named, and no harm from untrusted input."""

import json
import random
import tracemalloc
from typing import Any

import msgspec
import pytest

from planaria.transport import codec
from planaria.transport.codec import RequestDecoder, decode_reply, encode_header, id_of, split_envelope
from planaria.transport.protocol.data import Fetch, FetchReply, Produce, ProducedBatch, ProduceReply, Publish
from planaria.transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from planaria.transport.protocol.groups import GroupHeartbeat
from planaria.transport.protocol.message import MAX_FRAMES, MAX_HEADER_BYTES, Done, ErrorReply
from planaria.transport.protocol.session import Hello, Metadata

DECODER = RequestDecoder((Fetch, Publish, Produce, Hello, GroupHeartbeat))
FETCH = {"op": "fetch", "topic": "T", "partition": 0, "offset": 0}


def both(header: dict[str, Any]) -> list[bytes]:
    return [msgspec.json.encode(header), msgspec.msgpack.encode(header)]


def refusal(header: bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        DECODER.decode(header)
    return caught.value


# Envelopes.


@pytest.mark.parametrize("envelope", [[], [b""], [b"name"], [b"name", b""], [b"\x00abc", b"\x01"]])
@pytest.mark.parametrize("header", [b"{}", b"\x80", b"\x8f", b"\xde\x00\x00", b"\xdf\x00\x00\x00\x00"])
def test_the_header_is_the_first_map(envelope: list[bytes], header: bytes) -> None:
    payload = [b"{}", b"\x80payload", b""]
    found = split_envelope([*envelope, header, *payload])
    assert found == (tuple(envelope), header, payload)


@pytest.mark.parametrize(
    "frames", [[], [b""], [b"", b"", b"", b"{}"], [b"a", b"b", b"c", b"{}"], [b"[]"], [b"\x90"]]
)
def test_no_header_within_three_frames_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError, match="INVALID_REQUEST"):
        split_envelope(frames)


def test_the_bound_on_frames_counts_from_the_header() -> None:
    header = b'{"op":"hello"}'
    for envelope in ([], [b""], [b"name", b""]):
        _, found, payload = split_envelope([*envelope, header, *[b""] * (MAX_FRAMES - 1)])
        DECODER.decode(found, len(payload))
        _, found, payload = split_envelope([*envelope, header, *[b""] * MAX_FRAMES])
        with pytest.raises(ProtocolError, match="MESSAGE_TOO_LARGE"):
            DECODER.decode(found, len(payload))


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([b"x"], ()),
        ([b"", b"x"], (b"",)),
        ([b"name", b"", b"x"], (b"name", b"")),
        ([], ()),
        ([b"a", b"b", b""], ()),
    ],
)
def test_what_has_no_header_is_answered_behind_its_delimiter(
    frames: list[bytes], expected: tuple[bytes, ...]
) -> None:
    assert codec.envelope_of(frames) == expected


# Requests.


@pytest.mark.parametrize("id_", [None, 0, -1, 2**63 - 1, "a name", ""])
def test_both_encodings_give_the_same(id_: Any) -> None:
    for header in both({**FETCH, "id": id_}):
        assert DECODER.decode(header) == Fetch(id=id_, topic="T", partition=0, offset=0)
        assert id_of(header) == id_


def test_bytes_are_base64_in_json() -> None:
    request = DECODER.decode(
        b'{"op":"publish","topic":"T","records":[{"key":"AP8=","value_text":"\\u2713"}]}'
    )
    assert isinstance(request, Publish)
    assert (request.records[0].key, request.records[0].value_text) == (b"\x00\xff", "\u2713")
    assert (
        "$.records[0].key"
        in refusal(b'{"op":"publish","topic":"T","records":[{"key":"not base64!"}]}').message
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"partition": "zero"}, "$.partition"),
        ({"partition": 1.5}, "$.partition"),
        ({"offset": -1}, "$.offset"),
        ({"offset": 2**63}, "$.offset"),
        ({"format": "xml"}, "$.format"),
        ({"max_wait_ms": 60_001}, "$.max_wait_ms"),
        ({"topic": None}, "$.topic"),
        ({"id": [1]}, "$.id"),
        ({"id": 1.5}, "$.id"),
        ({"offest": 1}, "offest"),
    ],
    ids=str,
)
def test_the_field_at_fault_is_named(change: dict[str, Any], named: str) -> None:
    for header in both({**FETCH, **change}):
        error = refusal(header)
        assert error.code == ErrorCode.INVALID_REQUEST
        assert error.message.startswith("fetch: ")
        assert named in error.message


def test_a_missing_field_is_named_and_so_is_one_deep_inside() -> None:
    for header in both({"op": "fetch", "topic": "T", "partition": 0}):
        assert "`offset`" in refusal(header).message
    for header in both({"op": "publish", "topic": "T", "records": [{}, {"headers": {"a": 1}}]}):
        assert "$.records[1].headers" in refusal(header).message


def test_ops_that_are_not_served_here_are_said_to_be() -> None:
    for header in both({"op": "kill", "address": "controller"}):
        assert refusal(header).code == ErrorCode.UNKNOWN_OP
    for header in both({"op": "x" * 100_000}):
        assert len(refusal(header).message) < 200


@pytest.mark.parametrize(
    "header", [b"{}", b'{"id":1}', b'{"op":7}', b'{"op":null}', b"\x80", b"\x81\xa2op\x07"]
)
def test_a_header_without_an_op_is_refused(header: bytes) -> None:
    error = refusal(header)
    assert error.code == ErrorCode.INVALID_REQUEST
    assert "`op`" in error.message


# Untrusted input.

HOSTILE = {
    "json not UTF-8": b'{"op":"fetch","topic":"\xff","partition":0,"offset":0}',
    "msgpack not UTF-8": b"\x84\xa2op\xa5fetch\xa5topic\xa1\xff\xa9partition\x00\xa6offset\x00",
    "lone surrogate": b'{"op":"fetch","topic":"\\ud800","partition":0,"offset":0}',
    "number beyond 64 bits": b'{"op":"fetch","topic":"T","partition":0,"offset":' + b"9" * 100 + b"}",
    "endless number": b'{"op":"fetch","topic":"T","partition":' + b"9" * 1_000_000 + b',"offset":0}',
    "beyond a double": b'{"op":"fetch","topic":"T","partition":1e999,"offset":0}',
    "nan": b'{"op":"fetch","topic":"T","partition":NaN,"offset":0}',
    "json nested deeply": b'{"op":"fetch","id":' + b"[" * 1_000_000,
    "json nested deeply, whole": b'{"op":"fetch","id":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "json objects nested deeply": b'{"a":' * 500_000,
    "msgpack nested deeply": b"\x81\xa2id" + b"\x91" * 1_000_000,
    "msgpack maps nested deeply": b"\x81\xa1a" * 500_000,
    "an array announced": b"\x82\xa2op\xaagroup_heartbeat"[:7] + b"\xa5topic\xdd\xff\xff\xff\xff",
    "a map announced": b"\xdf\xff\xff\xff\xff",
    "a string announced": b"\x81\xa2op\xdb\xff\xff\xff\xff",
    "extension": b"\x82\xa2op\xa5fetch\xa5topic\xc7\xff\x01",
    "keys that are no strings": b"\x81\x01\x01",
    "two values": b'{"op":"hello"}{"op":"hello"}',
    "cut short": b'{"op":"hel',
}


@pytest.mark.parametrize("header", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_headers_are_refused(header: bytes) -> None:
    error = refusal(header)
    assert error.code == ErrorCode.INVALID_REQUEST
    assert len(error.message) < 1_000
    id_of(header)


@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854775809", "1e25", "1E25", "9" * 50])
def test_numbers_that_messagepack_cannot_carry_on_are_refused(number: str) -> None:
    hostile = f'{{"op":"group_heartbeat","id":1,"group":"g","owned":{{"T":[0,{number}]}}}}'
    assert refusal(hostile.encode()).code == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 2**70])
def test_an_id_may_be_as_long_as_json_lets_it_be(number: int) -> None:
    assert DECODER.decode(json.dumps({**FETCH, "id": number}).encode()).id == number


def test_a_long_header_is_refused_before_it_is_read() -> None:
    header = b'{"op":"hello","client_id":"' + b"x" * MAX_HEADER_BYTES + b'"}'
    assert refusal(header).code == ErrorCode.MESSAGE_TOO_LARGE


def test_a_wrong_id_of_megabytes_is_not_built() -> None:
    wrong = b'{"op":"fetch","id":[' + b"[]," * 500_000 + b"[]]}"
    tracemalloc.start()
    try:
        refusal(wrong)
        assert id_of(wrong) is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_what_is_wrong_elsewhere_does_not_hide_the_id() -> None:
    for header in both({"op": 7, "id": "mine", "x": [1]}):
        assert id_of(header) == "mine"
    assert id_of(b'{"id":') is None


def test_an_unknown_field_of_megabytes_is_not_echoed() -> None:
    for header in both({**FETCH, "x" * 1_000_000: 1}):
        assert len(refusal(header).message) < 1_000


def test_damaged_headers_are_refused_or_read(seed: int) -> None:
    random_ = random.Random(seed)
    codes = set()
    good = both(FETCH)
    for _ in range(20_000):
        header = bytearray(random_.choice(good))
        for _ in range(random_.randrange(1, 4)):
            header[random_.randrange(len(header))] = random_.randrange(256)
        try:
            DECODER.decode(bytes(header))
        except ProtocolError as error:
            codes.add(error.code)
        id_of(bytes(header))
    assert codes == {ErrorCode.INVALID_REQUEST, ErrorCode.UNKNOWN_OP}


# Replies.


def test_replies_are_read_in_both_encodings() -> None:
    reply = FetchReply(id=4, topic="T", partition=0, log_start_offset=0, high_watermark=9, next_offset=9)
    for as_json in (True, False):
        assert decode_reply(encode_header(reply, as_json), FetchReply) == reply
        refused = ErrorReply(id=4, error=ErrorBody("OVERLOADED", "busy", True))
        assert decode_reply(encode_header(refused, as_json), FetchReply) == ErrorBody(
            "OVERLOADED", "busy", True
        )


def test_a_reply_may_have_fields_of_a_later_version() -> None:
    reply = {
        "id": 1,
        "topic": "T",
        "partition": 0,
        "log_start_offset": 0,
        "high_watermark": 0,
        "next_offset": 0,
    }
    for header in both({**reply, "later": [1]}):
        assert decode_reply(header, FetchReply).next_offset == 0
    for header in both({"id": 1, "error": {"code": "OF_A_LATER_VERSION", "message": "m", "hint": 1}}):
        assert decode_reply(header, FetchReply) == ErrorBody("OF_A_LATER_VERSION", "m", False)


@pytest.mark.parametrize(
    "header", [b"{}", b"{", b"\x80", b"\x81\xa2id", b'{"id":1,"error":7}', b"\x81" * 100_000]
)
def test_an_unreadable_reply_is_said_to_be_one(header: bytes) -> None:
    with pytest.raises(ProtocolError, match="unreadable reply"):
        decode_reply(header, FetchReply)


def test_json_of_ours_is_json_to_others() -> None:
    header = json.loads(encode_header(Metadata(id=1, topics=["ä"]), as_json=True))
    assert header == {
        "op": "metadata",
        "id": 1,
        "topics": ["ä"],
        "groups": [],
        "after_version": None,
        "max_wait_ms": 0,
    }


@pytest.mark.parametrize("first", range(256))
def test_the_header_behind_a_request_id_is_found_by_the_delimiter(first: int) -> None:
    """ZMQ_REQ_CORRELATE puts four bytes in front, which may begin as a map does."""
    number = bytes([first, 0, 0, 1])
    for header in (b'{"op": "status"}', b"\x81\xa2op\xa6status"):
        assert split_envelope([number, b"", header, b"p"]) == ((number, b""), header, [b"p"])


@pytest.mark.parametrize("before", [b" ", b"\n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf \r\n"])
@pytest.mark.parametrize("envelope", [[], [b""], [b"x", b""]])
def test_a_json_header_may_begin_with_white_space_or_a_mark(before: bytes, envelope: list[bytes]) -> None:
    header = b'{"op": "status"}'
    assert split_envelope([*envelope, before + header]) == (tuple(envelope), header, [])


def test_an_empty_payload_frame_is_no_delimiter() -> None:
    assert split_envelope([b"{}", b"", b"p"]) == ((), b"{}", [b"", b"p"])


def test_a_reply_that_speaks_of_an_error_is_no_refusal() -> None:
    failed = ProducedBatch(-1, error=ErrorBody(ErrorCode.INVALID_BATCH, "an error"))
    body = ProduceReply(batches=[failed], high_watermark=1)
    refused = ErrorBody(ErrorCode.UNKNOWN_TOPIC, "no such topic")
    for as_json in (False, True):
        assert decode_reply(encode_header(body, as_json), ProduceReply) == body
        assert decode_reply(encode_header(ErrorReply(error=refused), as_json), Done) == refused
