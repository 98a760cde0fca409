"""The unanswered requests and their bytes, counted in total, by connection and by host. Pure.

Every request that cannot be answered at once takes a ticket and returns it with its answer. So a client can neither
fill the gateway nor be answered twice by a late reply.

    kind      which requests                                        room
    work      all that are answered as soon as possible             MAX_WORK
    poll      those that may wait for changes: fetch, metadata,     MAX_POLLS
              group_heartbeat and acquire with a `max_wait_ms`

Waiting polls take no room from work. shares.py decides which request is refused or evicted when a room is full.
"""

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from ...transport.codec import encode_header, error_of
from ...transport.machine import CancelCall, Effect, Payload, Received, Reply, Sender
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.message import Reply as ReplyBody
from .access import Granted
from .quotas import QuotaCharge, with_throttle
from .shares import Shares

MAX_WORK = 10_000
MAX_POLLS = 10_000
MAX_OPEN_PER_CONNECTION = 1_000
"""Limit of each kind."""
MAX_OPEN_BYTES = 256 * 1024 * 1024
MAX_OPEN_BYTES_PER_CONNECTION = 64 * 1024 * 1024
"""Also the maximum size of a request."""

TAKEN_BACK = ErrorBody(
    ErrorCode.THROTTLED, "this connection had the most open requests when other clients needed room", True
)
GIVEN_UP = ErrorBody(
    ErrorCode.TIMED_OUT, "dropped when other clients needed room: it may have taken effect", True
)


class Ticket(Struct, frozen=True):
    sender: Sender
    may_be_cut: bool
    size_bytes: int
    charge: QuotaCharge | None
    is_poll: bool
    weight: int
    """The weight of its call at the actor that handles it (lanes.py)."""
    granted: Granted | None
    """The permission, in a broker with authentication; None for the requests of actors."""


class Tickets:
    def __init__(
        self,
        hosts: Mapping[bytes, str],
        max_work: int = MAX_WORK,
        max_polls: int = MAX_POLLS,
        max_per_connection: int = MAX_OPEN_PER_CONNECTION,
        max_bytes: int = MAX_OPEN_BYTES,
        max_bytes_per_connection: int = MAX_OPEN_BYTES_PER_CONNECTION,
    ) -> None:
        self._max_bytes_per_connection = max_bytes_per_connection
        self._work = Shares("requests in progress", max_work, max_per_connection, hosts)
        self._polls = Shares("waiting polls", max_polls, max_per_connection, hosts)
        self._bytes = Shares("bytes of requests", max_bytes, max_bytes_per_connection, hosts)
        self._open: dict[int, Ticket] = {}
        self._of_connection: dict[bytes, set[int]] = {}
        self._last_number = 0
        self._followed: dict[int, list[Callable[[ErrorBody | None, bool], None]]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(
        self,
        sender: Sender,
        size_bytes: int,
        *,
        may_be_cut: bool,
        charge: QuotaCharge | None = None,
        is_poll: bool = False,
        weight: int = 1,
        granted: Granted | None = None,
    ) -> tuple[int, list[int]]:
        """Return a ticket's number, and the tickets that it evicts: the caller must close them at once.

        `may_be_cut`: a stop need not wait for the answer. Raises ProtocolError.
        """
        if size_bytes > self._max_bytes_per_connection:
            message = f"the request has {size_bytes} bytes, the limit is {self._max_bytes_per_connection}"
            raise ProtocolError(ErrorCode.MESSAGE_TOO_LARGE, message)
        connection = sender.route[0]
        room = self._polls if is_poll else self._work
        evicted = room.room_for(connection)
        evicted += [each for each in self._bytes.room_for(connection, size_bytes) if each not in evicted]
        self._last_number += 1
        room.take(connection, self._last_number)
        self._bytes.take(connection, self._last_number, size_bytes)
        self._open[self._last_number] = Ticket(
            sender, may_be_cut, size_bytes, charge, is_poll, weight, granted
        )
        self._of_connection.setdefault(connection, set()).add(self._last_number)
        return self._last_number, evicted

    def on_closed(self, number: int, call: Callable[[ErrorBody | None, bool], None]) -> None:
        """Call this when the ticket is closed: with the error of its answer, and whether it was answered."""
        self._followed.setdefault(number, []).append(call)

    def get(self, number: int) -> Ticket | None:
        return self._open.get(number)

    def sender(self, number: int) -> Sender | None:
        ticket = self._open.get(number)
        return None if ticket is None else ticket.sender

    def answer(self, number: int, body: ReplyBody | ErrorBody | bytes, payload: Payload = ()) -> list[Effect]:
        """Return the reply; no effects when the ticket has been answered before."""
        ticket = self._close(number)
        if ticket is None:
            return []
        if self._followed:
            refusal = error_of(body) if isinstance(body, bytes) else body
            self._end(number, refusal if isinstance(refusal, ErrorBody) else None, is_answered=True)
        if ticket.charge is not None:
            if ticket.charge.fetcher is not None:
                ticket.charge.settle(_size_bytes(body, payload))
            body = with_throttle(body, ticket.charge.throttle_ms)
        return [Reply(ticket.sender, body, payload)]

    def _close(self, number: int) -> Ticket | None:
        ticket = self._open.pop(number, None)
        if ticket is None:
            return None
        connection = ticket.sender.route[0]
        (self._polls if ticket.is_poll else self._work).give_back(connection, number)
        self._bytes.give_back(connection, number)
        numbers = self._of_connection[connection]
        numbers.remove(number)
        if not numbers:
            del self._of_connection[connection]
        return ticket

    def items(self) -> list[tuple[int, Ticket]]:
        return list(self._open.items())

    def withdrawn_by(self, event: Received) -> list[int]:
        """Return the tickets that a `cancel` withdraws."""
        own = self.of_connection(event.sender.route[0])
        return [number for number in own if event.cancels(self._open[number].sender)]

    def of_connection(self, connection: bytes) -> list[int]:
        return sorted(self._of_connection.get(connection, ()))

    def drop(self, numbers: Iterable[int]) -> list[Effect]:
        """Close tickets without an answer: the requesters are gone. Actors where they wait are notified."""
        closed = [number for number in numbers if self._close(number) is not None]
        if self._followed:
            for number in closed:
                self._end(number, None, is_answered=False)
        return [CancelCall(number) for number in closed]

    def _end(self, number: int, error: ErrorBody | None, *, is_answered: bool) -> None:
        for call in self._followed.pop(number, ()):
            call(error, is_answered)

    def cut(self, error: ErrorBody) -> list[Effect]:
        """Answer every request that a stop need not wait for."""
        numbers = [number for number, ticket in self._open.items() if ticket.may_be_cut]
        return [effect for number in numbers for effect in self.answer(number, error)]

    def answer_all(self, error: ErrorBody) -> list[Effect]:
        return [effect for number in list(self._open) for effect in self.answer(number, error)]


def _size_bytes(body: ReplyBody | ErrorBody | bytes, payload: Payload) -> int:
    """Return the approximate size of an answer on the wire."""
    if isinstance(body, ErrorBody):
        return 0
    header = body if isinstance(body, bytes) else encode_header(body)
    return len(header) + sum(map(len, payload))
