"""Size of a delayed record at its delivery, with the headers that the scheduler adds. Pure.

With it the gateway refuses records that the topic would refuse at the time of delivery, and a scheduler fills
batches.
"""

from collections.abc import Mapping
from typing import Protocol

RECORD_OVERHEAD_BYTES = 128
"""Upper bound of MessagePack's bytes around a record, and of the names and times of the three headers."""
STRING_OVERHEAD_BYTES = 10


class _Content(Protocol):
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Mapping[str, str] | None: ...


def delivered_bytes(scheduled_id: str, record: _Content) -> int:
    """Return an upper bound of the bytes that a delayed record adds to the batch in which it is delivered."""
    size = RECORD_OVERHEAD_BYTES + len(scheduled_id.encode())
    size += len(record.key or b"") + len(record.value or b"")
    for name, text in (record.headers or {}).items():
        size += STRING_OVERHEAD_BYTES + len(name.encode()) + len(text.encode())
    return size
