"""The permissions of requests in the gateway: asked for on arrival, kept with the ticket, checked again later. Pure.

Without authentication everything is permitted, and no ticket has a permission. An actor's request needs none.
"""

from typing import Any

from msgspec import UNSET, UnsetType

from ...transport.machine import Received, Reply
from ...transport.security.principals import SecurityTable
from .access import Access, Granted, key_of
from .audit import Audit
from .tickets import Tickets


class Permissions:
    def __init__(self, access: Access | None, tickets: Tickets, audit: Audit) -> None:
        self._access = access
        self._audit = audit
        self._tickets = tickets

    def configure(self, table: SecurityTable | UnsetType) -> bool:
        """Follow the controller's table; return True if it has changed."""
        return self._access is not None and table is not UNSET and self._access.configure(table)

    def granted(self, event: Received, wall_ms: int) -> Granted | None:
        """Return the permission of a client's request; None if it needs none. Raises ProtocolError without the right."""
        if self._access is None:
            return None
        key = key_of(event)
        return None if key is None else self._access.require(key, event.request, wall_ms)

    def revoked(self, wall_ms: int) -> dict[int, Reply]:
        """Return the refusals of open requests that are no longer permitted, by ticket."""
        if self._access is None:
            return {}
        refusals: dict[int, Reply] = {}
        for number, ticket in self._tickets.items():
            if ticket.granted is not None:
                refusal = self._access.still_permits(ticket.granted, wall_ms)
                if refusal is not None:
                    self._audit.refuse_parked(ticket, refusal.body)
                    refusals[number] = Reply(ticket.sender, refusal.body)
        return refusals

    def visible(self, number: int, reply: Any) -> Any:
        """Return the part of a reply that the requester may see."""
        if self._access is None:
            return reply
        ticket = self._tickets.get(number)
        if ticket is None or ticket.granted is None:
            return reply
        return self._access.visible(ticket.granted, reply)
