"""The rules for names of topics and groups. Pure."""

from ...transport.addresses import INTERNAL_PREFIX, is_internal
from ...transport.patterns import name_fault
from ...transport.protocol.errors import ErrorCode, ProtocolError


def check_topic_name(topic: str) -> None:
    """Raises ProtocolError when clients may not create a topic of this name."""
    fault = name_fault(topic)
    if fault is not None:
        raise ProtocolError(ErrorCode.INVALID_TOPIC, f"topic: {fault}")
    if is_internal(topic):
        raise ProtocolError(
            ErrorCode.INVALID_TOPIC, f"topic: names that begin with {INTERNAL_PREFIX} are internal"
        )


def check_group_name(group: str) -> None:
    """Raises ProtocolError when no group may have this name."""
    fault = name_fault(group)
    if fault is not None:
        raise ProtocolError(ErrorCode.INVALID_GROUP, f"group: {fault}")
