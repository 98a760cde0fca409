"""The routing of delayed messages to their schedulers, which are created with the first. Pure.

no topic `__delayed`     a publish has them created (internal_actors.py); for other requests no message is pending
scheduler up             lists and cancels are forwarded unchanged; a publish returns to `publish.py`
"""

from ...transport.addresses import DELAYED_TOPIC, scheduler_address
from ...transport.machine import Effect
from ...transport.protocol.data import Publish
from ...transport.protocol.delayed import (
    CancelScheduled,
    ListScheduled,
    ListScheduledReply,
    page_of,
    scheduler_of,
)
from ...transport.protocol.errors import ErrorCode, ProtocolError
from .delays import ScheduledIds
from .forwarding import CALL_TIMEOUT_MS, forward
from .internal_actors import InternalActors
from .peers import Peers
from .tickets import Tickets
from .topic_table import TopicTable
from .waiting import Attempt, WaitingRoom


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
        self._ids = ids
        self.internal_actors = InternalActors(
            DELAYED_TOPIC, scheduler_address, tickets, table, peers, waiting_room
        )

    @property
    def schedulers(self) -> int:
        return self.internal_actors.count

    def prepare(self, attempt: Attempt, request: Publish, now: int) -> list[Effect] | None:
        """Return the wait of a publish with delayed records; None: no wait. Raises ProtocolError."""
        ids = self._ids.of(request, attempt.number)
        if not ids:
            return None
        if not self.schedulers:
            return self.internal_actors.ensure(attempt)
        return self.internal_actors.wait(
            attempt, {scheduler_of(each, self.schedulers) for each in ids.values()}, now
        )

    def route(self, attempt: Attempt, request: ListScheduled | CancelScheduled, now: int) -> list[Effect]:
        """Raises ProtocolError."""
        number = page_of(request.after)[0] if isinstance(request, ListScheduled) else 0
        if not self.schedulers:
            return self._table.ask(attempt) if not attempt.has_asked else self._nothing(attempt, request)
        if isinstance(request, CancelScheduled):
            number = scheduler_of(request.scheduled_id, self.schedulers)
        elif number >= self.schedulers:
            raise ProtocolError(ErrorCode.INVALID_REQUEST, "after: is no page's `next`")
        waiting = self.internal_actors.wait(attempt, (number,), now)
        return [forward(attempt, scheduler_address(number), CALL_TIMEOUT_MS)] if waiting is None else waiting

    def _nothing(self, attempt: Attempt, request: ListScheduled | CancelScheduled) -> list[Effect]:
        if isinstance(request, ListScheduled):
            return self._tickets.answer(attempt.number, ListScheduledReply(messages=[]))
        message = f"message {request.scheduled_id[:250]!r} is not scheduled: no message has ever been"
        raise ProtocolError(ErrorCode.UNKNOWN_SCHEDULED_ID, message)
