"""Two brokers with mirrors between them, for the tests of real processes."""

from collections.abc import Callable
from typing import Any

from planaria import Broker, Client, MirrorDescription, MirroredTopic, MirrorFork
from planaria.transport.protocol.errors import ProtocolError

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

    @property
    def reversed(self) -> "Sites":
        return Sites(*reversed(self.brokers))

    def mirror(self, name: str, *topics: str, **options: Any) -> None:
        self.here.create_mirror(name, topics, source=self.endpoint, **options)

    def report(self, name: str) -> MirrorDescription:
        return next(each for each in self.here.list_mirrors() if each.mirror == name)

    def topic(self, name: str, topic: str) -> MirroredTopic | None:
        return next((each for each in self.report(name).topics if each.topic == topic), None)

    def reason(self, name: str, topic: str) -> str:
        found = self.topic(name, topic)
        return "" if found is None else found.reason

    def promote(self, name: str, *topics: str) -> dict[str, list[MirrorFork]]:
        return self.here.promote_mirror(name, topics or None)


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
