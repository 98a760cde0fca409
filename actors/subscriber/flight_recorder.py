"""The flight recorder: which record the handler has at hand, in a mapped file that outlives the process.

Owns `subscribers/<group>-<number>.flight`, big-endian:

    header            0 magic "PLFLIGHT" | 8 version u16 = 2 | 10 slot_bytes u16 = 312 | 12 slots u32 = 256 | 16 zeros
    slot n            from 64 + 312 n
      +-------------+-----------+-------------+---------------+------------------+----------------+---------------+
      | 0 state u8  | 4 crc u32 | 8 notes u64 | 16 offset i64 | 24 partition u32 | 28 attempt u32 | 32 handed u32 |
      +-------------+-----------+-------------+---------------+------------------+----------------+---------------+
      | 36 first_failed_ms u64 | 44 last_failed_ms u64 | 52 length u16 | 54 topic, `length` bytes of UTF-8        |
      +----------------------------------------------------------------------------------------------------------+
      zeros or leftovers to the end of the slot
      notes         how many notes this process had written
      attempt       how often it has failed, this time included unless it was released
      handed        how often it was given to the handler, this time included
      ..._failed_ms ms since the epoch; 0: not yet
      crc           zlib CRC-32 of the bytes from 8 to the end of the topic
      state         0 empty   1 started   2 failed   3 timed out   4 killed the process   5 released   6 rejected
    slot 0            the record at hand
    slots 1 to 255    records that failed and wait for their next attempt, at most one a partition

A note is written into an emptied slot and then made valid by storing one byte, the state. So a process killed in the
middle of a note leaves an empty slot, and rightly: the handler had not begun. The CRC is for the disk: after a power
failure a page may be half old, half new, and such a note does not count.

No call to the system is made for a record: the pages belong to the kernel, which keeps them when the process is killed.
Only a record that was *started* is ever charged. When all slots are taken, a further failed record is counted in memory
alone.

Called by the worker thread (`start`, `finish`, `settle`) and, between runs, by the loop's thread (`forget`); `time_out`
and `abandon` come from the loop's thread while a handler does not return, and store one byte.
"""

import mmap
import os
import struct
import zlib
from pathlib import Path
from urllib.parse import quote

from msgspec import Struct

from ...transport.addresses import Place
from .effects import Cause, Charge, Verdict

MAGIC = b"PLFLIGHT"
VERSION = 2
SLOTS = 256
SLOT_BYTES = 312
_FIRST = 64
_FILE_BYTES = _FIRST + SLOTS * SLOT_BYTES
_MAX_TOPIC_BYTES = SLOT_BYTES - 54

_EMPTY, _STARTED, _FAILED, _TIMED_OUT, _KILLED, _RELEASED, _REJECTED = range(7)
_CAUSES: dict[int, Cause] = {
    _FAILED: "failed",
    _TIMED_OUT: "timed out",
    _KILLED: "killed",
    _RELEASED: "released",
    _REJECTED: "rejected",
}
_STATES: dict[Verdict, int] = {"failed": _FAILED, "released": _RELEASED, "rejected": _REJECTED}

_HEADER = struct.Struct(">8sHHI")
_CRC = struct.Struct(">I")
_NOTE = struct.Struct(">QqIIIQQH")


class Note(Struct, frozen=True):
    """What one slot says."""

    state: int
    topic: str
    partition: int
    offset: int
    attempt: int
    handed: int
    first_failed_ms: int
    last_failed_ms: int

    @property
    def key(self) -> Place:
        return (self.topic, self.partition)


