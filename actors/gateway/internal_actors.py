"""The actors that belong to the partitions of an internal topic: created when first needed, and awaited. Pure.

no topic             the controller is asked to ensure it, and the table is requested again
actor quarantined    refused with the reason
actor not up         the request waits for it
"""

from collections.abc import Callable, Iterable

from ...transport.addresses import CONTROLLER
from ...transport.machine import Call, Effect
from ...transport.protocol.control import EnsureInternalActors
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.message import Done
from .peers import Peers
from .tickets import Tickets
from .topic_table import TopicTable
from .waiting import Attempt, WaitingRoom

TIMEOUT_MS = 10_000
"""The time for which a request waits for its actor to come up."""
ENSURE_TIMEOUT_MS = 10_000
ENSURE = "ensure_internal_actors"


class InternalActors:
    def __init__(
        self,
        topic: str,
        address_of: Callable[[int], str],
        tickets: Tickets,
        table: TopicTable,
        peers: Peers,
        waiting_room: WaitingRoom,
    ) -> None:
        self._topic = topic
        self._address_of = address_of
        self._tickets = tickets
        self._table = table
        self._peers = peers
        self._waiting_room = waiting_room
        self._ensuring: list[Attempt] = []

    @property
    def count(self) -> int:
        entry = self._table.get(self._topic)
        return 0 if entry is None else entry.partitions

    def ensure(self, attempt: Attempt) -> list[Effect]:
        self._ensuring.append(attempt)
        if len(self._ensuring) > 1:
            return []
        request = EnsureInternalActors(topic=self._topic)
        return [Call((ENSURE, self._topic), CONTROLLER, request, Done, timeout_ms=ENSURE_TIMEOUT_MS)]

    def on_ensured(self) -> list[Effect]:
        """Request the new table, which releases the requests: the start of the actors has been requested."""
        attempts, self._ensuring = self._ensuring, []
        effects: list[Effect] = []
        for attempt in attempts:
            effects += self._table.ask(attempt)
        return effects

    def on_not_ensured(self, error: ErrorBody) -> list[Effect]:
        attempts, self._ensuring = self._ensuring, []
        return [effect for attempt in attempts for effect in self._tickets.answer(attempt.number, error)]

    def wait(self, attempt: Attempt, numbers: Iterable[int], now: int) -> list[Effect] | None:
        """Wait for the first actor that is not up; None: all are up. Raises ProtocolError."""
        addresses = [self._address_of(number) for number in sorted(numbers)]
        missing = next((address for address in addresses if self._peers.up(address) is None), None)
        if missing is None:
            return None
        down = self._peers.down(missing)
        if down is not None and down.quarantined:
            raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, self._peers.why_down(missing))
        deadline = now + TIMEOUT_MS if attempt.deadline is None else attempt.deadline
        waiting = Attempt(
            number=attempt.number, event=attempt.event, has_asked=attempt.has_asked, deadline=deadline
        )
        return self._waiting_room.park(missing, waiting, deadline)
