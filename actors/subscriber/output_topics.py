"""The topics that handlers publish to, as far as they are missing: who is refused at once, and under which alarm. Pure.

Finding out that a topic does not exist takes the client's patience, a second, because it may have been created a moment
ago. That is paid once: from then on a message for the topic is refused at once, until the client's directory, which is
refreshed every second, has the topic. The clock and the directory are handed in; called by the workers' threads, and with
each heartbeat by the loop.
"""

from collections.abc import Callable

from ...transport.client.errors import UnknownTopic
from ...transport.context import Publication

ALARM_S = 300.0
"""How long a topic that nobody has published to since is still an alarm."""

Check = Callable[[Publication], None]


class OutputTopics:
    def __init__(
        self, check: Check, partitions_of: Callable[[str], int | None], now_s: Callable[[], float]
    ) -> None:
        """`check` raises what a message would be refused for; `partitions_of` is what the directory knows."""
        self._check = check
        self._partitions_of = partitions_of
        self._now_s = now_s
        self._missing: dict[str, float] = {}
        """Topics that did not exist, and when a message for them was refused last."""

    def check(self, message: Publication) -> None:
        """Raises what the message would be refused for."""
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
        """One for each missing topic, until it exists or nobody publishes to it any more."""
        for topic, refused_s in list(self._missing.items()):
            if self._partitions_of(topic) is not None or self._now_s() - refused_s > ALARM_S:
                self._missing.pop(topic, None)
        return tuple(f"output topic {topic!r} does not exist" for topic in sorted(self._missing))
