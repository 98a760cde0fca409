"""Answers of the pages of groups and work queues: members, lag in messages and seconds, reset with preview, pause."""

from contextlib import suppress
from typing import Any, Literal

from msgspec import Struct, structs
from starlette.datastructures import QueryParams
from starlette.routing import Route

from ...transport.addresses import Address, TopicPartition
from ...transport.client.descriptions import GroupDescription
from ...transport.client.errors import UnknownGroup, UnknownTopic
from ...transport.protocol.errors import PlanariaError, ProtocolError
from .answers import acts, reads
from .broker_link import BrokerLink
from .failures import Refused

MAX_AGES = 8
"""Partitions of a group whose oldest unread message the list looks at: those with the most."""


class GroupBody(Struct, forbid_unknown_fields=True):
    group: str
    reason: str = ""
    typed: str = ""


class ResetBody(Struct, forbid_unknown_fields=True):
    group: str
    to: Literal["earliest", "latest", "offset", "time"]
    at: int = 0
    """The offset, or the time in milliseconds since the epoch."""
    topic: str | None = None
    partition: int | None = None
    is_preview: bool = True


class QueueBody(Struct, forbid_unknown_fields=True):
    group: str
    settings: dict[str, Any]


def groups(link: BrokerLink, _: QueryParams) -> dict[str, Any]:
    states: dict[str, str] = {}
    with suppress(ProtocolError):  # a user without the right to see processes sees groups all the same
        for actor in link.status().actors:
            address = Address.parse(actor.address)
            if address.kind == "coordinator":
                states[address.name] = actor.state
    rows = []
    for name in link.client.list_groups():
        if states.get(name) in ("asleep", "quarantined"):
            # A question would wake it.
            rows.append({"group": name, "type": None, "state": states[name], "members": None, "lag": None})
            continue
        with suppress(UnknownGroup):
            found = link.client.describe_group(name)
            rows.append(_summary(found, _lags(link, found, MAX_AGES)))
    return {"groups": rows}


def group(link: BrokerLink, query: QueryParams) -> dict[str, Any]:
    found = link.client.describe_group(query.get("group", ""))
    lags = _lags(link, found, 1_000)
    return structs.asdict(found) | _summary(found, lags) | {"members": found.members, "lags": lags}


def _summary(found: GroupDescription, lags: list[dict[str, Any]]) -> dict[str, Any]:
    ages = [each["oldest_ms"] for each in lags if each["oldest_ms"] is not None]
    return {
        "group": found.group,
        "type": found.type,
        "state": found.state,
        "members": len(found.members) if found.share is None else len(found.share.members),
        "lag": sum(each["lag"] or 0 for each in lags),
        "oldest_ms": min(ages) if ages else None,
        "paused": found.paused,
    }


def _lags(link: BrokerLink, found: GroupDescription, ages: int) -> list[dict[str, Any]]:
    """Return the lag of each partition; of at most `ages` also the timestamp of the first unread message."""
    positions: dict[TopicPartition, tuple[int, int]] = {}
    if found.share is not None:
        for part in found.share.partitions:
            done = part.next_offset - part.start_offset - part.acquired - part.returned - part.dead
            positions[TopicPartition(part.topic, part.partition)] = (part.start_offset, done)
    for each in found.offsets:
        positions[each.topic_partition] = (each.offset, 0)
    rows: list[dict[str, Any]] = []
    for topic in sorted({tp.topic for tp in positions}):
        with suppress(UnknownTopic):
            ends = {each.partition: each for each in link.client.describe_topic(topic).partitions}
            for tp, (position, done) in sorted(positions.items()):
                end = ends.get(tp.partition)
                if tp.topic == topic and end is not None:
                    start, high = end.log_start_offset, end.high_watermark
                    first = max(position, start or 0)
                    rows.append(
                        {
                            "topic": topic,
                            "partition": tp.partition,
                            "position": position,
                            "end": high,
                            "lag": None if high is None else max(0, high - first - done),
                            "oldest_ms": None,
                        }
                    )
    for row in sorted(rows, key=lambda row: row["lag"] or 0, reverse=True)[:ages]:
        if row["lag"]:
            row["oldest_ms"] = _first_timestamp(link, row)
    return rows


def _first_timestamp(link: BrokerLink, row: dict[str, Any]) -> int | None:
    partition = row["partition"]
    try:
        stream = link.client.read(row["topic"], since={partition: row["position"]}, partitions=[partition])
        message = next(stream, None)
        stream.close()
    except PlanariaError:
        return None
    return None if message is None else message.timestamp


def reset(link: BrokerLink, body: ResetBody) -> dict[str, Any]:
    """Set the offsets of a group; a preview answers with the same rows and sets none."""
    found = link.client.describe_group(body.group)
    rows: list[dict[str, Any]] = []
    for each in found.offsets:
        if body.topic not in (None, each.topic) or body.partition not in (None, each.partition):
            continue
        rows.append(
            {
                "topic": each.topic,
                "partition": each.partition,
                "from": each.offset,
                "to": _target(link, body, each.topic, each.partition),
            }
        )
    if not rows:
        raise Refused(400, "INVALID_REQUEST", "the group has no such offsets")
    if not body.is_preview:
        link.client.reset_offsets(
            body.group, {TopicPartition(row["topic"], row["partition"]): row["to"] for row in rows}
        )
    return {"offsets": rows, "is_done": not body.is_preview}


def _target(link: BrokerLink, body: ResetBody, topic: str, partition: int) -> int:
    first = link.client.list_offsets(topic, partition, "earliest").offset
    last = link.client.list_offsets(topic, partition).offset
    if body.to == "earliest":
        return first
    if body.to == "latest":
        return last
    if body.to == "offset":
        return min(max(body.at, first), last)
    found = link.client.list_offsets(topic, partition, body.at)
    return last if found is None else found.offset


def pause(link: BrokerLink, body: GroupBody) -> None:
    link.client.pause_group(body.group, reason=body.reason)


def resume(link: BrokerLink, body: GroupBody) -> None:
    link.client.resume_group(body.group)


def delete(link: BrokerLink, body: GroupBody) -> None:
    if body.typed != body.group:
        raise Refused(400, "INVALID_REQUEST", "the typed name does not match")
    link.client.delete_group(body.group)


def configure(link: BrokerLink, body: QueueBody) -> None:
    link.client.configure_share_group(body.group, **body.settings)


ROUTES = [
    Route("/api/groups", reads(groups)),
    Route("/api/group", reads(group)),
    Route("/api/group/reset", acts(ResetBody, reset), methods=["POST"]),
    Route("/api/group/pause", acts(GroupBody, pause), methods=["POST"]),
    Route("/api/group/resume", acts(GroupBody, resume), methods=["POST"]),
    Route("/api/group/delete", acts(GroupBody, delete), methods=["POST"]),
    Route("/api/group/configure", acts(QueueBody, configure), methods=["POST"]),
]
