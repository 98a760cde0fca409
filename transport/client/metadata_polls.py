"""The requests of a client's directory for `metadata`: of all topics in use together, or of one topic alone. Pure.

The broker refuses a request that names a topic on which the client has no right, whatever else it names. Then each topic
is asked for alone, and those without a right are no longer in use: their calls are refused, for REFRESH_MS without
another request, because a right may have been granted. Called by broker_directory.py.
"""

from itertools import count

from ..addresses import GATEWAY
from ..calls.directory import Ask
from ..machine import Call, Effect
from ..protocol.errors import ErrorBody
from ..protocol.session import Metadata, MetadataReply
from .gateway_link import GatewayLink

LONG_POLL_MS = 20_000
POLL_GRACE_MS = 5_000
REFRESH_MS = 1_000
"""Maximum age of the metadata of the topics in use. A topic that grew is noticed within this time."""
_METADATA = "metadata"


class MetadataPolls:
    def __init__(self, link: GatewayLink) -> None:
        self._link = link
        self._interest: dict[str, None] = {}
        self.groups: dict[str, None] = {}
        """Groups whose coordinators are called."""
        self._numbers = count(1)
        self._in_flight: dict[int, str | None] = {}
        """Requests by number: each asks for this topic alone, or for all topics in use."""
        self._forbidden: dict[str, tuple[int, ErrorBody]] = {}
        """Topics without a right: the time until which they are not asked for, and the refusal."""

    @property
    def are_in_flight(self) -> bool:
        return bool(self._in_flight)

    def refusal(self, topic: str, now: int) -> ErrorBody | None:
        until, error = self._forbidden.get(topic, (0, None))
        return error if now < until else None

    def want(self, topic: str) -> list[Effect]:
        if topic in self._interest:
            return []
        self._interest[topic] = None
        return self.ask()

    def ask(self, after_version: int | None = None) -> list[Effect]:
        """Request the endpoints of the topics of interest; with `after_version`, as a long poll for a later version."""
        if not (self._interest or self.groups) or self._are_alone:
            return []  # without those that turn out to be forbidden the next request is not refused
        return self._ask(None, list(self._interest), after_version)

    def ask_for_each(self) -> list[Effect]:
        if self._are_alone:
            return []
        return [effect for topic in self._interest for effect in self._ask(topic, [topic])]

    def answered(self, number: int) -> bool:
        """Note an answer; return True if it is that of all topics in use."""
        return self._in_flight.pop(number, None) is None

    def has_failed(self, number: int) -> bool:
        """Note a failure; return False if the request is no longer known."""
        return self._in_flight.pop(number, self) is not self

    def topic_of(self, number: int) -> str | None:
        """Return the one topic that a request asks for; None if it asks for all."""
        return self._in_flight.get(number)

    def forbidden(self, number: int, topic: str, error: ErrorBody, now: int) -> list[Effect]:
        """Note that the client has no right on the one topic of a request."""
        del self._in_flight[number]
        self._interest.pop(topic, None)
        self._forbidden[topic] = (now + REFRESH_MS, error)
        return self.ask()

    def clear(self) -> None:
        """Forget the requests in flight: their connection is lost."""
        self._in_flight.clear()

    @property
    def _are_alone(self) -> bool:
        return any(self._in_flight.values())

    def _ask(self, alone: str | None, topics: list[str], after_version: int | None = None) -> list[Effect]:
        gateway, session = self._link.connection, self._link.session
        if gateway is None or session is None:
            return []
        wait_ms = min(LONG_POLL_MS, session.max_wait_ms) if after_version is not None else 0
        number = next(self._numbers)
        self._in_flight[number] = alone
        request = Metadata(
            topics=topics,
            groups=list(self.groups),
            after_version=after_version,
            max_wait_ms=wait_ms,
        )
        call = Call((_METADATA, number), GATEWAY, request, MetadataReply, timeout_ms=wait_ms + POLL_GRACE_MS)
        return [Ask(gateway, call)]
