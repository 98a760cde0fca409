"""Forwarding of requests unchanged: neither header and payload nor the answer are decoded again. Pure."""

from typing import Any

import msgspec

from ...transport.machine import Call, Effect
from ...transport.protocol.data import Fetch
from ...transport.protocol.groups import GroupHeartbeat
from ...transport.protocol.message import Reply
from ...transport.protocol.shares import Acquire
from .waiting import Attempt

CANCELLED = (Fetch, GroupHeartbeat, Acquire)
"""Requests that may wait at another actor, which is notified when the requester is gone."""

CALL_TIMEOUT_MS = 10_000
"""The time for an answer beyond the waiting time of the request itself."""


def forward(attempt: Attempt, address: str, timeout_ms: int) -> Effect:
    """Forward a request; the raw answer, with the key ("forward", ticket number), has the requester's encoding and
    id.
    """
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
    """Send a request of the gateway's own; the answer is encoded for the requester."""
    anonymous = msgspec.structs.replace(request, id=None)
    return Call(("forward", attempt.number), address, anonymous, reply_type, timeout_ms=timeout_ms)
