"""The keys of a partition's records in a group that looks at them: learned from the log, used for deliveries. Pure.

Connects a partition's states with its queue (fair_queue.py), which follows every change of them. Then each record below
the end of the queue is in the queue, or done. Called by partitions.py, lookahead.py and acquiring.py.
"""

from collections.abc import Mapping

from ....transport.protocol.shares import Expired
from .fair_queue import FairQueue, KeyRules
from .partition import SharePartition
from .runs import runs_in
from .spans import Span, State

EXPIRED_RECORD = "it expired before it was delivered"


def use_keys(part: SharePartition, rules: KeyRules | None, expired: Expired) -> None:
    """Deliver by keys from now on, or, with None, in the order of offsets."""
    part.queue = None if rules is None else FairQueue(rules, part.spans.start)
    part.spans.watcher = None if part.queue is None else part.queue.note
    part.expired = expired


def acquire_chosen(
    part: SharePartition, member: str, limit: int, now: int, until: int, wall_ms: int
) -> list[Span]:
    """Lock up to `limit` records for the member, in the order of the queue. Return them by rising offsets.

    Records that are chosen and not to be delivered are done, or dead.
    """
    assert part.queue is not None
    chosen = part.queue.choose(min(limit, part.room), now, wall_ms)
    for offset in chosen.superseded:
        part.spans.put(Span(offset, offset + 1, State.DONE))
    for offset in chosen.expired:
        for span in part.spans.within(offset, offset + 1):
            if part.expired == "dead_letter":
                part.dead_letter(span, EXPIRED_RECORD)
            else:
                part.spans.put(Span(offset, offset + 1, State.DONE))
    taken: list[Span] = []
    for first, end in runs_in(sorted(chosen.delivered)):
        for span in part.spans.within(first, end):
            taken.append(Span(span.first, span.end, State.ACQUIRED, span.deliveries + 1, until, member, now))
            part.spans.put(taken[-1])
    return taken


def learn(
    part: SharePartition, records: Mapping[int, tuple[bytes | None, int, int]], end: int, now: int
) -> None:
    """Take the key, priority and expiry of the records from the end of the known ones to `end`."""
    queue = part.queue
    assert queue is not None
    first = max(queue.end, part.spans.start)
    queue.end = max(end, first)
    if queue.end > part.spans.end:
        part.spans.append(Span(part.spans.end, queue.end, State.AVAILABLE))
    missing = [offset for offset in range(first, queue.end) if offset not in records]
    for gap_first, gap_end in runs_in(missing):
        for span in part.spans.within(gap_first, gap_end):
            if span.state == State.AVAILABLE:
                part.spans.put(Span(span.first, span.end, State.DONE))
    for span in part.spans.within(first, queue.end):
        if span.state in (State.DONE, State.DEAD):
            continue
        for offset in range(span.first, span.end):
            if offset in records:
                queue.add(offset, *records[offset], span.until, now)
        if span.state == State.ACQUIRED:
            queue.note(span)
    part.tail = max(part.tail, part.spans.end)
