"""The requests that are not answered yet, counted: in all and for each connection. Pure.

Every request that cannot be answered at once takes a ticket and gives it back with its answer. So a client can neither
fill the gateway nor be answered twice, whatever arrives late.
"""

from msgspec import Struct

from ...transport.machine import Effect, Payload, Reply, Sender
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.message import Reply as ReplyBody

MAX_OPEN = 10_000
MAX_OPEN_PER_CONNECTION = 1_000


class _Ticket(Struct, frozen=True):
    sender: Sender
    may_be_cut: bool


class Tickets:
    def __init__(self, max_open: int = MAX_OPEN, max_per_connection: int = MAX_OPEN_PER_CONNECTION) -> None:
        self._max_open = max_open
        self._max_per_connection = max_per_connection
        self._open: dict[int, _Ticket] = {}
        self._of_connection: dict[bytes, int] = {}
        self._last_number = 0

    def __len__(self) -> int:
        return len(self._open)

    def open(self, sender: Sender, *, may_be_cut: bool) -> int:
        """A ticket's number; `may_be_cut` says that a stop need not wait for the answer. Raises OVERLOADED."""
        connection = sender.route[0]
        used = self._of_connection.get(connection, 0)
        if used >= self._max_per_connection:
            message = f"this connection has {used} requests in flight, which is the limit"
            raise ProtocolError(ErrorCode.OVERLOADED, message)
        if len(self._open) >= self._max_open:
            raise ProtocolError(ErrorCode.OVERLOADED, "the gateway has too many requests in flight")
        self._last_number += 1
        self._open[self._last_number] = _Ticket(sender, may_be_cut)
        self._of_connection[connection] = used + 1
        return self._last_number

    def sender(self, number: int) -> Sender | None:
        ticket = self._open.get(number)
        return None if ticket is None else ticket.sender

    def answer(self, number: int, body: ReplyBody | ErrorBody | bytes, payload: Payload = ()) -> list[Effect]:
        """The reply; nothing when the ticket has been answered before."""
        ticket = self._open.pop(number, None)
        if ticket is None:
            return []
        connection = ticket.sender.route[0]
        left = self._of_connection[connection] - 1
        if left:
            self._of_connection[connection] = left
        else:
            del self._of_connection[connection]
        return [Reply(ticket.sender, body, payload)]

    def cut(self, error: ErrorBody) -> list[Effect]:
        """Answer everything that a stop need not wait for."""
        numbers = [number for number, ticket in self._open.items() if ticket.may_be_cut]
        return [effect for number in numbers for effect in self.answer(number, error)]

    def answer_all(self, error: ErrorBody) -> list[Effect]:
        return [effect for number in list(self._open) for effect in self.answer(number, error)]
