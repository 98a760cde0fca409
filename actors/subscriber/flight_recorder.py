"""The flight recorder: the records that the handler has in progress, in a mapped file that outlives the process.

Owns `subscribers/<group>-<number>.flight`, big-endian:

    header            0 magic "PLFLIGHT" | 8 version u16 = 5 | 10 slot_bytes u16 = 384 | 12 slots u32 = 1279
                      16 the process's peak memory, bytes, u64 | 24 zeros
    slot n            from 64 + 384 n
      +-------------+-----------+-------------+---------------+------------------+----------------+---------------+
      | 0 state u8  | 4 crc u32 | 8 notes u64 | 16 offset i64 | 24 partition u32 | 28 attempt u32 | 32 handed u32 |
      +-------------+-----------+-------------+---------------+------------------+----------------+---------------+
      | 36 first_failed_ms u64 | 44 last_failed_ms u64 | 52 committed i64 | 60 leader_epoch u32 | 64 lineage, 16 B |
      +----------------------------------------------------------------------------------------------------------+
      | 80 length u16 | 82 exit length u16 | 84 topic, in UTF-8 | exit, in UTF-8, at most MAX_EXIT_BYTES         |
      +----------------------------------------------------------------------------------------------------------+
      zeros or leftovers to the end of the slot
      notes         number of notes written before, by this process and earlier ones
      attempt       number of failures, this one included unless it was a release
      handed        number of times the record was given to the handler, this time included
      ..._failed_ms ms since the epoch; 0: not yet. In a started record, the last is the time of the start
      leader_epoch  the record's; with the lineage (lineage.py) it identifies the record among others with its offset
      committed     the group's offset in the partition, as far as known, when the record was started
      exit          the exit status of the process that the record has killed, where known
      crc           zlib CRC-32 of the bytes from 8 to the end of exit
      state         0 empty   1 started   2 failed   3 timed out   4 killed the process   5 released   6 rejected
                    7 finished   8 suspect: one of several in progress when the process ended
                    9 exceeded its share of the processor
    slots 0 to 1023   a ring of records given to the handler, so that the last finished ones can still be read there;
                      a note's number determines its slot, and it skips the slots the workers wrote last
    slots 1024 on     255 records that failed and wait for their next attempt

A note is written into an emptied slot and then made valid by storing one byte, the state. So a process killed in the
middle of a note leaves an empty slot, which is correct: the handler had not begun. The CRC protects against the disk:
after a power failure a page may be half old, half new, and such a note does not count.

No system call is made for a record: the pages belong to the kernel, which keeps them when the process is killed. The
death counts as a failed attempt of a *started* record alone, and only if no other was in progress: several are suspects
(bisection.py). A record that timed out has failed, and the records beside it have neither failed nor are they suspects.
When all slots are taken, a further failed record is counted in memory alone.

Called by the worker threads (`start`, `finish`, `set_aside`, `settle`) and by the loop's thread (`forget`); `time_out`
and `abandon` are called by the loop's thread while a handler does not return, and store a byte.
"""

import itertools
import mmap
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgspec import Struct, structs

from ...transport.lineage import UNTRACED
from .bisection import Spot
from .effects import Cause, PriorAttempt, Verdict
from .recovered_state import Finished, RecoveredState, Suspect

MAGIC = b"PLFLIGHT"
VERSION = 5
RING_SLOTS = 1024
CHARGE_SLOTS = 255
SLOTS = RING_SLOTS + CHARGE_SLOTS
SLOT_BYTES = 384
_FIRST = 64
_FILE_BYTES = _FIRST + SLOTS * SLOT_BYTES
MAX_EXIT_BYTES = 40
_MAX_TOPIC_BYTES = SLOT_BYTES - 84 - MAX_EXIT_BYTES

_EMPTY, _STARTED, _FAILED, _TIMED_OUT, _KILLED, _RELEASED, _REJECTED, _FINISHED, _SUSPECT, _CPU_EXCEEDED = (
    range(10)
)
_CAUSES: dict[int, Cause] = {
    _FAILED: "failed",
    _TIMED_OUT: "timed out",
    _CPU_EXCEEDED: "cpu exceeded",
    _KILLED: "killed",
    _RELEASED: "released",
    _REJECTED: "rejected",
}
_ENDED_FOR = frozenset({_TIMED_OUT, _CPU_EXCEEDED})
"""States of records for which the process was ended."""
_STATES: dict[Verdict, int] = {"failed": _FAILED, "released": _RELEASED, "rejected": _REJECTED}

