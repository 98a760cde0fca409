"""Typed payloads: the annotation of a handler's first parameter is the type that the value of its message is decoded to.
Pure.

    def charge(order: Order, context): ...

    annotation                                    the handler receives
    none, Any, object, Message                    the message
    bytes                                         the value
    str                                           the value as text
    a pydantic model, or a type with one in it    JSON, validated by pydantic
    any other                                     JSON, validated by msgspec: a Struct, dataclass, TypedDict, dict, list

A null value is None where the annotation has None. A value that does not fit raises Reject, so that its record is
dead-lettered without retries. pydantic is never imported here: a handler whose annotation is a model has imported it.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from types import NoneType, SimpleNamespace
from typing import Any, TypeAlias, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import inspect as msgspec_types

from .client.messages import Message, StoredMessage
from .verdicts import Reject

Decode: TypeAlias = Callable[[Any], Any]
"""Returns the payload of a message, or raises Reject."""

_KNOWN_NAMES = {"Message": Message}
"""Names that an annotation in quotes may use although its module has imported them for type checkers only."""
MAX_REASON_CHARS = 1_000


class UnusableAnnotation(TypeError):
    """The annotation is not a type that a value can be decoded to; the message is one line."""


def unwrapped(handler: Callable[..., object]) -> Callable[..., object]:
    """Return the function that a call of the handler runs: behind `functools.partial` and `__call__`."""
    called = handler
    while isinstance(called, functools.partial):
        called = called.func
    if not (inspect.isfunction(called) or inspect.ismethod(called)):
        called = getattr(type(called), "__call__", called)  # noqa: B004 - reads its code, does not test for its presence
    return called


def decoder_of(handler: Callable[..., object]) -> Decode | None:
    """Return the decoder of the handler's payload; None if it takes the message. Raises UnusableAnnotation."""
    annotation = _annotation_of(handler)
    if annotation in (inspect.Parameter.empty, Any, object) or _is_message(annotation):
        return None
    has_none = annotation is NoneType or NoneType in get_args(annotation)
    parts = tuple(part for part in get_args(annotation) if part is not NoneType)
    if _is_union(annotation) and len(parts) == 1:
        annotation = parts[0]
    if annotation in (bytes, str):
        return _or_none(_bytes if annotation is bytes else _text, annotation, has_none)
    return _or_none(_structured(annotation), annotation, has_none)


def _annotation_of(handler: Callable[..., object]) -> Any:
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except ValueError:  # some callables written in C have no signature
        return inspect.Parameter.empty
    if not parameters or parameters[0].kind in (
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.KEYWORD_ONLY,
    ):
        return inspect.Parameter.empty
    annotation = parameters[0].annotation
    if not isinstance(annotation, str):
        return annotation
    names: Mapping[str, Any] = getattr(unwrapped(handler), "__globals__", {})
    try:
        holder = SimpleNamespace(__annotations__={"payload": annotation})
        return get_type_hints(holder, {**_KNOWN_NAMES, **names}, include_extras=True)["payload"]
    except Exception as error:
        # The annotation is an expression of the program: it may raise anything.
        raise UnusableAnnotation(
            f"the annotation {annotation!r} of the first parameter cannot be evaluated: {error}"
        ) from error


def _is_message(annotation: Any) -> bool:
    return isinstance(annotation, type) and (
        issubclass(annotation, StoredMessage) or getattr(annotation, "_is_protocol", False)
    )


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) is Union or type(annotation).__name__ == "UnionType"


def _or_none(decode: Decode, annotation: Any, has_none: bool) -> Decode:
    name = _name_of(annotation)

    def of_message(message: Any) -> Any:
        if message.value is None:
            if has_none:
                return None
            raise Reject(f"the value is null, not {name}")
        try:
            return decode(message)
        except (
            ValueError,
            RecursionError,
        ) as error:  # msgspec's, pydantic's and UnicodeDecodeError are ValueErrors
            raise Reject(f"the value does not fit {name}: {_reason(error)}") from None

    return of_message


def _bytes(message: Any) -> bytes:
    return message.value  # type: ignore[no-any-return]


def _text(message: Any) -> str:
    data = message.data
    if isinstance(data, bytes):
        return data.decode()
    if not isinstance(data, str):
        raise ValueError(f"expected text, got {type(data).__name__}")
    return data


def _structured(annotation: Any) -> Decode:
    """Return the decoder of JSON to a type. Raises UnusableAnnotation."""
    if _has_pydantic_model(annotation):
        validate = sys.modules["pydantic"].TypeAdapter(annotation).validate_json
        return lambda message: validate(message.value)
    try:
        kind = msgspec_types.type_info(annotation)
        decode = msgspec.json.Decoder(annotation).decode
    except (TypeError, NameError, RecursionError) as error:
        raise UnusableAnnotation(
            f"the annotation of the first parameter is no type that JSON is decoded to: {error}"
        ) from error
    if isinstance(kind, msgspec_types.CustomType):
        raise UnusableAnnotation(
            f"the annotation of the first parameter is {_name_of(annotation)}, to which no value is decoded; use a"
            " msgspec Struct, a dataclass, a pydantic model, dict, str, bytes, or Message"
        )
    return lambda message: decode(message.value)


def _has_pydantic_model(annotation: Any) -> bool:
    pydantic = sys.modules.get("pydantic")
    if pydantic is None:
        return False
    if any(_has_pydantic_model(part) for part in get_args(annotation)):
        return True
    if not isinstance(annotation, type) or get_origin(annotation) is not None:
        return False
    return issubclass(annotation, pydantic.BaseModel) or hasattr(annotation, "__pydantic_fields__")


def _reason(error: Exception) -> str:
    """Return the reason in one line; pydantic's own text has several."""
    faults = getattr(error, "errors", None)
    if callable(faults):
        text = "; ".join(
            f"{each['msg']} at {'.'.join(map(str, each['loc'])) or 'the top'}" for each in faults()
        )
    else:
        text = str(error)
    return text[:MAX_REASON_CHARS]


def _name_of(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)
