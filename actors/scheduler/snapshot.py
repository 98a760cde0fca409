"""The snapshot of a scheduler: a cache of its state, so that a restart need not read all records. Pure.

Owns the body; the frame around it is that of every journal's snapshot (`journal/snapshot.py`). It contains no message
contents.

    magic "PLDS", version 2
    body: MessagePack map {mark: {base_offset, crc32c, next_offset}, taken_at_ms, start: {epoch, starter}, producer_id,
    targets: [[topic, partition, Target], ...], digests: 16 bytes a message, entries: 16 bytes a message,
    ended: [[digest, ended_ms, ending], ...]}
"""

import msgspec
from msgspec import Struct

from ...transport.addresses import TopicPartition
from ..journal.identity import Start
from ..journal.snapshot import LogMark, Snapshot, SnapshotFormat
from .ledger import SchedulerLedger
from .records import Ending, Target

FORMAT = SnapshotFormat(b"PLDS", 2)
ENTRY_BYTES = 16


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


def encode_snapshot(ledger: SchedulerLedger, mark: LogMark, now: int) -> bytes:
    digests, entries = [], []
    for digest, entry in ledger.pending.entries():
        digests.append(digest)
        entries.append(entry.to_bytes(ENTRY_BYTES, "big"))
    body = _encode_body(
        _Body(
            mark=mark,
            taken_at_ms=now,
            start=ledger.start,
            producer_id=ledger.producer_id,
            targets=[(*tp, target) for tp, target in ledger.targets.items()],
            digests=b"".join(digests),
            entries=b"".join(entries),
            ended=[(digest, ended_ms, ending) for digest, (ended_ms, ending) in ledger.pending.endings()],
        )
    )
    return FORMAT.seal(body)


def decode_snapshot(data: bytes) -> Snapshot[SchedulerLedger] | None:
    """Return None unless `data` is a whole and undamaged snapshot."""
    content = FORMAT.open(data)
    if content is None:
        return None
    try:
        body = _decode_body(content)
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
