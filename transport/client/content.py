"""Encode values, keys and headers as a batch holds them, and decode values. Pure; used by producers and consumers.

Nothing that a program may change later is kept: JSON is encoded at once, headers are copied. The names that each
`publish` uses are Final: a compiled module reads them directly, and looks up any other in the dict of its module.
"""

from typing import Any, Final, TypeAlias

import msgspec
import orjson
from msgspec import ValidationError

from ..batch import Headers
from ..deduplication import DEDUP_HEADER, dedup_id_fault, identified_headers
from ..protocol.data import MAX_TIMESTAMP_MS
from .options import InvalidOption, check_text
from .plain_value import PlainValue, check_json

CONTENT_TYPE = "content-type"
JSON = "application/json"
RECORD_OVERHEAD_BYTES: Final = 16
"""Bytes of a record in a batch beside key, value and headers, rounded up."""
HEADER_OVERHEAD_BYTES = 6
"""Bytes of a header beside its two texts, rounded up."""
SCANNED_BYTES: Final = 256
"""JSON up to this size is searched for "null" faster than its value is checked."""
NULL: Final = b"null"
"""`partition` takes two thirds of the time of `find`, which parses its arguments, and a third of that of `in`."""
WALKS = 1000
"""How many values are walked through after one that is not plain: programs publish values of one kind in a row."""

# Tuples: a union of types is built again wherever it is written, which takes longer than the check.
_BUFFERS = (bytes, bytearray, memoryview)
JSON_ONLY: Final[Headers] = {CONTENT_TYPE: JSON}
"""Shared by all records that have no other header."""

