"""Two brokers with mirrors between them, for the tests of real processes."""

from collections.abc import Callable
from typing import Any

from planaria import Broker, Client
from planaria.transport.protocol.errors import ProtocolError
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

SETTINGS: dict[str, Any] = {
    "hang_timeout_ms": 20_000,
    "heartbeat_interval_ms": 200,
    "restart_intensity": 1_000_000,
    "backoff_reset_ms": 1,
}


class Sites:
    def __init__(self, source: Broker, here: Broker) -> None:
        self.brokers = (source, here)
        self.source = source.client
        self.here = here.client
        self.endpoint = source.endpoint

    def mirror(self, name: str, *topics: str, **options: Any) -> None:
        spec = MirrorSpec(source=self.endpoint, topics=topics, **options)
        self.here._ask(CreateMirror(mirror=name, spec=spec), Done)

    def report(self, name: str) -> MirrorReport:
        reports = self.here._ask(ListMirrors(), ListMirrorsReply).mirrors
        return next(report for report in reports if report.mirror == name)

    def topic(self, name: str, topic: str) -> MirroredTopic | None:
        return next((each for each in self.report(name).topics if each.topic == topic), None)

    def reason(self, name: str, topic: str) -> str:
        found = self.topic(name, topic)
        return "" if found is None else found.reason

    def change(self, name: str, action: Any) -> None:
        self.here._ask(ChangeMirror(mirror=name, action=action), Done)

    @property
    def reversed(self) -> "Sites":
        return Sites(*reversed(self.brokers))

    def promote(self, name: str, *topics: str) -> list[PromotedTopic]:
        request = PromoteMirror(mirror=name, topics=list(topics) or None)
        return self.here._ask(request, PromoteMirrorReply).topics


def ends(client: Client | Any, topic: str) -> list[int | None]:
    try:
        return [each.high_watermark for each in client.describe_topic(topic).partitions]
    except ProtocolError:
        return []


def records(client: Any, topic: str) -> list[tuple[Any, ...]]:
    return sorted(
        (each.partition, each.offset, each.timestamp, each.key, each.data) for each in client.read(topic)
    )


def fill(client: Any, topic: str, count: int, partitions: int = 1) -> None:
    client.create_topic(topic, partitions=partitions, if_not_exists=True)
    with client.producer() as producer:
        for number in range(count):
            producer.publish(topic, number, key=str(number))


def caught_up(sites: Sites, topic: str) -> Callable[[], bool]:
    return lambda: ends(sites.here, topic) == ends(sites.source, topic) != []