_HEADER = struct.Struct(">8sHHI")
_PEAK = struct.Struct(">Q")
_CRC = struct.Struct(">I")
_NOTE = struct.Struct(">QqIIIQQqI16sHH")


class AttemptNote(Struct, frozen=True):
    """The content of one slot."""

    state: int
    topic: str
    partition: int
    offset: int
    notes: int
    exit: str | None
    attempt: int
    handed: int
    first_failed_ms: int
    last_failed_ms: int
    committed: int
    leader_epoch: int
    lineage: bytes

    @property
    def spot(self) -> Spot:
        return (self.topic, self.partition, self.offset)


class FlightRecorder:
    """One subscriber's file, mapped. Opening it resolves the records left by the last incarnation."""

    def __init__(
        self,
        path: Path,
        now_ms: int = 0,
        last_end: str | None = None,
        last_stack: str | None = None,
        workers: int = 1,
    ) -> None:
        """`now_ms` stands for the time of the last incarnation's death; `last_end` and `last_stack` describe it."""
        self._path = path
        self._map = open_map(path)
        self._now_ms = now_ms
        self._last_end = last_end
        self._killer: Spot | None = None
        self._last_stack = last_stack
        [peak_bytes] = _PEAK.unpack_from(self._map, _HEADER.size)
        self._last_peak_bytes: int | None = peak_bytes or None
        self.note_peak(0)
        self._lock = threading.Lock()
        self._slots: dict[Spot, int] = {}
        self._free: list[int] = []
        self.is_death_explained = False
        """True if the last incarnation ended with records in progress: one has failed, several are suspects."""
        ring = self._read(range(RING_SLOTS))
        prior_attempts = self._read(range(RING_SLOTS, SLOTS))
        last = max((note.notes for note in (*ring.values(), *prior_attempts.values())), default=0)
        self._notes = itertools.count(last + 1)
        self._at = [_position(slot) for slot in range(workers)]
        """Each worker's last slot; only that worker writes there."""
        self._claim = threading.Lock()
        self._settle(ring, prior_attempts)

    def recovered(self) -> RecoveredState:
        """Return the state that the machine starts from."""
        latest: dict[Spot, AttemptNote] = {}
        for note in self._read(range(RING_SLOTS)).values():
            if note.spot not in latest or latest[note.spot].notes < note.notes:
                latest[note.spot] = note
        finished = [note for note in latest.values() if note.state == _FINISHED]
        suspects = [note for note in latest.values() if note.state == _SUSPECT]
        return RecoveredState(
            self.prior_attempts(),
            [Finished(*note.spot, note.committed, note.leader_epoch, note.lineage) for note in finished],
            [Suspect(*note.spot, note.leader_epoch, note.lineage) for note in suspects],
        )

    def prior_attempts(self) -> list[PriorAttempt]:
        """Return the records with failed attempts."""
        notes = self._read(range(RING_SLOTS, SLOTS)).values()
        return [self._as_prior_attempt(note) for note in notes if note.state in _CAUSES]

    def start(
        self,
        topic: str,
        partition: int,
        offset: int,
        attempt: int,
        handed: int = 1,
        first_failed_ms: int = 0,
        worker: int = 0,
        committed: int = 0,
        started_ms: int = 0,
        leader_epoch: int = 0,
        lineage: bytes = UNTRACED,
    ) -> None:
        """Note that this worker gives the record to the handler, for the `handed`-th time."""
        with self._claim:
            at = -1
            while at < 0 or at in self._at:
                number = next(self._notes)
                at = _FIRST + number % RING_SLOTS * SLOT_BYTES
            self._at[worker] = at
        tally = (attempt, handed, first_failed_ms, started_ms, committed, leader_epoch, lineage)
        self._write(at, _STARTED, number, topic, partition, offset, tally)

    def finish(self, worker: int = 0) -> None:
        """Note that the handler has finished the worker's record."""
        self._map[self._at[worker]] = _FINISHED

    def set_aside(self, worker: int = 0) -> None:
        """Note that the handler returned, but the record does not count as done: a successor must give it out again."""
        self._map[self._at[worker]] = _EMPTY

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
        worker: int = 0,
        leader_epoch: int = 0,
        lineage: bytes = UNTRACED,
    ) -> None:
        """Note the handler's verdict; the record waits for a retry or its dead letter."""
        state = _STATES[verdict]
        tally = (attempt, handed, first_failed_ms, last_failed_ms, 0, leader_epoch, lineage)
        self._prior_attempt(state, topic, partition, offset, tally)
        self._map[self._at[worker]] = _EMPTY

    def forget(self, spot: Spot) -> None:
        """Remove the note of this record, which had failed and is done."""
        with self._lock:
            slot = self._slots.pop(spot, None)
            if slot is not None:
                self._map[_position(slot)] = _EMPTY
                self._free.append(slot)

    def time_out(self, worker: int = 0, cause: Cause = "timed out", offset: int | None = None) -> int | None:
        """Charge the worker's record in progress, which exceeded a limit; the process is about to end because of it.

        Return its offset, None if the handler has returned in the meantime.
        """
        at = self._at[worker]
        note = read_note(self._map, at)
        if note is None or note.state != _STARTED or offset not in (None, note.offset):
            return None
        self._map[at] = _CPU_EXCEEDED if cause == "cpu exceeded" else _TIMED_OUT
        return note.offset

    def in_progress(self) -> list[AttemptNote]:
        """Return the records that the workers have in progress."""
        notes = [read_note(self._map, at) for at in self._at]
        return [note for note in notes if note is not None and note.state == _STARTED]

    def abandon(self) -> None:
        """Release the records in progress without a failed attempt: the process ends by order while the handler runs."""
        for at in self._at:
            if self._map[at] == _STARTED:
                self._map[at] = _EMPTY

    def discard(self) -> None:
        """Remove the file of a subscriber that stops for good, unless a successor needs its notes."""
        ring = (self._map[_position(slot)] for slot in range(RING_SLOTS))
        if not self._slots and not any(state == _STARTED or state in _ENDED_FOR for state in ring):
            self._path.unlink(missing_ok=True)
            self._path.with_suffix(".stack").unlink(missing_ok=True)

    def note_peak(self, peak_bytes: int) -> None:
        """Record the peak memory of this process so far."""
        _PEAK.pack_into(self._map, _HEADER.size, peak_bytes)

    def close(self) -> None:
        self._map.close()

    def _settle(self, ring: dict[int, AttemptNote], prior_attempts: dict[int, AttemptNote]) -> None:
        """Count the end of the last incarnation as a failed attempt of the record in progress."""
        finished: dict[Spot, int] = {}
        for note in ring.values():
            if note.state == _FINISHED:
                finished[note.spot] = max(note.notes, finished.get(note.spot, 0))
        waiting: dict[int, AttemptNote] = {}
        for slot, note in prior_attempts.items():
            if finished.get(note.spot, 0) > note.notes:  # it succeeded after it had failed
                self._map[_position(slot)] = _EMPTY
            elif note.state in _CAUSES:
                waiting[slot] = note
        self._slots = {note.spot: slot for slot, note in waiting.items()}
        self._free = [slot for slot in range(SLOTS - 1, RING_SLOTS - 1, -1) if slot not in waiting]
        started = [slot for slot, note in ring.items() if note.state == _STARTED]
        culprits = [slot for slot, note in ring.items() if note.state in _ENDED_FOR]
        self.is_death_explained = bool(started or culprits)
        if not culprits and len(started) == 1:
            culprits, started = started, []
            self._killer = ring[culprits[0]].spot
        for slot in culprits:
            note = ring[slot]
            state = _KILLED if note.state == _STARTED else note.state
            first_failed_ms = note.first_failed_ms or self._now_ms
            tally = (note.attempt, note.handed, first_failed_ms, self._now_ms, 0)
            exit_status = self._last_end if note.spot == self._killer and state == _KILLED else None
            self._prior_attempt(state, *note.spot, (*tally, note.leader_epoch, note.lineage), exit_status)
        if self._killer is not None or (started and not culprits):
            # Only these: an earlier suspect that was not in progress at this death did not cause it.
            for slot in (slot for slot, note in ring.items() if note.state == _SUSPECT):
                self._map[_position(slot)] = _EMPTY
        for slot in started:
            self._map[_position(slot)] = _EMPTY if culprits else _SUSPECT
        for slot in culprits:
            self._map[_position(slot)] = _EMPTY

    def _as_prior_attempt(self, note: AttemptNote) -> PriorAttempt:
        tally = (note.handed, note.first_failed_ms, note.last_failed_ms)
        prior_attempt = PriorAttempt(
            *note.spot,
            note.attempt,
            _CAUSES[note.state],
            *tally,
            note.exit,
            leader_epoch=note.leader_epoch,
            lineage=note.lineage,
        )
        if note.spot != self._killer or note.state != _KILLED:
            return prior_attempt
        return structs.replace(prior_attempt, stack=self._last_stack, peak_bytes=self._last_peak_bytes)

    def _read(self, slots: range) -> dict[int, AttemptNote]:
        notes = ((slot, read_note(self._map, _position(slot))) for slot in slots)
        return {slot: note for slot, note in notes if note is not None}

    def _prior_attempt(
        self,
        state: int,
        topic: str,
        partition: int,
        offset: int,
        tally: tuple[Any, ...],
        exit_status: str | None = None,
    ) -> None:
        spot = (topic, partition, offset)
        with self._lock:
            slot = self._slots.get(spot)
            if slot is None:
                if not self._free:
                    return
                slot = self._slots[spot] = self._free.pop()
        self._write(_position(slot), state, next(self._notes), topic, partition, offset, tally, exit_status)

    def _write(
        self,
        at: int,
        state: int,
        number: int,
        topic: str,
        partition: int,
        offset: int,
        tally: tuple[Any, ...],
        exit_status: str | None = None,
    ) -> None:
        name = topic.encode()
        exit_bytes = exit_status.encode()[:MAX_EXIT_BYTES] if exit_status else b""
        body = _NOTE.pack(number, offset, partition, *tally, len(name), len(exit_bytes)) + name + exit_bytes
        assert len(name) <= _MAX_TOPIC_BYTES, f"topic name too long: {topic}"
        flight = self._map
        flight[at] = _EMPTY
        flight[at + 4 : at + 8 + len(body)] = _CRC.pack(zlib.crc32(body)) + body
        flight[at] = state


