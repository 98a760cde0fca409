"""Two sites, each one broker or a cluster, and the mirrors between them, as an operator sees and orders them."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from planaria import Client
from planaria.transport.protocol.errors import PlanariaError
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.mirrors import (
    ChangeMirror,
    CreateMirror,
    ListMirrors,
    ListMirrorsReply,
    MirroredTopic,
    MirrorReport,
    MirrorSpec,
    PromotedTopic,
    PromoteMirror,
    PromoteMirrorReply,
)
from planaria.transport.protocol.topics import DescribeTopicReply


class LinkedSites:
    """`here` copies topics of `source`, whose endpoints are `endpoints`."""

    def __init__(self, source: Client, here: Client, endpoints: str) -> None:
        self.source = source
        self.here = here
        self.endpoints = endpoints

    def mirror(self, name: str, *topics: str, **options: Any) -> None:
        spec = MirrorSpec(source=self.endpoints, topics=topics, **options)
        self.here._ask(CreateMirror(mirror=name, spec=spec), Done)

    def change(self, name: str, action: Any) -> None:
        self.here._ask(ChangeMirror(mirror=name, action=action), Done)

    def promote(self, name: str, *topics: str) -> list[PromotedTopic]:
        request = PromoteMirror(mirror=name, topics=list(topics) or None)
        return self.here._ask(request, PromoteMirrorReply).topics

    def is_caught_up(self, topic: str) -> Callable[[], bool]:
        def looks_equal() -> bool:
            found = high_watermarks(self.source, topic)
            return None not in found and found == high_watermarks(self.here, topic) != []

        return looks_equal


def report(client: Client, name: str) -> MirrorReport:
    reports = client._ask(ListMirrors(), ListMirrorsReply).mirrors
    return next(report for report in reports if report.mirror == name)


def mirrored(client: Client, name: str, topic: str) -> MirroredTopic | None:
    return next((each for each in report(client, name).topics if each.topic == topic), None)


def described(client: Client, topic: str) -> DescribeTopicReply | None:
    with suppress(PlanariaError):
        return client.describe_topic(topic)
    return None


def high_watermarks(client: Client, topic: str) -> list[int | None]:
    found = described(client, topic)
    return [] if found is None else [each.high_watermark for each in found.partitions]


def contents(client: Client, topic: str) -> list[tuple[Any, ...]]:
    """Return every record of a topic, with its place and its bytes, in the order of partitions and offsets."""
    return sorted(
        (each.partition, each.offset, each.timestamp, each.key, bytes(each.value or b""))
        for each in client.read(topic)
    )
