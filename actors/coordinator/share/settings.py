"""The settings of a share group, whose first request makes it one. Pure.

Owns the decided settings. A group never changes its kind: the first request that needs a kind decides, the others are
refused INVALID_GROUP. Called by group.py, which records changed settings.
"""

from collections.abc import Callable

from msgspec.structs import replace

from ....transport.addresses import is_internal
from ....transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ....transport.protocol.shares import Acquire, ConfigureShareGroup, Expired
from .fair_queue import KeyRules
from .partitions import SharePartitions
from .records import ShareSettings

PLAIN = (
    "lock_ms",
    "max_deliveries",
    "start",
    "fair",
    "max_in_flight_per_key",
    "rate_per_key",
    "weights",
    "coalesce",
    "max_wait_ms",
    "expired",
)
"""Settings that take the value of the request as it is."""


class GroupSettings:
    def __init__(
        self,
        group: str,
        settings: ShareSettings | None,
        partitions: SharePartitions,
        why_not: Callable[[], str | None],
    ) -> None:
        """`why_not` returns the reason why the group cannot become a share group, if any."""
        self._group = group
        self._settings = settings
        self._partitions = partitions
        self._applied: tuple[KeyRules | None, Expired] = (None, "deliver")
        self._why_not = why_not
        self.is_changed = False
        self._apply()

    @property
    def is_share(self) -> bool:
        return self._settings is not None

    @property
    def current(self) -> ShareSettings:
        assert self._settings is not None, "the group is a share group"
        return self._settings

    @property
    def dead_letter(self) -> str | None:
        return self._settings.dead_letter if self._settings is not None else None

    def take(self) -> ShareSettings | None:
        """Return the settings to record now, if they have changed."""
        is_changed, self.is_changed = self.is_changed, False
        return self._settings if is_changed else None

    def become_share(self) -> None:
        """Make the group a share group. Raises ProtocolError if it is of the other kind."""
        if self._settings is not None:
            return
        reason = self._why_not()
        if reason is not None:
            raise ProtocolError(ErrorCode.INVALID_GROUP, reason)
        self._settings, self.is_changed = ShareSettings(), True

    def configure(self, request: ConfigureShareGroup) -> ShareSettings:
        """Change the settings that the request names. Raises ProtocolError."""
        if request.dead_letter:
            self._check_dead_letter(request.dead_letter)
        self.become_share()
        given = {name: value for name in PLAIN if (value := getattr(request, name)) is not None}
        if request.dead_letter is not None:
            given["dead_letter"] = request.dead_letter or None
        self._settings, self.is_changed = replace(self.current, **given), True
        self._apply()
        return self._settings

    def _apply(self) -> None:
        """Let the partitions follow the settings, if those about keys have changed."""
        rules = self._settings.rules if self._settings is not None else None
        expired = self._settings.expired if self._settings is not None else "deliver"
        if (rules, expired) != self._applied:
            self._applied = (rules, expired)
            self._partitions.use_keys(rules, expired)

    def _check_dead_letter(self, topic: str) -> None:
        if is_internal(topic):
            raise ProtocolError(ErrorCode.INVALID_TOPIC, f"dead_letter: {topic!r} is an internal topic")
        if any(topic == consumed for (consumed, _), _ in self._partitions.items()):
            message = f"dead_letter: {topic!r} is a topic that the group consumes"
            raise ProtocolError(ErrorCode.INVALID_REQUEST, message)
        if self._partitions.topics is None:
            raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, "the group does not know the topics yet")
        if topic not in self._partitions.topics:
            raise ProtocolError(ErrorCode.UNKNOWN_TOPIC, f"dead_letter: there is no topic {topic[:250]!r}")

    def check_topics(self, request: Acquire) -> None:
        """Raise ProtocolError for topics that the group cannot consume."""
        for topic in request.topics:
            if is_internal(topic):
                raise ProtocolError(ErrorCode.INVALID_TOPIC, f"topics: {topic!r} is an internal topic")
            if topic == self.dead_letter:
                message = f"topics: {topic!r} is the group's own dead-letter topic"
                raise ProtocolError(ErrorCode.INVALID_REQUEST, message)

    def refusal(self) -> ErrorBody:
        """Return the refusal of a consumer's request to a share group."""
        message = (
            f"{self._group!r} is a share group: its members acquire and acknowledge, and hold no partitions"
        )
        return ErrorBody(ErrorCode.INVALID_GROUP, message)

    def forget(self) -> None:
        self._settings, self.is_changed = None, False
