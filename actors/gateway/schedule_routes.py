"""The way of delayed messages to their schedulers, which are created with the first. Pure.

no topic `__delayed`     a publish has the controller ensure it, and asks for the table anew; to anything else there
                         is nothing pending
scheduler quarantined    refused with the reason
scheduler not up         the request waits for it
scheduler up             lists and cancels are forwarded as they came; a publish is `publish.py`'s again
"""

from collections.abc import Iterable

from ...transport.addresses import CONTROLLER, DELAYED_TOPIC, scheduler_address
from ...transport.machine import Call, Effect
from ...transport.protocol.control import EnsureDelayed
from ...transport.protocol.data import Publish
from ...transport.protocol.delayed import (
    CancelScheduled,
    ListScheduled,
    ListScheduledReply,
    page_of,
    scheduler_of,
)
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.message import Done
from .delays import ScheduledIds
from .forwarding import CALL_TIMEOUT_MS, forward
from .peers import Peers
from .tickets import Tickets
from .topic_table import MAX_ASKING, TopicTable
from .waiting import Attempt, WaitingRoom

SCHEDULER_PATIENCE_MS = 10_000
"""How long a request waits for its scheduler to come up."""
ENSURE_TIMEOUT_MS = 10_000
ENSURE = "ensure_delayed"


class ScheduleRoutes:
    def __init__(
        self,
        tickets: Tickets,
        table: TopicTable,
        peers: Peers,
        waiting_room: WaitingRoom,
        ids: ScheduledIds,
    ) -> None:
        self._tickets = tickets
        self._table = table
        self._peers = peers
        self._waiting_room = waiting_room
        self._ids = ids
        self._ensuring: list[Attempt] = []

    @property
    def schedulers(self) -> int:
        entry = self._table.get(DELAYED_TOPIC)
        return 0 if entry is None else entry.partitions

    def prepare(self, attempt: Attempt, request: Publish, now: int) -> list[Effect] | None:
        """What a publish with delayed records must wait for; None: for nothing. Raises ProtocolError."""
        ids = self._ids.of(request, attempt.number)
        if not ids:
            return None
        if not self.schedulers:
            return self._ensure(attempt)
        return self._wait(attempt, {scheduler_of(each, self.schedulers) for each in ids.values()}, now)

    def route(self, attempt: Attempt, request: ListScheduled | CancelScheduled, now: int) -> list[Effect]:
        """Raises ProtocolError."""
        number = page_of(request.after)[0] if isinstance(request, ListScheduled) else 0
        if not self.schedulers:
            return self._table.ask(attempt) if not attempt.has_asked else self._nothing(attempt, request)
        if isinstance(request, CancelScheduled):
            number = scheduler_of(request.scheduled_id, self.schedulers)
        elif number >= self.schedulers:
            raise ProtocolError(ErrorCode.INVALID_REQUEST, "after: is no page's `next`")
        waiting = self._wait(attempt, (number,), now)
        return [forward(attempt, scheduler_address(number), CALL_TIMEOUT_MS)] if waiting is None else waiting

    def on_ensured(self) -> list[Effect]:
        """Their start is ordered; the new table brings the requests on."""
        attempts, self._ensuring = self._ensuring, []
        effects: list[Effect] = []
        for attempt in attempts:
            try:
                effects += self._table.ask(attempt)
            except ProtocolError as error:
                effects += self._tickets.answer(attempt.number, error.body)
        return effects

    def on_not_ensured(self, error: ErrorBody) -> list[Effect]:
        attempts, self._ensuring = self._ensuring, []
        return [effect for attempt in attempts for effect in self._tickets.answer(attempt.number, error)]

    def _ensure(self, attempt: Attempt) -> list[Effect]:
        if len(self._ensuring) >= MAX_ASKING:
            raise ProtocolError(ErrorCode.OVERLOADED, "too many requests wait for the first scheduler")
        self._ensuring.append(attempt)
        if len(self._ensuring) > 1:
            return []
        return [Call((ENSURE,), CONTROLLER, EnsureDelayed(), Done, timeout_ms=ENSURE_TIMEOUT_MS)]

    def _wait(self, attempt: Attempt, numbers: Iterable[int], now: int) -> list[Effect] | None:
        addresses = [scheduler_address(number) for number in sorted(numbers)]
        missing = next((address for address in addresses if self._peers.up(address) is None), None)
        if missing is None:
            return None
        down = self._peers.down(missing)
        if down is not None and down.quarantined:
            raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, self._peers.why_down(missing))
        deadline = now + SCHEDULER_PATIENCE_MS if attempt.deadline is None else attempt.deadline
        waiting = Attempt(
            number=attempt.number, event=attempt.event, has_asked=attempt.has_asked, deadline=deadline
        )
        return self._waiting_room.park(missing, waiting, deadline)

    def _nothing(self, attempt: Attempt, request: ListScheduled | CancelScheduled) -> list[Effect]:
        if isinstance(request, ListScheduled):
            return self._tickets.answer(attempt.number, ListScheduledReply(messages=[]))
        message = f"message {request.scheduled_id[:250]!r} is not scheduled: none ever was"
        raise ProtocolError(ErrorCode.UNKNOWN_SCHEDULED_ID, message)
