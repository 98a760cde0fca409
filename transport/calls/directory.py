"""The interface of a directory: the exchange's knowledge of who can be reached where. Pure.

A directory answers `locate` for each attempt of a call. It changes by events (of the supervisor, or replies to its own
calls) and reports each change to the exchange with the effects below. It owns the connections, but not the calls on
them.
"""

from collections.abc import Mapping
from typing import Protocol, TypeAlias

from msgspec import Struct

from ..addresses import Address
from ..machine import Call, Effect, Event
from ..protocol.errors import ErrorBody
from ..protocol.message import Request
from .connections import Connection, Connections, InFlight

Held: TypeAlias = Mapping[Address, Mapping[int, InFlight]]
"""Calls that wait for their receiver: by its address, then by serial in the order in which they were made."""


class Release(Struct, frozen=True):
    """Attempt the held calls again: those to one address, or all."""

    address: Address | None = None


class Lost(Struct, frozen=True):
    """A connection is over. Its calls in flight are retried, or fail with `error`.

    With `is_unexecuted` the receiver has executed none of them: all are attempted again, repeatable or not. With an
    address only the calls to it are lost: others use the connection as well.
    """

    connection: Connection
    error: ErrorBody
    is_unexecuted: bool = False
    address: str | None = None


class Refused(Struct, frozen=True):
    """Held calls fail: one, those to an address, or all calls if neither is given."""

    error: ErrorBody
    serial: int | None = None
    address: Address | None = None


class Ask(Struct, frozen=True):
    """A call of the directory itself, on this connection. Its outcome is delivered to the directory."""

    connection: Connection
    call: Call


Location: TypeAlias = Connection | ErrorBody | None
"""Where to send a call; the reason why nothing can take it; or None: hold it."""


class Directory(Protocol):
    """Effects are those above, SetTimer, CancelTimer (TimerFired comes back), Connect, Send, CheckLocality, CheckSilence,
    Resolve and ReadGreeting."""

    uses_envelopes: bool
    """True if an attempt travels in an envelope in front of the header, False if as the header's id."""

    def attach(self, connections: Connections, held: Held) -> None:
        """Take the exchange's tables. `held` is only read."""

    def start(self, now: int) -> list[Effect]: ...

    def handle(self, event: Event, now: int) -> list[Effect]: ...

    def locate(self, pending: InFlight, now: int) -> tuple[Location, list[Effect]]:
        """Return where to send a call. The exchange holds it if that is nowhere yet, and attempts it again on Release."""

    def connection_to(self, address: Address) -> tuple[Connection | None, list[Effect]]:
        """Return the connection for a message that is dropped if its receiver is not up."""

    def addressed(self, attempt: int, connection: Connection, request: Request) -> Request:
        """Return the request with the attempt as its id, and with the details of the sender that this receiver needs."""

    def on_lost(self, connection: Connection, now: int) -> list[Effect]:
        """Note that a connection is over. It is no longer in the table."""

    def on_refusal(
        self, pending: InFlight, connection: Connection, error: ErrorBody, now: int
    ) -> list[Effect]:
        """Learn from an error reply, before the call is retried or fails."""

    def reconnects(self, connection: Connection) -> bool:
        """Return True if ZeroMQ may go on dialling a refused connection: there is no other address to try."""

    def absence(self, pending: InFlight) -> str:
        """Return the reason why a call had no reply, as a clause for its error message, or an empty string."""
