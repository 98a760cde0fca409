"""The file of a store: one JSON object. Pure.

`crc32c` covers the bytes of `state` exactly as written:

    {"format":3,"crc32c":<number>,"state":{"revision":<number>,"entries":{"topics/ORDERS":{...},...}}}

A value is written as it is, so it must be a JSON document. The revisions of the single keys are not kept: who reads
the file takes all of them as last changed at its revision. Nothing refers to a revision of an earlier process.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from ...transport.batch import checksum
from ...transport.protocol.errors import OperatorNeeded

FILE_FORMAT = 3


class CatalogCorrupt(OperatorNeeded):
    """The catalog's bytes are damaged. No guesses are made."""


class _State(Struct, kw_only=True, forbid_unknown_fields=True):
    revision: int
    entries: dict[str, msgspec.Raw]


class _File(Struct, kw_only=True, forbid_unknown_fields=True):
    format: int
    crc32c: int
    state: msgspec.Raw


def encode_file(revision: int, values: Mapping[str, bytes]) -> bytes:
    entries = {key: msgspec.Raw(value) for key, value in values.items()}
    body = msgspec.json.encode(_State(revision=revision, entries=entries))
    return (
        msgspec.json.encode(_File(format=FILE_FORMAT, crc32c=checksum(body), state=msgspec.Raw(body))) + b"\n"
    )


def decode_file(data: bytes, name: str) -> tuple[int, dict[str, bytes]]:
    """Return the revision and the values in `data`. Raises CatalogCorrupt, which describes the damage of the file
    called `name`."""
    try:
        file = msgspec.json.decode(data, type=_File)
        if file.format != FILE_FORMAT:
            raise CatalogCorrupt(f"{name}: format {file.format}, this version reads {FILE_FORMAT}")
        if checksum(bytes(file.state)) != file.crc32c:
            raise CatalogCorrupt(f"{name}: the checksum does not match the contents")
        state = msgspec.json.decode(file.state, type=_State)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CatalogCorrupt(f"{name}: {error}") from error
    return state.revision, {key: bytes(value) for key, value in state.entries.items()}
