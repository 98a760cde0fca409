"""Conversion of values: nothing is kept by reference, nothing changes its meaning in transit."""

from dataclasses import dataclass
from typing import Any

import pytest

from planaria.transport.client.content import encode_key, encode_value
from planaria.transport.client.options import InvalidOption


@dataclass
class Holder:
    inner: Any


@pytest.mark.parametrize("value", [b"x", None, bytearray(b"x"), {"a": 1}])
def test_mutable_headers_are_copied(value: Any) -> None:
    headers = {"n": "1"}
    _, kept = encode_value(value, headers)
    headers["n"] = "2"
    assert kept is not None
    assert kept["n"] == "1"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: {"a": [n]}, lambda n: Holder({"b": (n,)})])
def test_what_json_has_no_number_for_is_refused(number: float, wrap: Any) -> None:
    with pytest.raises(InvalidOption, match="cannot be encoded as JSON"):
        encode_value(wrap(number), None)


@pytest.mark.parametrize("wrong", [{1: "a", "1": "b"}, {"a": [{2: 3}]}, [({1.5: 1},)], Holder({1: 2})])
def test_keys_that_are_not_text_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidOption, match="keys of a JSON object must be text"):
        encode_value(wrong, None)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {"a": {None: 1}},
        {("x",): 1},
        {"a": 1j},
        (number for number in range(3)),
        "\ud800",
        {"a": "\ud800"},
        LOOP,
        nested(100_000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_json_is_refused_as_an_argument(value: Any) -> None:
    with pytest.raises(InvalidOption, match=r"^value: "):
        encode_value(value, None)


@pytest.mark.parametrize("key", ["\ud800", 5, 1.5, True, ["a"], object()])
def test_what_is_no_key_is_refused_as_an_argument(key: Any) -> None:
    with pytest.raises(InvalidOption, match=r"^key: "):
        encode_key(key)


@pytest.mark.parametrize(
    "value", [{"null": None}, {"a": [None, {"b": 1.5}]}, Holder({"x": None}), "null", 1, [], {}]
)
def test_what_has_json_passes(value: Any) -> None:
    assert encode_value(value, None)[0] is not None
