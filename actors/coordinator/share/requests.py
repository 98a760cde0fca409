"""Checks of requests that depend on a share group alone. Pure; called by serving.py."""

from ....transport.addresses import is_internal
from ....transport.protocol.errors import ErrorCode, ProtocolError
from ....transport.protocol.shares import Acquire


def check_topics(request: Acquire, dead_letter: str | None) -> None:
    """Raise ProtocolError for topics that the group cannot consume."""
    for topic in request.topics:
        if is_internal(topic):
            raise ProtocolError(ErrorCode.INVALID_TOPIC, f"topics: {topic!r} is the broker's own")
        if topic == dead_letter:
            message = f"topics: {topic!r} is the group's own dead-letter topic"
            raise ProtocolError(ErrorCode.INVALID_REQUEST, message)
