"""The checked-in vectors are those that the code writes and reads; `--rewrite-vectors` rewrites them.

Other languages test against these files, so a difference is a change of the wire: it belongs into docs/protocol.md too.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from batch_vectors import FIRST_MS, batch_vectors, compressed_batch_vectors, key_vectors
from header_vectors import REPLIES, REQUESTS, header_vectors
from planaria.actors.gateway.machine import REQUESTS as PUBLIC
from planaria.transport import batch, compression
from planaria.transport.codec import RequestDecoder, decode_reply, encode_header
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.message import Reply

HERE = Path(__file__).parent
MAKERS = {
    "headers.json": header_vectors,
    "batches.json": batch_vectors,
    "compressed_batches.json": compressed_batch_vectors,
    "keys.json": key_vectors,
}


def stored(name: str) -> Any:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def headers(kind: str) -> list[Any]:
    """Return the headers as the code writes them; the first test compares them with the stored ones."""
    return [pytest.param(each, id=each["name"]) for each in header_vectors() if each["kind"] == kind]


@pytest.mark.parametrize("name", MAKERS)
def test_files_are_what_the_code_makes(name: str, request: pytest.FixtureRequest) -> None:
    made = MAKERS[name]()
    if request.config.getoption("--rewrite-vectors"):
        text = json.dumps(made, indent=1, ensure_ascii=False)
        (HERE / name).write_text(text + "\n", encoding="utf-8")
    assert stored(name) == json.loads(json.dumps(made))


@pytest.mark.parametrize("vector", headers("request"))
def test_requests_are_the_same_in_both_encodings(vector: dict[str, str]) -> None:
    decoder = RequestDecoder(PUBLIC)
    from_json = decoder.decode(vector["json"].encode())
    assert decoder.decode(bytes.fromhex(vector["msgpack"])) == from_json
    assert from_json.__struct_config__.tag == vector["op"]
    # Headers that this code writes in full are read back unchanged.
    for as_json in (True, False):
        assert decoder.decode(encode_header(from_json, as_json)) == from_json


@pytest.mark.parametrize("vector", headers("reply"))
def test_replies_are_read_back(vector: dict[str, str]) -> None:
    expected = REPLIES[vector["name"]]
    expected.id = REQUESTS[vector["name"]]["id"]
    assert decode_reply(vector["json"].encode(), type(expected)) == expected
    assert decode_reply(bytes.fromhex(vector["msgpack"]), type(expected)) == expected


@pytest.mark.parametrize("vector", headers("error"))
def test_errors_are_read_back(vector: dict[str, str]) -> None:
    error = decode_reply(vector["json"].encode(), Reply)
    assert isinstance(error, ErrorBody)
    assert error == decode_reply(bytes.fromhex(vector["msgpack"]), Reply)
    assert error.code == vector["name"]


def test_every_public_op_and_error_is_there() -> None:
    vectors = stored("headers.json")
    ops = {str(kind.__struct_config__.tag) for kind in PUBLIC}
    assert {each["op"] for each in vectors if each["kind"] == "request"} == ops
    assert {each["op"] for each in vectors if each["kind"] == "reply"} == ops - {"cancel"}, "it has no reply"
    assert {each["name"] for each in vectors if each["kind"] == "error"} == {str(code) for code in ErrorCode}


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(each, id=each["name"])
        for each in (*batch_vectors()["batches"], *compressed_batch_vectors())
    ],
)
def test_batches_are_read(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["batch"])
    header = batch.verify(frame)
    assert batch.is_head_intact(frame)
    assert header._asdict() == vector["header"]
    codec = header.attributes & compression.CODEC_MASK
    if codec:
        pytest.importorskip({compression.CODEC_ZSTD: "zstandard", compression.CODEC_LZ4: "lz4"}[codec])
    records = batch.decode_records(frame, header)
    assert [
        {
            "key": None if key is None else key.hex(),
            "value": None if value is None else value.hex(),
            "timestamp_ms": FIRST_MS + delta_ms,
            "headers": each_headers,
        }
        for key, value, delta_ms, each_headers in records
    ] == vector["records"]


@pytest.mark.parametrize(
    "vector", [pytest.param(each, id=each["name"]) for each in batch_vectors()["damaged"]]
)
def test_damaged_batches_are_refused(vector: dict[str, str]) -> None:
    frame = bytes.fromhex(vector["batch"])
    try:
        batch.verify(frame)
    except batch.InvalidBatch:
        return
    assert not batch.is_head_intact(frame)


def test_a_client_without_codecs_finds_what_it_needs_in_a_file_without_them() -> None:
    codecs = [
        each["header"]["attributes"] & compression.CODEC_MASK for each in stored("batches.json")["batches"]
    ]
    assert set(codecs) == {0}
    assert len(codecs) > 5
    compressed = [
        each["header"]["attributes"] & compression.CODEC_MASK for each in stored("compressed_batches.json")
    ]
    assert set(compressed) == {compression.CODEC_ZSTD, compression.CODEC_LZ4}


def test_nothing_is_stored_that_is_not_compared() -> None:
    assert {path.name for path in HERE.glob("*.json")} == set(MAKERS)


def test_a_renamed_field_would_be_noticed() -> None:
    made = msgspec.json.decode(msgspec.json.encode(header_vectors()))
    made[0]["json"] = made[0]["json"].replace("version", "versions")
    assert made != stored("headers.json")
