"""Events and effects of the TLS door, beside those of every actor. Structs only.

A guest is a connection to the door, by a number that is never used twice.
"""

from typing import TypeAlias

from msgspec import Struct

from ...transport.machine import LoopEffect, LoopEvent
from ...transport.security.vouchers import Voucher


class Started(Struct, frozen=True):
    """The door listens."""


class Arrived(Struct, frozen=True):
    """A connection has been accepted."""

    guest: int
    host: str


class Secured(Struct, frozen=True):
    """Its TLS handshake is complete."""

    guest: int
    principal: str
    """Name in its certificate; empty without one."""
    expires_ms: int
    number: bytes
    """A random number for its voucher."""


class Opened(Struct, frozen=True):
    """Its greeting has been passed on to the gateway."""

    guest: int


class Ended(Struct, frozen=True):
    """It was closed by one of the sides, or refused for its first bytes."""

    guest: int


class Begin(Struct, frozen=True):
    """Begin the TLS handshake."""

    guest: int


class Join(Struct, frozen=True):
    """Connect to the gateway, and relay."""

    guest: int
    gateway: int
    """Incarnation of the gateway."""
    voucher: Voucher


class Drop(Struct, frozen=True):
    """Close the connection."""

    guest: int


class CheckCertificate(Struct, frozen=True):
    """Read the certificate again if its files have changed."""


class StopListening(Struct, frozen=True):
    """Accept no more connections."""


OwnEvent: TypeAlias = Started | Arrived | Secured | Opened | Ended
OwnEffect: TypeAlias = Begin | Join | Drop | CheckCertificate | StopListening
Event: TypeAlias = LoopEvent | OwnEvent
Effect: TypeAlias = LoopEffect | OwnEffect
