"""Messages as text, in and out."""

import json

import pytest

from planaria.supervisor.cli.failures import CommandFailed
from planaria.supervisor.cli.records import FORMATS, json_parser, line_parser
from planaria.transport.client.messages import Message

JSON = {"content-type": "application/json"}


def message(value: bytes | None, key: bytes | None = None, headers: dict[str, str] | None = None) -> Message:
    return Message("ORDERS", 2, 15, key, value, 1_700_000_000_123, headers)


def test_a_line_is_a_value() -> None:
    assert line_parser(None)(b"a:b") == (None, b"a:b")
    assert line_parser(None)(b"") == (None, b"")


def test_a_separator_ends_the_key() -> None:
    assert line_parser(":")(b"a:b:c") == (b"a", b"b:c")
    assert line_parser("=>")(b"a=>") == (b"a", b"")
    with pytest.raises(CommandFailed, match="no ':' between key and value"):
        line_parser(":")(b"abc")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'{"id": "a\\u00e9"}', "aé".encode()),
        (b'{"id": 5}', b"5"),
        (b'{"id": 1.5}', b"1.5"),
        (b'{"id": true}', b"true"),
    ],
)
def test_a_field_is_the_key(line: bytes, key: bytes) -> None:
    assert json_parser("id")(line) == (key, line)


def test_json_keeps_every_digit() -> None:
    line = b'{"amount": 1.10, "big": 123456789012345678901234567890}'
    assert json_parser(None)(line) == (None, line)


def test_blank_lines_hold_no_json() -> None:
    assert json_parser("id")(b"  ") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not JSON"),
        (b'{"a": 1}', "no field 'id'"),
        (b"[1]", "no field 'id'"),
        (b'{"id": null}', "no field 'id'"),
    ],
)
def test_refused_json(line: bytes, message: str) -> None:
    with pytest.raises(CommandFailed, match=message):
        json_parser("id")(line)


def test_json_out() -> None:
    assert json.loads(FORMATS["json"](message(b"hi", b"k", {"a": "b"}))) == {
        "topic": "ORDERS",
        "partition": 2,
        "offset": 15,
        "timestamp_ms": 1_700_000_000_123,
        "key": "k",
        "value": "hi",
        "headers": {"a": "b"},
    }


def test_json_out_of_json_is_json() -> None:
    assert json.loads(FORMATS["json"](message(b'{"a": [1]}', headers=JSON)))["value"] == {"a": [1]}
    assert json.loads(FORMATS["json"](message(b"{", headers=JSON)))["value"] == "{"
    assert b"\n" not in FORMATS["json"](message(b'{"a":\n1}', headers=JSON))


def test_json_out_of_bytes_is_base64() -> None:
    shown = json.loads(FORMATS["json"](message(b"\xff", b"\xfe")))
    assert (shown["value_base64"], shown["key_base64"]) == ("/w==", "/g==")
    assert "value" not in shown
    assert "key" not in shown


def test_a_tombstone() -> None:
    assert json.loads(FORMATS["json"](message(None)))["value"] is None
    assert FORMATS["value"](message(None)) == b""


def test_full_out() -> None:
    line = FORMATS["full"](message(b"hi", b"k\xff", {"a": "b"}))
    assert line == b"ORDERS/2@15 2023-11-14T22:13:20.123Z key=k\\xff a=b  hi"
