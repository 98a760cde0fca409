"""Whether a permitted request is taken: the quota of its client, the room for it, its place in the audit. Pure.

    beyond a limit          of connections or requests in flight: refused (`limits.py`)
    under a quota           delayed or refused (`quotas.py`)
    no room                 refused, or another request is evicted (`tickets.py`, `shares.py`)
    administrative act      recorded (`audit.py`)
    produce with acks = 0   takes no ticket, because it has no answer

Called by the gateway's machine for each request of a client, after its permission.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from ...transport.machine import Received
from ...transport.protocol.data import Produce
from ...transport.request_context import RequestContext
from .access import Granted
from .audit import Audit
from .lanes import weight_of
from .quotas import Quotas
from .routes import Route, max_wait_ms_of
from .tickets import Tickets


class Admitted(Struct, frozen=True, gc=False):
    context: RequestContext
    number: int | None = None
    """Number of its ticket; None for a request without an answer."""
    throttle_ms: int = 0
    """The time for which it is delayed."""
    evicted: Sequence[int] = ()
    """Tickets to close at once."""


class Admission:
    def __init__(self, quotas: Quotas, tickets: Tickets, audit: Audit, hosts: Mapping[bytes, str]) -> None:
        self._quotas = quotas
        self._hosts = hosts
        self._tickets = tickets
        self._audit = audit

    def admit(self, event: Received, route: Route, granted: Granted | None, now: int) -> Admitted:
        """Take a request. Raises ProtocolError when it is refused."""
        request = event.request
        size_bytes = len(event.raw) + sum(map(len, event.payload))
        self._quotas.require_greeting(event)
        context = self._quotas.context_of(event, granted)
        on_answer = self._enter(event, context) if self._quotas.limits.is_set else None
        try:
            charge = self._quotas.admit(event, size_bytes, now, granted)
            if isinstance(request, Produce) and request.acks == 0:
                return Admitted(context)
            number, evicted = self._tickets.open(
                event.sender,
                size_bytes,
                may_be_cut=route.may_be_cut,
                charge=charge,
                is_poll=max_wait_ms_of(request, route) > 0,
                weight=weight_of(request, route.weight, size_bytes),
                granted=granted,
            )
            if on_answer is not None:
                self._tickets.on_closed(number, lambda *_, end=on_answer: end())
                on_answer = None
        finally:
            if on_answer is not None:
                on_answer()
        if self._audit.is_on:
            self._audit.begin(number, event, granted)
        return Admitted(context, number, 0 if charge is None else charge.throttle_ms, evicted)

    def _enter(self, event: Received, context: RequestContext) -> Callable[[], None] | None:
        """Count a client's request under its limits; return the function that ends that."""
        if event.context.is_admitted:
            return None
        connection = event.sender.route[0]
        return self._quotas.limits.enter(connection, context.client_id, self._hosts.get(connection, ""))
