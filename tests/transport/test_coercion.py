"""Input from libraries without ints, bytes or empty maps is understood; ambiguous input is refused."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from example_counts import examples
from planaria.actors.gateway.machine import REQUESTS
from planaria.transport import coercion
from planaria.transport.codec import RequestDecoder, encode_header, id_of
from planaria.transport.protocol.data import Fetch, Publish
from planaria.transport.protocol.errors import ErrorCode, ProtocolError

DECODER = RequestDecoder(REQUESTS)
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "headers.json").read_text())
HEADERS = {
    each["name"]: msgspec.msgpack.decode(bytes.fromhex(each["msgpack"]))
    for each in VECTORS
    if each["kind"] == "request"
}
MAX_EXACT = 2**53


def floats_only(value: Any) -> Any:
    """Write as a library does whose only numbers are floats."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_EXACT:
        return float(value)
    if isinstance(value, dict):
        return {name: floats_only(item) for name, item in value.items()}
    return [floats_only(item) for item in value] if isinstance(value, list) else value


def bytes_only(value: Any) -> Any:
    """Write as a library does that treats all strings as bytes, names of fields included."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict):
        return {name.encode(): bytes_only(item) for name, item in value.items()}
    return [bytes_only(item) for item in value] if isinstance(value, list) else value


def text_only(value: Any) -> Any:
    """Write as a library does that treats all strings as text, where they are UTF-8."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, dict):
        return {name: text_only(item) for name, item in value.items()}
    return [text_only(item) for item in value] if isinstance(value, list) else value


def arrays_only(value: Any) -> Any:
    """Write as a library does that writes an empty map as an empty array."""
    if isinstance(value, dict):
        return {name: arrays_only(item) for name, item in value.items()} if value else []
    return [arrays_only(item) for item in value] if isinstance(value, list) else value


def maps_only(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: maps_only(item) for name, item in value.items()}
    return ([maps_only(item) for item in value] if value else {}) if isinstance(value, list) else value


