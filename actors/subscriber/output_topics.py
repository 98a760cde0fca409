"""Missing output topics: which messages are refused at once, and which alarms are raised. Pure.

Finding out that a topic does not exist takes the client's timeout of a second, because it may have been created a
moment ago. That wait occurs once: from then on a message for the topic is refused at once, until the client's
directory, which is refreshed every second, has the topic. The clock and the directory are parameters; called by the
workers' threads, and with each heartbeat by the loop.
"""

from collections.abc import Callable

from ...transport.client.errors import UnknownTopic
from ...transport.publication import Publication

ALARM_S = 300.0
"""Time after which a missing topic without further messages is no longer an alarm."""

Check = Callable[[Publication], None]


class OutputTopics:
    def __init__(
        self, check: Check, partitions_of: Callable[[str], int | None], now_s: Callable[[], float]
    ) -> None:
        """`check` raises the error a message would be refused with; `partitions_of` looks it up in the directory."""
        self._check = check
        self._partitions_of = partitions_of
        self._now_s = now_s
        self._missing: dict[str, float] = {}
        """Missing topics, and the time at which a message for each was last refused."""

    def check(self, message: Publication) -> None:
        """Raise the error the message would be refused with."""
        topic = message.topic
        if self._missing and topic in self._missing and self._partitions_of(topic) is None:
            self._missing[topic] = self._now_s()
            raise UnknownTopic(topic)
        try:
            self._check(message)
        except UnknownTopic:
            self._missing[topic] = self._now_s()
            raise

    def alarms(self) -> tuple[str, ...]:
        """Return an alarm for each missing topic, until it exists or no handler publishes to it any more."""
        for topic, refused_s in list(self._missing.items()):
            if self._partitions_of(topic) is not None or self._now_s() - refused_s > ALARM_S:
                self._missing.pop(topic, None)
        return tuple(f"output topic {topic!r} does not exist" for topic in sorted(self._missing))