_convert = msgspec.convert
encode_plain: Final = orjson.dumps
"""Twice as fast as msgspec. With PLAIN_ONLY it raises for keys that are not text, and for values that it would write in
another way than msgspec."""
PLAIN_ONLY: Final = (
    orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode

Given: TypeAlias = Any
"""An argument of a program, which may be of any type until it is checked. Compiled code would refuse it by its declared
type, with a TypeError."""
Content: TypeAlias = tuple[bytes | None, Headers | None, int]
"""Value and headers as a record holds them, and an upper bound of the record's size without its key."""


class ContentEncoder:
    """Encodes the contents of one message after the other, and remembers the headers, which programs repeat.

    Used by any number of threads: an update replaces one reference.
    """

    def __init__(self) -> None:
        self._headers: tuple[Headers, int] = ({}, 0)
        """A copy of the headers seen last, and their size."""
        self._json_headers: tuple[Headers, Headers, int] = ({}, JSON_ONLY, headers_size_bytes(JSON_ONLY))
        """A copy of the headers seen last with JSON; the same with the content type; the size of these."""
        self.walks_left = 0
        """How many more values are encoded by the walk, without an attempt to do without it."""

    def encode(self, value: Any, headers: Given) -> Content:
        """Encode a value and copy the headers. Raises InvalidOption.

        Headers that are equal to the last ones share their copy: a record's headers are only read.
        """
        kind = type(value)
        if kind is dict or not (kind is bytes or value is None or isinstance(value, _BUFFERS)):
            try:
                data = None if self.walks_left else encode_plain(value, None, PLAIN_ONLY)
            except TypeError:
                data = None
            if data is None or len(data) > SCANNED_BYTES or data.partition(NULL)[1]:
                data = self.examined(value, data)
            if headers is None:
                return data, JSON_ONLY, JSON_RECORD_BYTES + len(data)
            return self._with_content_type(data, headers)
        if kind is not bytes and value is not None:
            value = bytes(value)
        size_bytes = RECORD_OVERHEAD_BYTES if value is None else RECORD_OVERHEAD_BYTES + len(value)
        if headers is None:
            return value, None, size_bytes
        seen, headers_bytes = self._headers
        if type(headers) is not dict or headers != seen:
            seen = copy_headers(headers)
            headers_bytes = headers_size_bytes(seen)
            self._headers = seen, headers_bytes
        return value, seen or None, size_bytes + headers_bytes

    def examined(self, value: Any, data: bytes | None) -> bytes:
        """Return the JSON of a value. `data` is that of `encode_plain`, in which a float that is not finite is null.

        `data` is None if that has failed, or was not tried. Raises InvalidOption.
        """
        if data is not None:
            try:
                _convert((value,), PlainValue)
                return data
            except (TypeError, ValidationError):
                pass
        return self._encode_walked(value)

    def _encode_walked(self, value: Any) -> bytes:
        try:
            check_json(value)
            data = _encode_json(value)
        except InvalidOption:
            raise
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidOption(f"value: cannot be encoded as JSON: {error}") from error
        self.walks_left = self.walks_left - 1 if self.walks_left else WALKS
        return data

    def _with_content_type(self, data: bytes, headers: Given) -> Content:
        seen, held, headers_bytes = self._json_headers
        if type(headers) is not dict or headers != seen:
            seen = copy_headers(headers)
            held = {**seen, CONTENT_TYPE: JSON}
            headers_bytes = headers_size_bytes(held)
            self._json_headers = seen, held, headers_bytes
        return data, held, RECORD_OVERHEAD_BYTES + headers_bytes + len(data)


def encode_value(value: Any, headers: Given) -> tuple[bytes | None, Headers | None]:
    """Return bytes and None unchanged, and any other value as JSON, declared in the headers. The headers are copied.

    Raises InvalidOption for values without JSON: keys that are not text, NaN, infinity, a surrogate, a cycle, other
    objects.
    """
    return ContentEncoder().encode(value, headers)[:2]


def encode_key(key: Given) -> bytes | None:
    """Encode text as UTF-8. Raises InvalidOption for anything but text and bytes."""
    if key is None or type(key) is bytes:
        return key
    if isinstance(key, str):
        try:
            return key.encode()
        except UnicodeEncodeError as error:
            raise InvalidOption(f"key: cannot be encoded as UTF-8: {error}") from error
    if isinstance(key, _BUFFERS):
        return bytes(key)
    raise InvalidOption(f"key: must be bytes or text, not {key!r}")


def copy_headers(headers: Given) -> Headers:
    """Return a copy whose texts are of no subclass. Raises InvalidOption for anything but a dict of text to text.

    A batch is encoded in the network thread, after `publish`, and could not hold anything else.
    """
    if not isinstance(headers, dict):
        raise InvalidOption(f"headers: must be a dict of text to text, not {type(headers).__name__}")
    copy = dict(headers)
    for name, text in headers.items():
        if type(name) is str and type(text) is str and name.isascii() and text.isascii():
            continue
        check_text("headers: a name", name)
        check_text(f"headers: {name!r}", text)
        if type(name) is not str or type(text) is not str:
            copy.pop(name)
            copy[str.__str__(name)] = str.__str__(text)
    return copy


def headers_size_bytes(headers: Headers) -> int:
    """Return an upper bound of their size in a batch."""
    size_bytes = 0
    for name, text in headers.items():
        size_bytes += len(name) + len(text) + HEADER_OVERHEAD_BYTES
        if not (name.isascii() and text.isascii()):
            size_bytes += len(name.encode()) - len(name) + len(text.encode()) - len(text)
    return size_bytes


JSON_RECORD_BYTES: Final = RECORD_OVERHEAD_BYTES + headers_size_bytes(JSON_ONLY)


def check_details(partition: Given, timestamp_ms: Given) -> None:
    """Raise InvalidOption for values that a batch cannot hold. The batch is made in the network thread,
    after `publish`."""
    if partition is not None and not is_number(partition):
        raise InvalidOption(f"partition: must be a number, not {partition!r}")
    if timestamp_ms is not None and not (is_number(timestamp_ms) and 0 <= timestamp_ms <= MAX_TIMESTAMP_MS):
        raise InvalidOption(
            f"timestamp_ms: must be a datetime or milliseconds since 1970, not {timestamp_ms!r}"
        )


def is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def identify(headers: Headers | None, dedup_id: str) -> tuple[Headers, int]:
    """Return the headers of a record with a dedup id, and how much larger they are at most. Raises InvalidOption."""
    check_text("dedup_id:", dedup_id)
    fault = dedup_id_fault(dedup_id)
    if fault is not None:
        raise InvalidOption(fault)
    return identified_headers(headers, dedup_id), headers_size_bytes({DEDUP_HEADER: dedup_id})


def decode_value(value: bytes | None, headers: Headers | None) -> Any:
    """Return the published value: JSON is decoded if the headers declare it, other values are bytes.

    Raises msgspec.DecodeError when the headers declare JSON and the value is not JSON.
    """
    if value is None or not headers or headers.get(CONTENT_TYPE) != JSON:
        return value
    return _decode_json(value)
