"""What a record looks like in the dead-letter topic: itself, and in its headers where it came from and why. Pure.

    header                   says
    dead-letter-topic        where the record stands, with dead-letter-partition and dead-letter-offset
    dead-letter-timestamp    its own timestamp, ms since the epoch
    dead-letter-group        whose handler failed
    dead-letter-attempts     how often it was tried
    dead-letter-reason       one line
    dead-letter-exception    the exception's type, if there was one
    dead-letter-traceback    the end of its traceback, at most MAX_TRACEBACK_CHARS

The record's own headers are kept, so that its value can be decoded as before. A record from a dead-letter topic
that fails once more tells of its last failure.
"""

from .effects import Cause, Failure, Letter, Record

MAX_REASON_CHARS = 1_000
MAX_TRACEBACK_CHARS = 8_000
PREFIX = "dead-letter-"

CAUSES: dict[Cause, str] = {
    "failed": "the handler raised, in a process that has ended since",
    "timed out": "the handler exceeded handler_timeout_ms",
    "killed": "the handler killed its process",
}


def letter_for(record: Record, dead_letter: str, group: str, attempts: int, failure: Failure) -> Letter:
    own = {name: text for name, text in (record.headers or {}).items() if not name.startswith(PREFIX)}
    told = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp": str(record.timestamp),
        "group": group,
        "attempts": str(attempts),
        "reason": " ".join(failure.reason.split())[:MAX_REASON_CHARS],
        "exception": failure.exception,
        # The end: there the exception is, and the frame that raised it.
        "traceback": failure.traceback and failure.traceback[-MAX_TRACEBACK_CHARS:],
    }
    headers = own | {PREFIX + name: text for name, text in told.items() if text is not None}
    return Letter(dead_letter, record.key, record.value, headers)