def flight_path(data_directory: str, group: str, number: str) -> Path:
    """Return the path of a member's flight recorder."""
    return Path(data_directory) / "subscribers" / f"{quote(group, safe='')}-{number}.flight"


def open_map(path: Path) -> mmap.mmap:
    """Return the mapped file, created if it is missing or of another version: it holds counts, not data."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    header = _HEADER.pack(MAGIC, VERSION, SLOT_BYTES, SLOTS)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(file).st_size != _FILE_BYTES or os.pread(file, len(header), 0) != header:
            os.ftruncate(file, 0)
            # Written, not left sparse: a full disk must fail here and not as a SIGBUS in the middle of a note.
            blank = header.ljust(_FILE_BYTES, b"\0")
            if os.pwrite(file, blank, 0) != len(blank):
                raise OSError(f"{path}: no room for the flight recorder")
        return mmap.mmap(file, _FILE_BYTES)
    finally:
        os.close(file)


def read_note(flight: mmap.mmap, at: int) -> AttemptNote | None:
    """Return the slot's note; None if the slot is empty or the note is torn."""
    state = flight[at]
    if not _EMPTY < state <= _CPU_EXCEEDED:
        return None
    notes, offset, partition, *tally, length, exit_length = _NOTE.unpack_from(flight, at + 8)
    if length > _MAX_TOPIC_BYTES or exit_length > MAX_EXIT_BYTES:
        return None
    topic_end = at + 8 + _NOTE.size + length
    end = topic_end + exit_length
    if _CRC.unpack_from(flight, at + 4)[0] != zlib.crc32(flight[at + 8 : end]):
        return None
    topic = flight[topic_end - length : topic_end].decode()
    exit_status = flight[topic_end:end].decode(errors="replace") or None
    return AttemptNote(state, topic, partition, offset, notes, exit_status, *tally)


def _position(slot: int) -> int:
    return _FIRST + slot * SLOT_BYTES