class FlightRecorder:
    """One subscriber's file, mapped. Opening it settles what the last incarnation left."""

    def __init__(self, path: Path, now_ms: int = 0, last_end: str | None = None) -> None:
        """`now_ms` is taken for the time of the last incarnation's death, `last_end` says how it ended, if known."""
        self._path = path
        self._map = open_map(path)
        self._now_ms = now_ms
        self._last_end = last_end
        self._killer: Place | None = None
        self._notes = 0
        self._slots: dict[Place, int] = {}
        self._free: list[int] = []
        self.is_death_explained = False
        """Whether the last incarnation ended with a record at hand, which has been charged for it."""
        self._settle()

    def charges(self) -> list[Charge]:
        """The records that have failed attempts behind them."""
        return [
            Charge(
                note.topic,
                note.partition,
                note.offset,
                note.attempt,
                _CAUSES[note.state],
                note.handed,
                note.first_failed_ms,
                note.last_failed_ms,
                self._last_end if note.key == self._killer and note.state == _KILLED else None,
            )
            for note in self._waiting().values()
        ]

    def start(
        self,
        topic: str,
        partition: int,
        offset: int,
        attempt: int,
        handed: int = 1,
        first_failed_ms: int = 0,
    ) -> None:
        """The handler is about to be given this record, for the `handed`-th time."""
        self._write(0, _STARTED, topic, partition, offset, attempt, handed, first_failed_ms, 0)

    def finish(self) -> None:
        """The handler is done with the record at hand."""
        self._map[_FIRST] = _EMPTY

    def settle(
        self,
        verdict: Verdict,
        topic: str,
        partition: int,
        offset: int,
        attempt: int,
        handed: int = 1,
        first_failed_ms: int = 0,
        last_failed_ms: int = 0,
    ) -> None:
        """The handler raised; the record waits for what is to become of it."""
        self._charge(
            _STATES[verdict], topic, partition, offset, attempt, handed, first_failed_ms, last_failed_ms
        )
        self.finish()

    def forget(self, key: Place) -> None:
        """The record that was charged in this partition is dealt with."""
        slot = self._slots.pop(key, None)
        if slot is not None:
            self._map[_position(slot)] = _EMPTY
            self._free.append(slot)

    def time_out(self) -> int | None:
        """The record at hand has taken too long, the process is about to end for it.

        Returns its offset, None when the handler has come back in the meantime.
        """
        note = read_slot(self._map, 0)
        if note is None or note.state != _STARTED:
            return None
        self._map[_FIRST] = _TIMED_OUT
        return note.offset

    def abandon(self) -> None:
        """The process ends by order while the handler is at work: no fault of the record's."""
        self.finish()

    def discard(self) -> None:
        """The subscriber stops for good as far as it knows: remove the file, unless a successor needs what it says."""
        if read_slot(self._map, 0) is None and not self._waiting():
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        self._map.close()

    def _settle(self) -> None:
        """Turn the record that was at hand when the last incarnation ended into a charge like the others."""
        waiting = self._waiting()
        self._slots = {note.key: slot for slot, note in waiting.items()}
        self._free = [slot for slot in range(SLOTS - 1, 0, -1) if slot not in waiting]
        left = read_slot(self._map, 0)
        self.is_death_explained = left is not None
        if left is not None:
            state = _KILLED if left.state == _STARTED else left.state
            first_failed_ms = left.first_failed_ms or self._now_ms
            tally = (left.attempt, left.handed, first_failed_ms, self._now_ms)
            self._charge(state, left.topic, left.partition, left.offset, *tally)
            self._killer = left.key
        self.finish()

    def _waiting(self) -> dict[int, Note]:
        notes = ((slot, read_slot(self._map, slot)) for slot in range(1, SLOTS))
        return {slot: note for slot, note in notes if note is not None and note.state in _CAUSES}

    def _charge(self, state: int, topic: str, partition: int, offset: int, *tally: int) -> None:
        key = (topic, partition)
        slot = self._slots.get(key)
        if slot is None:
            if not self._free:
                return
            slot = self._slots[key] = self._free.pop()
        self._write(slot, state, topic, partition, offset, *tally)

    def _write(self, slot: int, state: int, topic: str, partition: int, offset: int, *tally: int) -> None:
        self._notes += 1
        at = _position(slot)
        name = topic.encode()
        body = _NOTE.pack(self._notes, offset, partition, *tally, len(name)) + name
        assert len(name) <= _MAX_TOPIC_BYTES, f"topic name too long: {topic}"
        flight = self._map
        flight[at] = _EMPTY
        flight[at + 4 : at + 8 + len(body)] = _CRC.pack(zlib.crc32(body)) + body
        flight[at] = state


def flight_path(data_directory: str, group: str, number: str) -> Path:
    """Where a member's recorder is."""
    return Path(data_directory) / "subscribers" / f"{quote(group, safe='')}-{number}.flight"


def open_map(path: Path) -> mmap.mmap:
    """The file mapped; made anew when it is missing or not of this version: what it says is a count, not data."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    header = _HEADER.pack(MAGIC, VERSION, SLOT_BYTES, SLOTS)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(file).st_size != _FILE_BYTES or os.pread(file, len(header), 0) != header:
            os.ftruncate(file, 0)
            # Written, not left as a hole: a full disk must be met here and not as a SIGBUS in the middle of a note.
            blank = header.ljust(_FILE_BYTES, b"\0")
            if os.pwrite(file, blank, 0) != len(blank):
                raise OSError(f"{path}: no room for the flight recorder")
        return mmap.mmap(file, _FILE_BYTES)
    finally:
        os.close(file)


def read_slot(flight: mmap.mmap, slot: int) -> Note | None:
    """What a slot says; None when it is empty, or its note is torn."""
    at = _position(slot)
    state = flight[at]
    _, offset, partition, *tally, length = _NOTE.unpack_from(flight, at + 8)
    if state not in (_STARTED, *_CAUSES) or length > _MAX_TOPIC_BYTES:
        return None
    end = at + 8 + _NOTE.size + length
    if _CRC.unpack_from(flight, at + 4)[0] != zlib.crc32(flight[at + 8 : end]):
        return None
    return Note(state, flight[end - length : end].decode(), partition, offset, *tally)


def _position(slot: int) -> int:
    return _FIRST + slot * SLOT_BYTES
