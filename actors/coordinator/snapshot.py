"""The snapshot of a group: a cache of its state, so that a restart need not read all of `__offsets`. Pure.

Owns the body; the frame around it is that of every journal's snapshot (`journal/snapshot.py`).

    magic "PLGS", version 1
    body: MessagePack map {group, mark: {base_offset, crc32c, next_offset}, records: [[key, value], ...], taken_at_ms},
    records as in `__offsets`
"""

import msgspec
from msgspec import Struct

from ..journal.replay import InvalidRecord
from ..journal.snapshot import LogMark, Snapshot, SnapshotFormat
from .records import decode, encode
from .state import GroupState

FORMAT = SnapshotFormat(b"PLGS", 1)


class _Body(Struct):
    group: str
    mark: LogMark
    records: list[tuple[bytes, bytes]]
    taken_at_ms: int = 0
    """A snapshot without a time is too old."""


_encode_body = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(_Body).decode


def encode_snapshot(state: GroupState, mark: LogMark, now: int) -> bytes:
    records = []
    for change in state.changes():
        key, value, _, _ = encode(change)
        assert key is not None
        assert value is not None
        records.append((key, value))
    body = _encode_body(_Body(state.group, mark, records, now))
    return FORMAT.seal(body)


def decode_snapshot(data: bytes, group: str) -> Snapshot[GroupState] | None:
    """Return the snapshot; None unless `data` is a whole and undamaged snapshot of this group."""
    content = FORMAT.open(data)
    if content is None:
        return None
    try:
        body = _decode_body(content)
        changes = [decode(key, value, group) for key, value in body.records]
    except (msgspec.MsgspecError, InvalidRecord):
        return None  # undamaged, but written by a version with other records
    state = GroupState(group)
    for change in changes:
        if change is None:
            return None
        state.apply(change)
    return Snapshot(state, body.mark, body.taken_at_ms) if body.group == group else None
