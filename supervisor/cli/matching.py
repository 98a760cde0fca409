"""Which messages `planaria find` shows: those with a key, with headers, with values in their JSON. Pure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from ...transport.client.messages import Message


class Criteria(Struct, frozen=True):
    """All must hold."""

    key: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    fields: tuple[tuple[tuple[str, ...], str], ...] = ()
    """Paths into the JSON of a value, and the text there; an empty path is the whole value."""

    @property
    def is_empty(self) -> bool:
        return self == Criteria()

    def match(self, message: "Message") -> bool:
        if self.key is not None and message.key != self.key:
            return False
        if self.headers and not all(message.headers.get(name) == text for name, text in self.headers):
            return False
        return not self.fields or _has_fields(message.value, self.fields)


def criteria_of(key: str | None, headers: Sequence[str], fields: Sequence[str]) -> Criteria:
    """Return the criteria as they are typed: `name=text`, `path.to.field=value`. Raises ValueError."""
    return Criteria(
        None if key is None else key.encode(),
        tuple(_pair(text) for text in headers),
        tuple((tuple(filter(None, path.split("."))), text) for path, text in map(_pair, fields)),
    )


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise ValueError(f"{text!r} has no = between its name and its value")
    return name, value


def _has_fields(value: bytes | None, fields: Sequence[tuple[tuple[str, ...], str]]) -> bool:
    try:
        decoded = msgspec.json.decode(value or b"")
    except msgspec.DecodeError:
        return False
    return all(_is_at(decoded, path, text) for path, text in fields)


def _is_at(decoded: Any, path: tuple[str, ...], text: str) -> bool:
    for name in path:
        if isinstance(decoded, dict) and name in decoded:
            decoded = decoded[name]
        elif isinstance(decoded, list) and name.isdigit() and int(name) < len(decoded):
            decoded = decoded[int(name)]
        else:
            return False
    return decoded == text if isinstance(decoded, str) else _json(decoded) == _normal(text)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _normal(text: str) -> str:
    """Return the text of a number, a boolean, null, an array or an object as `_json` writes it."""
    try:
        return _json(msgspec.json.decode(text))
    except msgspec.DecodeError:
        return text
