"""Which names topics and groups may have. Pure: names become directory names and parts of addresses."""

import re

from ...transport.addresses import INTERNAL_PREFIX, is_internal
from ...transport.protocol.errors import ErrorCode, ProtocolError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_RULE = "1 to 200 of the characters A-Z a-z 0-9 . _ - and neither '.' nor '..'"


def check_topic_name(topic: str) -> None:
    """Raises ProtocolError when clients may not create a topic of this name."""
    if not _is_name(topic):
        raise ProtocolError(ErrorCode.INVALID_TOPIC, f"topic: {topic[:250]!r} is no name: {_RULE}")
    if is_internal(topic):
        raise ProtocolError(
            ErrorCode.INVALID_TOPIC, f"topic: names that begin with {INTERNAL_PREFIX} are internal"
        )


def check_group_name(group: str) -> None:
    """Raises ProtocolError when no group may have this name."""
    if not _is_name(group):
        raise ProtocolError(ErrorCode.INVALID_GROUP, f"group: {group[:250]!r} is no name: {_RULE}")


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name not in (".", "..")
