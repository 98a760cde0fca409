"""Answers of the pages of topics: the list, one topic, and its creation, change and deletion."""

from contextlib import suppress
from typing import Any

from msgspec import Struct, structs
from starlette.datastructures import QueryParams
from starlette.routing import Route

from ...transport.client.descriptions import TopicDescription
from ...transport.client.errors import UnknownTopic
from .answers import acts, reads
from .broker_link import BrokerLink
from .failures import Refused

MAX_DESCRIBED = 200
"""Topics whose sizes the list has; the others are named alone."""


class TopicBody(Struct, forbid_unknown_fields=True):
    topic: str
    partitions: int | None = None
    config: dict[str, Any] = {}


class DeleteBody(Struct, forbid_unknown_fields=True):
    topic: str
    typed: str
    """The name once more, as the user has typed it."""


class RecordsBody(Struct, forbid_unknown_fields=True):
    topic: str
    partition: int
    before_offset: int | None


def topics(link: BrokerLink, query: QueryParams) -> dict[str, Any]:
    found = link.client.list_topics(internal=query.get("internal") == "1")
    rows = []
    for position, each in enumerate(sorted(found, key=lambda summary: summary.topic)):
        row: dict[str, Any] = {"topic": each.topic, "partitions": each.partitions}
        if position < MAX_DESCRIBED:
            with suppress(UnknownTopic):
                row |= _figures(link.client.describe_topic(each.topic))
        rows.append(row)
    return {"topics": rows}


def topic(link: BrokerLink, query: QueryParams) -> dict[str, Any]:
    found = link.client.describe_topic(query.get("topic", ""))
    return structs.asdict(found) | _figures(found)


def _figures(found: TopicDescription) -> dict[str, Any]:
    parts = found.partitions
    return {
        "online": sum(each.online for each in parts),
        "size_bytes": sum(each.size_bytes or 0 for each in parts),
        "messages": sum((each.high_watermark or 0) - (each.log_start_offset or 0) for each in parts),
        "written": sum(each.high_watermark or 0 for each in parts),
        "cleanup": found.config.cleanup,
    }


def create(link: BrokerLink, body: TopicBody) -> None:
    link.client.create_topic(body.topic, body.partitions or 1, **body.config)


def alter(link: BrokerLink, body: TopicBody) -> None:
    link.client.alter_topic(body.topic, partitions=body.partitions, **body.config)


def delete(link: BrokerLink, body: DeleteBody) -> None:
    if body.typed != body.topic:
        raise Refused(400, "INVALID_REQUEST", "the typed name does not match")
    link.client.delete_topic(body.topic)


def delete_records(link: BrokerLink, body: RecordsBody) -> dict[str, int]:
    start = link.client.delete_records(body.topic, body.partition, body.before_offset)
    return {"log_start_offset": start}


ROUTES = [
    Route("/api/topics", reads(topics)),
    Route("/api/topic", reads(topic)),
    Route("/api/topic/create", acts(TopicBody, create), methods=["POST"]),
    Route("/api/topic/alter", acts(TopicBody, alter), methods=["POST"]),
    Route("/api/topic/delete", acts(DeleteBody, delete), methods=["POST"]),
    Route("/api/topic/delete-records", acts(RecordsBody, delete_records), methods=["POST"]),
]
