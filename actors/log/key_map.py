"""The newest offset of each key in a stretch of the log, for compaction. Pure, and bounded.

A pass of compaction fills one map from the part of the log that no pass has seen yet, until it is full, and then
drops every record whose key has a newer one in the map. Called by `compaction.py`; `survivors.py` asks it.

Short keys are stored as such, longer ones as their SHA-256, which is never that short: two keys are never confused.
Records that the broker's own actors wrote (producer ids with bit 62, which are never handed out) are replaced only by
records of the same family of ids: a replay ignores a record that a client wrote under a coordinator's key, so
compaction does as well.
"""

from collections.abc import Sequence
from hashlib import sha256

from ...transport.batch import BatchHeader, Record

KEYS_LIMIT = 100_000
"""Keys in one map: some 20 MB while a pass runs. More keys take more passes."""
OWN_ID = 1 << 62
FAMILY_BITS = 12
"""The lowest bits of a producer id of the broker's own actors count the ids that a family has used up."""

_DIGEST_BYTES = 32


class KeyMap:
    def __init__(self, limit: int = KEYS_LIMIT) -> None:
        self._limit = limit
        self._newest: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._newest)

    @property
    def is_full(self) -> bool:
        return len(self._newest) >= self._limit

    def add(self, header: BatchHeader, records: Sequence[Record]) -> None:
        """Add a batch; batches come in the order of their offsets. The last one may exceed the limit."""
        family = family_of(header)
        newest = self._newest
        for offset, record in enumerate(records, header.base_offset):
            key = record[0]
            if key is not None:
                newest[name_of(key, family)] = offset

    def is_replaced(self, key: bytes, offset: int, family: bytes) -> bool:
        """Return True if a newer record of the key is known."""
        return self._newest.get(name_of(key, family), -1) > offset


def family_of(header: BatchHeader) -> bytes:
    """Return the family that a batch's keys belong to: empty for all clients together."""
    if header.producer_id < OWN_ID:
        return b""
    return (header.producer_id >> FAMILY_BITS).to_bytes(8, "big")


def name_of(key: bytes, family: bytes = b"") -> bytes:
    """Return a key's name in an index: of bounded length, and no other key's."""
    if family:
        return sha256(family + key).digest() + b"f"
    return key if len(key) < _DIGEST_BYTES else sha256(key).digest()
