"""`planaria lag`: the records that groups have not read, in messages and in seconds."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct
from rich.live import Live

from ...transport.addresses import TopicPartition
from ...transport.client.descriptions import GroupDescription
from ...transport.protocol.data import Fetch, FetchReply
from ...transport.protocol.errors import ErrorCode, ProtocolError
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .group_report import entries_of, log_ends
from .output import UNKNOWN, console, duration_text, error_console, number_text, plural, print_json, show
from .tables import Listing

if TYPE_CHECKING:
    from ...transport.client.client import Client

ASKED_AT_ONCE = 16
TRIES = 20
"""Fetches that may find nothing but aborted records before the age is unknown."""
TREND_POINTS = 24
_LEVELS = "▁▂▃▄▅▆▇█"


class PartitionLag(Struct, kw_only=True):
    topic: str
    partition: int
    position: int | None
    """First offset that is not read; None if the partition is offline, or its topic is gone."""
    log_end_offset: int | None
    lag: int | None
    oldest_ms: int | None = None
    """Age of the first unread record; None if there is none, or it is unknown."""


class GroupLag(Struct, kw_only=True):
    group: str
    type: str | None
    """None for a group that is asleep."""
    state: str | None
    lag: int | None = None
    """Sum of the known ones; None if none is known."""
    oldest_ms: int | None = None
    partitions: list[PartitionLag] = []


def lag(
    group: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="GROUP", help="Only this group, by partition; repeatable."),
    ] = None,
    is_waking: Annotated[
        bool, typer.Option("--asleep", help="Include groups that are asleep, and wake them.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until Ctrl-C, with a trend.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, metavar="SECONDS", help="Time between two refreshes.")
    ] = 2.0,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Show how far groups are behind: unread messages, and the age of the oldest one.

    Offsets that transactions and compaction left without a message count as
    messages. The age is the time since the timestamp of the record.

    --json: {"groups": [{"group", "type", "state", "lag", "oldest_ms",
    "partitions": [{"topic", "partition", "position", "log_end_offset",
    "lag", "oldest_ms"}]}]}; null is unknown, or nothing unread; with
    --watch one object a line
    """
    with attached(connect) as client:

        def look() -> list[GroupLag]:
            return lags_of(client, group, is_waking=is_waking)

        if not watch:
            found = look()
            if as_json:
                print_json({"groups": found})
                return
            show(_by_partition(found) if group else _by_group(found))
            _mention_sleepers(found)
        elif as_json or not console().is_terminal:
            for found in _repeated(look, interval):
                if as_json:
                    print_json({"groups": found}, is_compact=True)
                else:
                    show(_by_group(found))
        else:
            _watch(look, interval)


def _repeated(look: Callable[[], list[GroupLag]], interval: float) -> Iterator[list[GroupLag]]:
    while True:
        yield look()
        time.sleep(interval)


def _watch(look: Callable[[], list[GroupLag]], interval: float) -> None:
    history: dict[str, deque[int]] = {}
    with Live(console=console(), auto_refresh=False) as live:
        for found in _repeated(look, interval):
            for each in found:
                points = history.setdefault(each.group, deque(maxlen=TREND_POINTS))
                points.append(each.lag or 0)
            live.update(_by_group(found, history), refresh=True)


def lags_of(client: "Client", groups: Sequence[str] | None, *, is_waking: bool) -> list[GroupLag]:
    """Return the lag of the named groups, or of all that are awake. Raises UnknownGroup for a named one."""
    asleep: list[GroupLag] = []
    is_named = groups is not None
    if groups is None:
        entries = entries_of(client)
        if not is_waking:
            asleep = [
                GroupLag(group=each.group, type=None, state=each.state) for each in entries if not each.type
            ]
        groups = [each.group for each in entries if each.type or is_waking]
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        described = [
            each for each in pool.map(lambda name: _described(client, name, is_named), groups) if each
        ]
        topics = sorted({topic for each in described for topic, _ in _positions(each)})
        ends: dict[TopicPartition, tuple[int, int]] = {}
        for some in pool.map(lambda topic: log_ends(client, [topic]), topics):
            ends |= some
        found = [lag_of(each, ends) for each in described]
        behind = [row for each in found for row in each.partitions if row.lag]
        now_ms = int(time.time() * 1000)
        for row, at_ms in zip(
            behind, pool.map(lambda row: _first_timestamp(client, row), behind), strict=True
        ):
            row.oldest_ms = None if at_ms is None else max(0, now_ms - at_ms)
    for each in found:
        each.oldest_ms = max(
            (row.oldest_ms for row in each.partitions if row.oldest_ms is not None), default=None
        )
    return sorted([*found, *asleep], key=lambda each: each.group)


