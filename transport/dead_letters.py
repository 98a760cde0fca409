"""The format of dead letters: a record that failed for good, with headers that say where it came from and why. Pure.

    header                       value
    dead-letter-topic            source topic, with dead-letter-partition and dead-letter-offset
    dead-letter-timestamp        timestamp of the source record, ms since the epoch
    dead-letter-group            group whose handler or members failed
    dead-letter-failures         number of failed attempts
    dead-letter-deliveries       number of deliveries, released ones included
    dead-letter-first-failure    time, ms since the epoch; with dead-letter-last-failure
    dead-letter-reason           one line, at most MAX_REASON_CHARS
    dead-letter-exception        type of the exception, if there was one
    dead-letter-traceback        end of the traceback, at most MAX_TRACEBACK_CHARS
    dead-letter-exit             signal or exit code, if the record ended its process and it is known
    dead-letter-stack            stack at that moment, for a signal that Python could still handle
    dead-letter-peak-memory      peak memory of the process, bytes
    dead-letter-redrives         number of times the record was sent back
    dead-letter-redriven-from    set by a redrive, not here: the dead letter that was sent back
    dead-letter-dedup-id         dedup id of the source record, if it had one

The record's own headers are kept, so that its value can be decoded. Headers of an earlier failure are replaced, except
for the count of redrives. Each dead letter has a dedup id, so a copy that a successor publishes again is not appended
twice. Written by hosted subscribers and by the coordinators of share groups, read by the client.
"""

import hashlib
import re
from collections.abc import Mapping

from msgspec import Struct

from .addresses import TopicPartition
from .batch import Headers
from .deduplication import DEDUP_HEADER

PREFIX = "dead-letter-"
REDRIVES = f"{PREFIX}redrives"
REDRIVEN_FROM = f"{PREFIX}redriven-from"
MAX_REASON_CHARS = 1_000
MAX_TRACEBACK_CHARS = 8_000


class DeadLetterHeaders(Struct, frozen=True, kw_only=True):
    """The headers, decoded. A missing one is None, a missing count or time 0."""

    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    timestamp_ms: int | None = None
    group: str | None = None
    failures: int = 0
    deliveries: int = 0
    first_failure_ms: int = 0
    last_failure_ms: int = 0
    reason: str = ""
    exception: str | None = None
    traceback: str | None = None
    exit: str | None = None
    stack: str | None = None
    peak_memory_bytes: int | None = None
    redrives: int = 0


def encode(source: Mapping[str, str] | None, failure: DeadLetterHeaders) -> Headers:
    """Return the headers of a dead letter: those of the source record, then those of its failure."""
    own = {
        name: text for name, text in (source or {}).items() if not name.startswith(PREFIX) or name == REDRIVES
    }
    fields = {
        "topic": failure.topic,
        "partition": _text(failure.partition),
        "offset": _text(failure.offset),
        "timestamp": _text(failure.timestamp_ms),
        "group": failure.group,
        "failures": str(failure.failures),
        "deliveries": str(failure.deliveries),
        "first-failure": str(failure.first_failure_ms) if failure.first_failure_ms else None,
        "last-failure": str(failure.last_failure_ms),
        "reason": " ".join(failure.reason.split())[:MAX_REASON_CHARS],
        "exception": failure.exception,
        # The end has the exception and the frame that raised it.
        "traceback": failure.traceback and failure.traceback[-MAX_TRACEBACK_CHARS:],
        "exit": failure.exit,
        "stack": failure.stack,
        "peak-memory": _text(failure.peak_memory_bytes),
        "dedup-id": own.pop(DEDUP_HEADER, None),
    }
    return own | {PREFIX + name: text for name, text in fields.items() if text is not None}


def decode(headers: Mapping[str, str]) -> DeadLetterHeaders:
    """Decode the headers of a dead letter. A malformed number counts as missing."""

    def text(name: str) -> str | None:
        return headers.get(PREFIX + name)

    def number(name: str) -> int | None:
        found = text(name) or ""
        return int(found) if re.fullmatch(r"-?[0-9]{1,19}", found) else None

    return DeadLetterHeaders(
        topic=text("topic"),
        partition=number("partition"),
        offset=number("offset"),
        timestamp_ms=number("timestamp"),
        group=text("group"),
        failures=number("failures") or 0,
        deliveries=number("deliveries") or 0,
        first_failure_ms=number("first-failure") or 0,
        last_failure_ms=number("last-failure") or 0,
        reason=text("reason") or "",
        exception=text("exception"),
        traceback=text("traceback"),
        exit=text("exit"),
        stack=text("stack"),
        peak_memory_bytes=number("peak-memory"),
        redrives=number("redrives") or 0,
    )


def is_dead_letter(headers: Mapping[str, str] | None) -> bool:
    """Return True if any header is one of a dead letter."""
    return any(name.startswith(PREFIX) for name in headers or {})


def dead_letter_id(group: str, source: TopicPartition, offset: int, leader_epoch: int, lineage: bytes) -> str:
    """Return the dedup id of a record's dead letter.

    It belongs to one record in one lineage (lineage.py): another record that gets the offset later, and the same record
    after a reset of the group, have dead letters of their own.
    """
    origin = f"{group}\0{source[0]}\0{source[1]}\0{offset}\0{leader_epoch}\0{lineage.hex()}"
    return f"dead-letter/{hashlib.sha256(origin.encode()).hexdigest()[:40]}"


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
