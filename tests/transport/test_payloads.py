"""Typed payloads: which annotation decodes to which value, and what does not fit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

import msgspec
import pytest

from planaria import Message, Reject
from planaria.transport.client.content import encode_value
from planaria.transport.payloads import UnusableAnnotation, decoder_of


class Order(msgspec.Struct):
    amount: int


@dataclass
class Refund:
    amount: int


class Line(TypedDict):
    amount: int


class AnyMessage(Protocol):
    value: bytes | None


def message_of(value: Any) -> Message:
    data, headers = encode_value(value, None)
    return Message("T", 0, 0, None, data, 0, headers)


def handler_of(annotation: Any) -> Any:
    def handle(payload: Any) -> None: ...

    handle.__annotations__["payload"] = annotation
    return handle


@pytest.mark.parametrize(
    ("annotation", "value", "payload"),
    [
        (Order, {"amount": 3}, Order(3)),
        (Order | None, {"amount": 3}, Order(3)),
        (Order | None, None, None),
        (Refund, {"amount": 3}, Refund(3)),
        (Line, {"amount": 3}, {"amount": 3}),
        (dict, {"a": [1]}, {"a": [1]}),
        (list[Order], [{"amount": 3}], [Order(3)]),
        (int, 7, 7),
        (str, "text", "text"),
        (str, b"text", "text"),
        (str | None, None, None),
        (bytes, b"\xff", b"\xff"),
        (dict, b'{"a": 1}', {"a": 1}),
        ("Order", {"amount": 3}, Order(3)),
    ],
)
def test_a_value_is_decoded_to_the_annotation(annotation: Any, value: Any, payload: Any) -> None:
    decode = decoder_of(handler_of(annotation))
    assert decode is not None
    assert decode(message_of(value)) == payload


@pytest.mark.parametrize(
    ("annotation", "value", "reason"),
    [
        (Order, {"amount": "3"}, r"does not fit Order: Expected `int`, got `str` - at `\$.amount`"),
        (Order, {}, "missing required field `amount`"),
        (Order, b"not json", "does not fit Order: JSON is malformed"),
        (Order, b"\xff", "does not fit Order"),
        (Order, None, "the value is null, not Order"),
        (bytes, None, "the value is null, not bytes"),
        (str, b"\xff", "does not fit str: 'utf-8' codec"),
        (str, {"a": 1}, "does not fit str: expected text, got dict"),
        (dict, b"[" * 100_000, "does not fit dict"),
    ],
)
def test_a_value_that_does_not_fit_is_rejected_with_the_reason(
    annotation: Any, value: Any, reason: str
) -> None:
    decode = decoder_of(handler_of(annotation))
    assert decode is not None
    with pytest.raises(Reject, match=reason):
        decode(message_of(value))


@pytest.mark.parametrize("annotation", [Any, object, Message, "Message", AnyMessage])
def test_a_handler_of_messages_gets_the_message(annotation: Any) -> None:
    assert decoder_of(handler_of(annotation)) is None


@pytest.mark.parametrize("handler", [print, lambda _: None, lambda *_: None])
def test_a_handler_without_an_annotation_gets_the_message(handler: Any) -> None:
    assert decoder_of(handler) is None


@pytest.mark.parametrize("annotation", [Path, "Nowhere", type(Order)])
def test_an_annotation_that_nothing_decodes_to_is_refused(annotation: Any) -> None:
    with pytest.raises(UnusableAnnotation):
        decoder_of(handler_of(annotation))


def test_pydantic_models_validate_themselves() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", amount=(int, ...))
    decode = decoder_of(handler_of(model))
    assert decode is not None
    assert decode(message_of({"amount": "3"})) == model(amount=3)
    with pytest.raises(Reject, match=r"does not fit Model: Input should be a valid integer, .* at amount"):
        decode(message_of({"amount": "x"}))
    several = decoder_of(handler_of(list[model]))
    assert several is not None
    assert several(message_of([{"amount": 3}])) == [model(amount=3)]