WAYS = [
    floats_only,
    bytes_only,
    text_only,
    arrays_only,
    maps_only,
    lambda header: bytes_only(floats_only(header)),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", HEADERS)
def test_every_request_is_understood_in_the_words_of_poorer_libraries(name: str, way: Any) -> None:
    header = HEADERS[name]
    expected = DECODER.decode(msgspec.msgpack.encode(header))
    if way is text_only and "publish of bytes" in name:
        header = {**header, "records": [{"key": b"key", "value": b"value"}]}
        expected = DECODER.decode(msgspec.msgpack.encode(header))
    assert DECODER.decode(msgspec.msgpack.encode(way(header))) == expected


@pytest.mark.parametrize("way", [floats_only, arrays_only, maps_only])
@pytest.mark.parametrize("name", HEADERS)
def test_in_json_as_well(name: str, way: Any) -> None:
    header = msgspec.json.decode(msgspec.json.encode(HEADERS[name]))
    expected = DECODER.decode(msgspec.json.encode(header))
    assert DECODER.decode(msgspec.json.encode(way(header))) == expected


@pytest.mark.parametrize(
    "header",
    [
        {"op": "fetch", "topic": "T", "partition": 0.5, "offset": 0},
        {"op": "fetch", "topic": "T", "partition": 0, "offset": float(2**60)},
        {"op": "fetch", "topic": "T", "partition": float("nan"), "offset": 0},
        {"op": "fetch", "topic": "T", "partition": float("inf"), "offset": 0},
        {"op": "fetch", "topic": "T", "partition": "0", "offset": 0},
        {"op": "fetch", "topic": "T", "partition": True, "offset": 0},
        {"op": "fetch", "topic": "T", "partition": [], "offset": 0},
        {"op": "fetch", "topic": 5, "partition": 0, "offset": 0},
        {"op": "fetch", "topic": b"\xff", "partition": 0, "offset": 0},
        {"op": "fetch", "topic": "T", "partition": -1.0, "offset": -1.0},
        {"op": "fetch", "topic": "T", "partition": 0.0, "offset": 0, "max_byte": 1},
        {"op": "publish", "topic": "T", "records": [{"value": 5}]},
        {"op": "publish", "topic": "T", "records": {}},
        {"op": "create_topic", "topic": "T", "if_not_exists": 1},
    ],
)
def test_what_could_mean_something_else_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as refused:
        DECODER.decode(msgspec.msgpack.encode(header))
    assert refused.value.code == ErrorCode.INVALID_REQUEST


def test_a_topic_that_looks_like_a_number_stays_text() -> None:
    header = {"op": "fetch", "topic": "5", "partition": 0.0, "offset": 0.0, "id": "7"}
    assert DECODER.decode(msgspec.msgpack.encode(header)) == Fetch(id="7", topic="5", partition=0, offset=0)


def test_headers_of_records_stay_text_and_their_contents_bytes() -> None:
    header = {
        "op": "publish",
        "topic": "T",
        "records": [{"key": "k", "headers": {"key": "v"}, "delay_ms": 1.0}],
    }
    request = DECODER.decode(msgspec.msgpack.encode(header))
    assert isinstance(request, Publish)
    (record,) = request.records
    assert (record.key, record.headers, record.delay_ms) == (b"k", {"key": "v"}, 1)


def test_text_for_bytes_is_base64_in_json_and_nothing_else() -> None:
    found = DECODER.decode(b'{"op":"publish","topic":"T","id":1.0,"records":[{"value":"dg=="}]}')
    assert isinstance(found, Publish)
    assert found.records[0].value == b"v"
    with pytest.raises(ProtocolError):
        DECODER.decode(b'{"op":"publish","topic":"T","id":1.0,"records":[{"value":"not base64"}]}')


def test_the_id_of_a_refused_header_may_be_a_whole_float() -> None:
    assert id_of(msgspec.msgpack.encode({"op": "nope", "id": 7.0})) == 7
    assert id_of(b'{"op":"nope","id":7.0}') == 7
    assert id_of(b'{"op":"nope","id":7.5}') is None
    assert id_of(msgspec.msgpack.encode({b"op": b"nope", b"id": 7})) == 7
    assert id_of(b'{"op":"nope","id":true}') is None


def test_a_long_header_is_not_built_into_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    header = msgspec.msgpack.encode({"op": "list_groups", "id": 1.0})
    monkeypatch.setattr(coercion, "MAX_COERCED_BYTES", len(header))
    DECODER.decode(header)
    monkeypatch.setattr(coercion, "MAX_COERCED_BYTES", len(header) - 1)
    with pytest.raises(ProtocolError):
        DECODER.decode(header)


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
)
ANYTHING = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def headers(draw: st.DrawFn) -> Any:
    """Draw a header of the vectors, as some library would write it, with fields replaced by anything."""
    header = draw(st.sampled_from(WAYS))(HEADERS[draw(st.sampled_from(sorted(HEADERS)))])
    names = draw(st.lists(st.sampled_from(sorted(header, key=repr)), max_size=2))
    return {**header, **{name: draw(ANYTHING) for name in names}}


def read(header: bytes) -> None:
    """Check that it is a request that reads the same after it is rewritten, or is refused."""
    try:
        request = DECODER.decode(header)
    except ProtocolError as error:
        assert error.code in (ErrorCode.INVALID_REQUEST, ErrorCode.UNKNOWN_OP)  # noqa: PT017
        id_of(header)
        return
    assert DECODER.decode(encode_header(request)) == request


@examples(400)
@given(headers())
def test_any_header_is_read_or_refused(header: Any) -> None:
    read(msgspec.msgpack.encode(header))


@examples(200)
@given(headers(), st.sampled_from(["", " ", "\n\t"]))
def test_any_header_in_json_is_read_or_refused(header: Any, before: str) -> None:
    try:
        found = msgspec.json.encode(header)
    except (TypeError, ValueError):
        return
    read(found)


@examples(300)
@given(headers(), st.data())
def test_any_damaged_header_is_read_or_refused(header: Any, data: st.DataObject) -> None:
    found = bytearray(msgspec.msgpack.encode(header))
    for _ in range(data.draw(st.integers(1, 4))):
        found[data.draw(st.integers(0, len(found) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(found))


@examples(300)
@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(header: bytes) -> None:
    read(header)
