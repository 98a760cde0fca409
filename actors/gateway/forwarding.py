"""Passing requests on as they came: header and payload are not decoded again, nor is the answer. Pure."""

from typing import Any

import msgspec

from ...transport.machine import Call, Effect
from ...transport.protocol.data import Fetch
from ...transport.protocol.groups import GroupHeartbeat
from ...transport.protocol.message import Reply
from ...transport.protocol.shares import Acquire
from .waiting import Attempt

CANCELLED = (Fetch, GroupHeartbeat, Acquire)
"""What may wait at another actor, which is told when the asker is gone."""

CALL_TIMEOUT_MS = 10_000
"""For an answer, beyond what the request itself allows to wait."""


def forward(attempt: Attempt, address: str, timeout_ms: int) -> Effect:
    """The answer comes back raw under ("forward", ticket number), in the asker's encoding and with the asker's id."""
    event = attempt.event
    token = attempt.number if isinstance(event.request, CANCELLED) else None
    return Call(
        ("forward", attempt.number),
        address,
        event.raw,
        payload=event.payload,
        timeout_ms=timeout_ms,
        token=token,
    )


def ask_for(attempt: Attempt, address: str, request: Any, reply_type: type[Reply], timeout_ms: int) -> Effect:
    """Ask in the gateway's own words; the answer is encoded for the asker."""
    anonymous = msgspec.structs.replace(request, id=None)
    return Call(("forward", attempt.number), address, anonymous, reply_type, timeout_ms=timeout_ms)
