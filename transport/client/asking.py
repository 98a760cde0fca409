"""Requests between the machines of a client: Ask, and the events and effects around it. Pure.

A machine of the client (producer, consumer) sends a request with an Ask and receives exactly one Answered or
Failed with its key. The exchange (`exchange.py`) guarantees this: it finds the peer, retries, and gives up.
"""

from typing import Any, Protocol

from msgspec import Struct

from ..addresses import partition_address
from ..machine import Answered, CancelTimer, Effect, Event, Failed, Payload, SetTimer, TimerFired
from ..protocol.message import Reply, Request

GATEWAY = "gateway"
"""The address of the public endpoint."""


class Receipt(Struct):
    """Kept by the exchange for the owner of a request: the number of attempts that may have reached the peer."""

    sends: int = 0
    """Attempts that were passed to the socket and not returned by it."""
    is_kept: bool = False

    @property
    def is_unsent(self) -> bool:
        """Return True if it is certain that no attempt has left."""
        return self.is_kept and self.sends == 0


class Ask(Struct, frozen=True, gc=False):
    """Send `request` to `address`; exactly one Answered or Failed with `key` follows within `timeout_ms`.

    With `is_retried` a retriable refusal or a lost connection is retried until then: only for idempotent requests.
    After `retry_timeout_ms` no further attempt begins: the request fails as soon as none is in flight.
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
    """Endpoint that a client on the broker's machine may use directly, without the gateway."""


class Owner(Protocol):
    """The sender of a request: a machine of the client, or a waiting user thread."""

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
