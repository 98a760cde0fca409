"""Convert values of a header to their declared types where the conversion is unambiguous. Pure.

Lua has one type of number and older versions of it only floats; PHP, Lua and libraries that follow the first MessagePack
specification do not distinguish text from bytes, nor an empty map from an empty array:

    found                                        where                      converted to
    a float without a fraction, up to 2^53       an int is declared         the int
    bytes that are UTF-8                         text is declared           the text
    text, in MessagePack                         bytes are declared         its UTF-8
    an empty array                               a map is declared          the empty map
    an empty map                                 an array is declared       the empty array

Called only for headers that could not be decoded as they are.
"""

from typing import Any

import msgspec

from .addresses import from_text
from .protocol.message import Request

MAX_COERCED_BYTES = 64 * 1024
"""Limit of a header's size. A header read without knowing its types is decoded into objects, at a hundred times
the time and memory: some 20 ms for this size, if filled with empty arrays."""
MAX_EXACT_FLOAT = 2**53


class Coercion:
    """Reads headers of the given requests again, leniently."""

    def __init__(self, kinds: dict[str, type[Request]]) -> None:
        self._kinds = kinds
        self._types: dict[str, Any] = {}

    def read(self, header: bytes, is_json: bool) -> Request | None:
        """Return the request, or None when it has another fault. Raises as msgspec does."""
        fields = fields_of(header, is_json)
        op = _as_text(fields.get("op"))
        kind = self._kinds.get(op) if isinstance(op, str) else None
        if kind is None:
            return None
        assert isinstance(op, str)
        fields["op"] = op
        if op not in self._types:
            self._types[op] = _type_of(kind)
        fitted = _fitted(fields, self._types[op], is_json)
        return msgspec.convert(fitted, kind, builtin_types=None if is_json else (bytes,), dec_hook=from_text)


def fields_of(header: bytes, is_json: bool) -> dict[Any, Any]:
    """Return the fields of a header as they stand; none if it is not a map, or is too large to decode. Raises as
    msgspec does."""
    if len(header) > MAX_COERCED_BYTES:
        return {}
    found = msgspec.json.decode(header) if is_json else msgspec.msgpack.decode(header)
    return {_as_text(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _type_of(kind: type[Request]) -> Any:
    from msgspec import inspect  # noqa: PLC0415 - few processes ever need it

    return inspect.type_info(kind)


def _as_text(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _fitted(value: Any, declared: Any, is_json: bool) -> Any:
    """Return the value, converted as its declared type requires, in whole or in parts; unchanged where that is
    ambiguous."""
    members = {type(each).__name__: each for each in getattr(declared, "types", (declared,))}
    literals = members["LiteralType"].values if "LiteralType" in members else ()
    array = members.get("ListType") or members.get("VarTupleType")
    match value:
        case float() if "FloatType" not in members:
            takes_int = "IntType" in members or any(isinstance(each, int) for each in literals)
            is_exact = value.is_integer() and abs(value) <= MAX_EXACT_FLOAT
            return int(value) if takes_int and is_exact else value
        case bytes() if "BytesType" not in members:
            return _as_text(value)
        case str() if "BytesType" in members and not is_json:
            return value.encode()
        case []:
            return {} if members.keys() & {"DictType", "StructType"} else value
        case dict() if not value and array is not None:
            return []
        case list() if array is not None:
            return [_fitted(item, array.item_type, is_json) for item in value]
        case dict() if "StructType" in members:
            types = {field.encode_name: field.type for field in members["StructType"].fields}
            named = {_as_text(name): item for name, item in value.items()}
            return {
                name: _fitted(item, types[name], is_json) if name in types else item
                for name, item in named.items()
            }
        case dict() if "DictType" in members:
            value_type = members["DictType"].value_type
            return {_as_text(name): _fitted(item, value_type, is_json) for name, item in value.items()}
    return value
