"""Answers of the page of dead letters: the reasons, the letters, one letter with its stack, redrive and dry run."""

from typing import Any

from msgspec import Struct
from starlette.datastructures import QueryParams
from starlette.routing import Route

from ...transport.client.dead_letters import (
    DeadLetter,
    LetterFilter,
    histogram,
    letter_of,
    read_partition,
)
from ...transport.client.redrive import Redrive
from ...transport.dead_letters import is_dead_letter
from .answers import acts, number_in, reads
from .broker_link import CLIENT_ID, BrokerLink
from .decoding import shown_message
from .failures import Refused

MAX_LETTERS = 500
MAX_READ = 50_000
"""Messages of a topic that are read for its page, the newest ones."""


class RedriveBody(Struct, forbid_unknown_fields=True):
    topic: str
    positions: list[tuple[int, int]] | None = None
    """Partition and offset of the chosen letters; null: all with the reason."""
    reason: str | None = None
    to: str | None = None
    is_dry_run: bool = True


def topics(link: BrokerLink, _: QueryParams) -> dict[str, Any]:
    """Answer with the topics whose first message is a dead letter."""
    found = []
    for each in sorted(link.client.list_topics(), key=lambda summary: summary.topic):
        for partition in range(each.partitions):
            first = next(read_partition(link.client, each.topic, partition), None)
            if first is not None:
                if is_dead_letter(first.headers):
                    found.append(each.topic)
                break
    return {"topics": found}


def letters(link: BrokerLink, query: QueryParams) -> dict[str, Any]:
    topic, reason = query.get("topic", ""), query.get("reason")
    wanted = LetterFilter(reason=reason or None)
    partitions = link.client.describe_topic(topic).partitions
    newest = MAX_READ // len(partitions)
    ends = {each.partition: each.high_watermark or 0 for each in partitions}
    # Letters that have arrived since the ends were read would count as negative redriven ones.
    pending = [
        each
        for each in Redrive(link.client, topic).pending(LetterFilter(), newest)
        if each.message.offset < ends[each.message.partition]
    ]
    shown = sorted(filter(wanted.matches, pending), key=lambda each: each.failed_ms, reverse=True)
    sizes = [(each.high_watermark or 0) - (each.log_start_offset or 0) for each in partitions]
    return {
        "letters": [_summary(each) for each in shown[:MAX_LETTERS]],
        "matching": len(shown),
        "pending": len(pending),
        "all": sum(sizes),
        "unread": sum(max(0, size - newest) for size in sizes),
        "reasons": histogram(pending),
    }


def letter(link: BrokerLink, query: QueryParams) -> dict[str, Any]:
    topic = query.get("topic", "")
    partition, offset = number_in(query, "partition", 0, 1 << 31), number_in(query, "offset", 0, 1 << 62)
    message = next(read_partition(link.client, topic, partition, offset), None)
    if message is None or message.offset != offset:
        raise Refused(404, "UNKNOWN_OFFSET", f"{topic}/{partition} has no letter at {offset}")
    found = letter_of(message)
    return _summary(found) | {
        "traceback": found.traceback,
        "exception": found.exception,
        "exit": found.exit,
        "deliveries": found.deliveries,
        "first_failure_ms": found.first_failure_ms,
        "message": shown_message(message),
    }


def _summary(found: DeadLetter) -> dict[str, Any]:
    return {
        "partition": found.message.partition,
        "offset": found.message.offset,
        "from": None if found.topic is None else f"{found.topic}/{found.partition} at {found.offset}",
        "group": found.group,
        "failures": found.failures,
        "failed_ms": found.failed_ms,
        "reason": found.reason,
        "redrives": found.redrives,
    }


def redrive(link: BrokerLink, body: RedriveBody) -> dict[str, Any]:
    """Send letters to their topics again; a dry run answers with the letters and their targets."""
    wanted = LetterFilter(
        reason=body.reason or None,
        positions=None if body.positions is None else frozenset(map(tuple, body.positions)),  # type: ignore[arg-type]
    )
    job = Redrive(link.client, body.topic, target=body.to or None, actor=CLIENT_ID)
    if not body.is_dry_run:
        report = job.run(wanted)
        return {
            "is_done": True,
            "moved": report.moved,
            "refused": report.refused,
            "held_back": report.held_back,
        }
    chosen, report = job.judge(job.pending(wanted))
    rows = [_summary(each) | {"to": body.to or each.topic} for each in chosen[:MAX_LETTERS]]
    return {
        "is_done": False,
        "letters": rows,
        "count": len(chosen),
        "held_back": report.held_back,
        "no_origin": report.no_origin,
    }


ROUTES = [
    Route("/api/letter-topics", reads(topics)),
    Route("/api/letters", reads(letters)),
    Route("/api/letter", reads(letter)),
    Route("/api/redrive", acts(RedriveBody, redrive), methods=["POST"]),
]
