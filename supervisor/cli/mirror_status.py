"""The mirrors and their topics as `planaria mirror status` prints them, and the notes that promote shares with it."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from ...transport.protocol.mirrored import Fork
from ...transport.protocol.mirrors import MirroredTopic, MirrorReport, PartitionLag
from .output import note, plural, print_table
from .tables import Listing


def print_status(found: list[MirrorReport], left: Mapping[str, list[MirroredTopic]]) -> None:
    """`left` are topics that take no producers, by the name of their mirror, which was deleted."""
    if not (found or left):
        note("there are no mirrors")
    for each in found:
        reason = f": {each.reason}" if each.reason else ""
        note(
            f"{each.mirror} from {each.spec.source}: {each.state}{reason}, last contact {time_of(each.last_contact_ms)}"
        )
        if each.topics:
            print_table(
                Listing(
                    "topic",
                    "partition",
                    "state",
                    "end",
                    "source",
                    "lag",
                    "bytes",
                    "seconds",
                    "skipped",
                    "reason",
                ),
                [row for topic in each.topics for row in _rows(topic)],
            )
        for topic in each.topics:
            if topic.diverged:
                note(f"{topic.topic}: records that its source does not have are kept in {topic.diverged}")
            if topic.state == "faulted":
                note(_after_fault(each.mirror, topic.topic))
        if each.state != "paused":
            note_not_copied([each])
    for name, topics in sorted(left.items()):
        for topic in topics:
            note(_left(name, topic))


def _after_fault(mirror: str, topic: str) -> str:
    return (
        f"{topic} is faulted and stays as it is: planaria mirror promote {mirror} {topic} takes it over; planaria topic"
        f" delete {topic}, and then planaria mirror resume {mirror}, copies it again"
    )


def _left(mirror: str, topic: MirroredTopic) -> str:
    reason = f"{topic.reason}; " if topic.reason else ""
    name = f"{mirror} {topic.topic}"
    way = f"planaria mirror create {name} --from URL copies on, planaria mirror promote {name} lets it take producers"
    if topic.state == "rejoining":
        way = f"planaria mirror failback {name} --from URL continues it"
    return f"{topic.topic} is {topic.state} and its mirror {mirror} was deleted: {reason}{way}"


def note_not_copied(reports: Iterable[MirrorReport], topics: Iterable[str] | None = None) -> None:
    """Name the state that a mirror has found at the source and does not copy; delayed messages of these topics alone."""
    for each in reports:
        for group, why in sorted(each.groups_not_copied.items()):
            note(f"group {group} is not copied: {why}")
        if each.delayed_at_ms < 0:
            note(
                f"delayed messages are not copied: how many wait at the source of {each.mirror} is not known"
            )
            continue
        chosen = each.delayed if topics is None else {topic: each.delayed.get(topic, 0) for topic in topics}
        for topic, count in sorted(chosen.items()):
            if count:
                waiting = plural(count, "delayed message")
                note(f"{topic}: {waiting} not copied, at the source as of {time_of(each.delayed_at_ms)}")


def _rows(topic: MirroredTopic) -> list[tuple[str, ...]]:
    if topic.forks:
        blanks = [""] * 4
        return [
            (
                topic.topic,
                *map(str, (fork.partition, topic.state, fork.offset)),
                end_of(fork),
                *blanks,
                lost_at(fork),
            )
            for fork in topic.forks
        ]
    if not topic.partitions:
        return [(topic.topic, "", topic.state, "", "", "", "", "", "", topic.reason)]
    return [
        (
            topic.topic,
            str(each.partition),
            topic.state,
            _number(each.log_end_offset),
            _number(each.source_high_watermark),
            _number(_lag(each)),
            _number(each.lag_bytes),
            "" if each.behind_ms < 0 else f"{each.behind_ms / 1_000:.1f}",
            str(each.skipped or ""),
            topic.reason,
        )
        for each in topic.partitions
    ]


def _lag(each: PartitionLag) -> int:
    if each.source_high_watermark < 0 or each.log_end_offset < 0:
        return -1
    return max(0, each.source_high_watermark - each.log_end_offset)


def _number(number: int) -> str:
    return "" if number < 0 else str(number)


def end_of(fork: Fork) -> str:
    return _number(fork.source_high_watermark)


def time_of(ms: int) -> str:
    return "never" if ms < 0 else f"{datetime.fromtimestamp(ms / 1_000).astimezone():%Y-%m-%d %H:%M:%S}"


def lost_at(fork: Fork) -> str:
    """Return how many offsets of the source were not copied."""
    if fork.source_high_watermark < 0:
        return "unknown"
    missing = max(0, fork.source_high_watermark - fork.offset)
    return "none" if missing == 0 else f"{missing} offsets"
