"""What the machines of a client say to each other: asks, and the events and effects around them. Pure.

Every machine of a client (producer, consumer) asks by an Ask and hears exactly one Answered or Failed with its key. The
exchange (`exchange.py`) is the machine that keeps this promise: it finds the peer, retries, and gives up.
"""

from typing import Any, Protocol

from msgspec import Struct

from ..addresses import partition_address
from ..machine import Answered, CancelTimer, Effect, Event, Failed, Payload, SetTimer, TimerFired
from ..protocol.message import Reply, Request

GATEWAY = "gateway"
"""The address of the public endpoint."""


class Receipt(Struct):
    """Kept by the exchange for whoever asks: whether the request may have reached anybody."""

    sends: int = 0
    """Attempts that were handed to the socket and not handed back by it."""
    is_kept: bool = False

    @property
    def is_unsent(self) -> bool:
        """Whether it is certain that no attempt has left."""
        return self.is_kept and self.sends == 0


class Ask(Struct, frozen=True, gc=False):
    """Send `request` to `address`; exactly one Answered or Failed with `key` follows within `timeout_ms`.

    With `is_retried` a retriable refusal or a lost connection is retried until then: only for what may be done twice.
    After `retry_timeout_ms` no further attempt begins: it fails as soon as none is under way.
    """

    key: Any
    address: str
    request: Request
    reply_type: type[Reply]
    payload: Payload = ()
    timeout_ms: int = 30_000
    retry_timeout_ms: int | None = None
    receipt: "Receipt | None" = None
    is_retried: bool = True
    has_reply: bool = True
    endpoint: str | None = None
    """Where a client on the broker's machine may ask as well, without the way through the gateway."""


class Owner(Protocol):
    """Whoever asks: a machine of the client, or a user's thread that waits."""

    def handle(self, event: Event, now: int) -> list[Effect]: ...


__all__ = [
    "GATEWAY",
    "Answered",
    "Ask",
    "CancelTimer",
    "Effect",
    "Event",
    "Failed",
    "Owner",
    "Payload",
    "Receipt",
    "SetTimer",
    "TimerFired",
    "partition_address",
]
