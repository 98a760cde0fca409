"""Correlation ids: a header that a handler's messages take over from their source, so that one order can be traced. Pure.

A subscription names the header (`correlation_header`). A source without it begins a correlation: the id is its place,
`ORDERS/0@17`. Called by the subscriber's worker; read by `planaria trace`.
"""

from collections.abc import Mapping
from typing import Protocol

from .batch import Headers

CORRELATION_HEADER = "correlation-id"


class Source(Protocol):
    @property
    def topic(self) -> str: ...

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str] | None: ...


def carried_by(header: str, source: Source) -> Headers:
    """Return the header that the messages made from a record have."""
    found = (source.headers or {}).get(header)
    return {header: f"{source.topic}/{source.partition}@{source.offset}" if found is None else found}