def _described(client: "Client", group: str, is_named: bool) -> GroupDescription | None:
    try:
        return client.describe_group(group)
    except ProtocolError as error:
        if error.code == ErrorCode.UNKNOWN_GROUP and not is_named:
            return None  # deleted meanwhile
        raise


def lag_of(found: GroupDescription, ends: dict[TopicPartition, tuple[int, int]]) -> GroupLag:
    """Compute a group's lag from its description and the ends of the logs."""
    rows = []
    for (topic, partition), (position, done) in sorted(_positions(found).items()):
        start, end = ends.get(TopicPartition(topic, partition), (None, None))
        is_known = start is not None and end is not None
        read = max(position, start) if start is not None else None
        rows.append(
            PartitionLag(
                topic=topic,
                partition=partition,
                position=read,
                log_end_offset=end,
                lag=max(0, end - read - done) if is_known and end is not None and read is not None else None,
            )
        )
    known = [row.lag for row in rows if row.lag is not None]
    total = sum(known) if known or not rows else None
    return GroupLag(group=found.group, type=found.type, state=found.state, lag=total, partitions=rows)


def _positions(found: GroupDescription) -> dict[TopicPartition, tuple[int, int]]:
    """Return the first unread offset of each partition, and the number of records after it that are done."""
    if found.share is not None:
        return {
            TopicPartition(each.topic, each.partition): (
                each.start_offset,
                each.next_offset - each.start_offset - each.acquired - each.returned - each.dead,
            )
            for each in found.share.partitions
        }
    assigned = {
        TopicPartition(topic, partition): (0, 0)
        for member in found.members
        for topic, partitions in member.assignment.items()
        for partition in partitions
    }
    return assigned | {each.topic_partition: (each.offset, 0) for each in found.offsets}


def _first_timestamp(client: "Client", row: PartitionLag) -> int | None:
    """Return the timestamp of the first unread record; None if it cannot be read now."""
    assert row.position is not None
    assert row.log_end_offset is not None
    offset = row.position
    for _ in range(TRIES):
        request = Fetch(
            topic=row.topic,
            partition=row.partition,
            offset=offset,
            max_bytes=1,
            max_records=1,
            format="records",
        )
        try:
            reply = client._ask_partition(row.topic, row.partition, request, FetchReply)
        except ProtocolError:
            return None
        if reply.records:
            return reply.records[0].timestamp_ms
        if reply.next_offset <= offset or reply.next_offset >= row.log_end_offset:
            return None
        offset = reply.next_offset
    return None


def trend_text(points: Iterable[int]) -> str:
    """Return a line of bars, of which the highest is the largest of the points."""
    points = list(points)
    top = max(points, default=0)
    return "".join(_LEVELS[0] if not top else _LEVELS[point * (len(_LEVELS) - 1) // top] for point in points)


def _age_text(oldest_ms: int | None) -> str:
    return UNKNOWN if oldest_ms is None else duration_text(oldest_ms)


def _by_group(found: list[GroupLag], history: dict[str, "deque[int]"] | None = None) -> Listing:
    columns = ["group", "type", "state", "lag", "oldest", *(["trend"] if history is not None else [])]
    made = Listing(*columns, numbers=["lag", "oldest"])
    for each in found:
        row = [each.group, each.type or UNKNOWN, each.state or UNKNOWN, number_text(each.lag)]
        row.append(_age_text(each.oldest_ms))
        if history is not None:
            row.append(trend_text(history[each.group]))
        made.add_row(*row)
    return made


def _by_partition(found: list[GroupLag]) -> Listing:
    numbers = ["partition", "position", "end", "lag", "oldest"]
    made = Listing("group", "topic", *numbers, numbers=numbers)
    for each in found:
        for row in each.partitions:
            figures = (row.position, row.log_end_offset, row.lag)
            made.add_row(
                each.group,
                row.topic,
                str(row.partition),
                *(number_text(figure) for figure in figures),
                _age_text(row.oldest_ms),
            )
    return made


def _mention_sleepers(found: list[GroupLag]) -> None:
    count = sum(each.state == "asleep" for each in found)
    if count:
        text = f"{plural(count, 'group')} asleep: --asleep wakes them"
        error_console().print(text, soft_wrap=True)
