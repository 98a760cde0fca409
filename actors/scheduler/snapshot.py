"""The snapshot of a scheduler: a cache of its state, so that a restart need not read all records. Pure.

Owns the file's layout. A snapshot is verified or discarded, never repaired; the replay also discards it when the log
does not have the batch it was taken after. It contains no message contents. Big-endian:

     0 magic "PLDS" | 4 version u16 = 2 | 6 reserved u16 | 8 length u32 (of the body) | 12 crc32c u32 (of the body)
    16 body: MessagePack map {mark: {base_offset, crc32c}, taken_at_ms, start: {epoch, starter}, producer_id,
    targets: [[topic, partition, Target], ...], digests: 16 bytes a message, entries: 16 bytes a message,
    ended: [[digest, ended_ms, ending], ...]}
"""

import struct

import msgspec
from msgspec import Struct

from ...transport.addresses import TopicPartition
from ...transport.batch import checksum
from ..journal.identity import Start
from ..journal.mark import LogMark
from .ledger import SchedulerLedger
from .pending import PendingMessages
from .records import Ending, Target

MAGIC = b"PLDS"
VERSION = 2
ENTRY_BYTES = 16

_HEAD = struct.Struct(">4sHHII")


class Snapshot(Struct, frozen=True):
    ledger: SchedulerLedger
    mark: LogMark
    """The last batch that the snapshot includes."""
    taken_at_ms: int


class _Body(Struct):
    mark: LogMark
    taken_at_ms: int
    start: Start
    producer_id: int | None
    targets: list[tuple[str, int, Target]]
    digests: bytes
    entries: bytes
    ended: list[tuple[bytes, int, Ending]]


_encode_body = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(_Body).decode


def encode_snapshot(
    start: Start, producer_id: int | None, targets: list[tuple[str, int, Target]], pending: PendingMessages,
    mark: LogMark, now: int,
) -> bytes:  # fmt: skip
    digests, entries = [], []
    for digest, entry in pending.entries():
        digests.append(digest)
        entries.append(entry.to_bytes(ENTRY_BYTES, "big"))
    body = _encode_body(
        _Body(
            mark=mark,
            taken_at_ms=now,
            start=start,
            producer_id=producer_id,
            targets=targets,
            digests=b"".join(digests),
            entries=b"".join(entries),
            ended=[(digest, ended_ms, ending) for digest, (ended_ms, ending) in pending.endings()],
        )
    )
    return _HEAD.pack(MAGIC, VERSION, 0, len(body), checksum(body)) + body


def decode_snapshot(data: bytes) -> Snapshot | None:
    """Return None unless `data` is a whole and undamaged snapshot."""
    if len(data) < _HEAD.size:
        return None
    magic, version, _, length, crc32c = _HEAD.unpack_from(data)
    body_bytes = data[_HEAD.size :]
    if (magic, version, length, crc32c) != (MAGIC, VERSION, len(body_bytes), checksum(body_bytes)):
        return None
    try:
        body = _decode_body(body_bytes)
    except msgspec.MsgspecError:
        return None  # intact, but written by a version with other records
    ledger = SchedulerLedger()
    ledger.start = body.start
    ledger.producer_id = body.producer_id
    ledger.targets = {TopicPartition(topic, partition): target for topic, partition, target in body.targets}
    for at in range(0, len(body.digests), ENTRY_BYTES):
        entry = int.from_bytes(body.entries[at : at + ENTRY_BYTES], "big")
        ledger.pending.restore(body.digests[at : at + ENTRY_BYTES], entry)
    for digest, ended_ms, ending in body.ended:
        ledger.pending.end(digest, ended_ms, ending)
    return Snapshot(ledger, body.mark, body.taken_at_ms)
