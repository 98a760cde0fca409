"""What a record looks like in the dead-letter topic: itself, and in its headers where it came from and why. Pure.

    header                       says
    dead-letter-topic            where the record stands, with dead-letter-partition and dead-letter-offset
    dead-letter-timestamp        its own timestamp, ms since the epoch
    dead-letter-group            whose handler failed
    dead-letter-failures         how often it failed
    dead-letter-deliveries       how often it was given to the handler, releases included
    dead-letter-first-failure    when, ms since the epoch; with dead-letter-last-failure
    dead-letter-reason           one line
    dead-letter-exception        the exception's type, if there was one
    dead-letter-traceback        the end of its traceback, at most MAX_TRACEBACK_CHARS
    dead-letter-exit             for a record that ended its process: the signal or the exit code, where known
    dead-letter-stack            where it was then, for a signal that Python could still tell of
    dead-letter-peak-memory      the most memory that the process had needed by then, in bytes
    dead-letter-redrives         how often it has been sent back already, if it has
    dead-letter-dedup-id         its own identity, if it had one

The record's own headers are kept, so that its value can be decoded as before. A record from a dead-letter topic that
fails once more tells of its last failure. A letter has an identity of its own: published again by a successor that does
not know of it, it is there once. The identity is that of one record in one reading (lineage.py): another record that has
its offset later, and the same one after a reset of the group, have letters of their own.
"""

import hashlib

from ...transport.addresses import Place
from ...transport.deduplication import DEDUP_HEADER
from .effects import Cause, Letter, Record
from .lanes import Lane

MAX_REASON_CHARS = 1_000
MAX_TRACEBACK_CHARS = 8_000
PREFIX = "dead-letter-"
REDRIVES = f"{PREFIX}redrives"

CAUSES: dict[Cause, str] = {
    "failed": "the handler raised, in a process that has ended since",
    "rejected": "the handler rejected the record, in a process that has ended since",
    "released": "the handler released the record",
    "timed out": "the handler exceeded handler_timeout_ms",
    "cpu exceeded": "the handler exceeded cpu_limit",
    "killed": "the handler killed its process",
}


def letter_for(lane: Lane, dead_letter: str, group: str, lineage: bytes, wall_offset_ms: int) -> Letter:
    """The letter of the lane's first record, which has failed. It tells the time of day, so much ahead of the lane's."""
    record, failure = lane.held[0], lane.last_failure
    assert failure is not None
    before = record.headers or {}
    own = {name: text for name, text in before.items() if not name.startswith(PREFIX) or name == REDRIVES}
    identity = own.pop(DEDUP_HEADER, None)
    told = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp": str(record.timestamp),
        "group": group,
        "failures": str(lane.attempts),
        "deliveries": str(lane.handed),
        "first-failure": str(lane.first_failed_ms + wall_offset_ms),
        "last-failure": str(lane.last_failed_ms + wall_offset_ms),
        "reason": " ".join(failure.reason.split())[:MAX_REASON_CHARS],
        "exception": failure.exception,
        # The end: there the exception is, and the frame that raised it.
        "traceback": failure.traceback and failure.traceback[-MAX_TRACEBACK_CHARS:],
        "exit": failure.exit,
        "stack": failure.stack,
        "peak-memory": None if failure.peak_bytes is None else str(failure.peak_bytes),
        "dedup-id": identity,
    }
    headers = own | {PREFIX + name: text for name, text in told.items() if text is not None}
    return Letter(dead_letter, record.key, record.value, headers, identity_of(record, group, lineage))


def identity_of(record: Record, group: str, lineage: bytes) -> str:
    """One name for all letters of a record."""
    place = (record.topic, record.partition)
    return place_identity(group, place, record.offset, record.leader_epoch, lineage)


def place_identity(group: str, of: Place, offset: int, leader_epoch: int, lineage: bytes) -> str:
    place = f"{group}\0{of[0]}\0{of[1]}\0{offset}\0{leader_epoch}\0{lineage.hex()}"
    return f"dead-letter/{hashlib.sha256(place.encode()).hexdigest()[:40]}"
