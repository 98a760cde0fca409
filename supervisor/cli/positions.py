"""Targets of `planaria group reset`: parse the typed target into offsets of partitions. Changes nothing itself."""

import re
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import typer
from msgspec import Struct, field

from ...transport.addresses import TopicPartition
from ...transport.times import past_ms
from .failures import CommandFailed
from .group_report import log_ends

if TYPE_CHECKING:
    from ...transport.client.client import Client


class AtOffset(Struct, frozen=True):
    offset: int


class AtTime(Struct, frozen=True):
    timestamp_ms: int


Target: TypeAlias = Literal["earliest", "latest"] | AtOffset | AtTime


class Move(Struct, kw_only=True):
    topic: str
    partition: int
    before: int | None = field(name="from")
    """None when no offset was committed."""
    after: int = field(name="to")


def parse_target(text: str, now_ms: int) -> Target:
    """Parse the target of a reset. Raises BadParameter."""
    if text in {"earliest", "latest"}:
        return cast("Literal['earliest', 'latest']", text)
    if re.fullmatch(r"[0-9]+", text):
        return AtOffset(int(text))
    at_ms = past_ms(text, now_ms)
    if at_ms is None:
        raise typer.BadParameter(
            f"{text!r} is neither earliest, latest, an offset, nor a time like 2026-01-31T12:00, yesterday or 24h",
            param_hint="--to",
        )
    return AtTime(at_ms)


def moves_to(
    client: "Client",
    group: str,
    target: Target,
    topic: str | None,
    partition: int | None,
    *,
    is_forced: bool = False,
) -> list[Move]:
    """Return one move per selected partition.

    Raises CommandFailed if there is none, if one is offline, or if an offset is outside its log and `is_forced` is false.
    """
    committed = {
        (entry.topic, entry.partition): entry.offset for entry in client.describe_group(group).offsets
    }
    if topic is not None:
        client.describe_topic(topic)  # fails if the topic does not exist
    topics = [topic] if topic is not None else sorted({name for name, _ in committed})
    if not topics:
        raise CommandFailed(f"group {group} has no offsets yet: name a topic with --topic")
    ends = log_ends(client, topics)
    tps = [tp for tp in sorted(ends) if partition is None or tp[1] == partition]
    missing = sorted({tp for tp in committed if tp[0] in topics} - ends.keys())
    wanted = [tp for tp in missing if partition is None or tp[1] == partition]
    if wanted or not tps:
        where = "/".join(map(str, wanted[0])) if wanted else f"{'/'.join(topics)}/{partition or 0}"
        raise CommandFailed(
            f'partition {where} is not online or does not exist: "planaria topic describe" says more'
        )
    if isinstance(target, AtOffset) and not is_forced:
        _refuse_outside(target.offset, tps, ends)
    return [
        Move(topic=name, partition=number, before=committed.get((name, number)), after=after)
        for (name, number), after in _offsets(client, target, tps, ends).items()
    ]


def _refuse_outside(
    offset: int, tps: list[TopicPartition], ends: dict[TopicPartition, tuple[int, int]]
) -> None:
    for tp in tps:
        first, end = ends[tp]
        if not first <= offset <= end:
            raise CommandFailed(
                f"offset {offset} is outside {tp[0]}/{tp[1]}, which has {first} to {end}: --force uses the nearest"
                " offset; write a date as 2026-11-28, epoch milliseconds with the suffix ms"
            )


def _offsets(
    client: "Client",
    target: Target,
    tps: list[TopicPartition],
    ends: dict[TopicPartition, tuple[int, int]],
) -> dict[TopicPartition, int]:
    match target:
        case "earliest":
            return {tp: ends[tp][0] for tp in tps}
        case "latest":
            return {tp: ends[tp][1] for tp in tps}
        case AtOffset(offset=offset):
            return {tp: min(max(offset, ends[tp][0]), ends[tp][1]) for tp in tps}
        case AtTime(timestamp_ms=timestamp_ms):
            return {tp: _offset_at(client, tp, timestamp_ms, ends[tp][1]) for tp in tps}


def _offset_at(client: "Client", tp: TopicPartition, timestamp_ms: int, end: int) -> int:
    found = client.list_offsets(*tp, timestamp_ms)
    return end if found is None else found.offset
