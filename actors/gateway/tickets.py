"""The requests that are not answered yet, and their bytes, counted: in all, by connection and by host. Pure.

Every request that cannot be answered at once takes a ticket and gives it back with its answer. So a client can neither
fill the gateway nor be answered twice, whatever arrives late.

    kind      which requests                                        room
    work      all that are answered as soon as possible             MAX_WORK
    poll      those that may wait for news: fetch, metadata,        MAX_POLLS
              group_heartbeat and acquire with a `max_wait_ms`

Waiting polls take no room from work. Who is refused, or has to go, when a room is full is decided in shares.py.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from ...transport.codec import encode_header
from ...transport.machine import CancelCall, Effect, Payload, Reply, Sender
from ...transport.protocol.data import Fetch
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.groups import GroupHeartbeat
from ...transport.protocol.message import Reply as ReplyBody
from ...transport.protocol.message import Request
from ...transport.protocol.session import Metadata
from ...transport.protocol.shares import Acquire
from .quotas import QuotaCharge, with_throttle
from .shares import Shares

MAX_WORK = 10_000
MAX_POLLS = 10_000
MAX_OPEN_PER_CONNECTION = 1_000
"""Of each kind."""
MAX_OPEN_BYTES = 256 * 1024 * 1024
MAX_OPEN_BYTES_PER_CONNECTION = 64 * 1024 * 1024
"""Also the largest request there can be."""


class Ticket(Struct, frozen=True):
    sender: Sender
    may_be_cut: bool
    size_bytes: int
    charge: QuotaCharge | None
    is_poll: bool
    weight: int
    """What its call counts for at the actor that works on it (lanes.py)."""


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
    ) -> tuple[int, list[int]]:
        """A ticket's number, and those of tickets that have to go for it: the caller must close them at once.

        `may_be_cut` says that a stop need not wait for the answer. Raises ProtocolError.
        """
        if size_bytes > self._max_bytes_per_connection:
            message = (
                f"the request has {size_bytes} bytes, at most {self._max_bytes_per_connection} are taken"
            )
            raise ProtocolError(ErrorCode.MESSAGE_TOO_LARGE, message)
        connection = sender.route[0]
        room = self._polls if is_poll else self._work
        evicted = dict.fromkeys(room.room_for(connection) + self._bytes.room_for(connection, size_bytes))
        self._last_number += 1
        room.take(connection, self._last_number)
        self._bytes.take(connection, self._last_number, size_bytes)
        self._open[self._last_number] = Ticket(sender, may_be_cut, size_bytes, charge, is_poll, weight)
        self._of_connection.setdefault(connection, set()).add(self._last_number)
        return self._last_number, list(evicted)

    def get(self, number: int) -> Ticket | None:
        return self._open.get(number)

    def sender(self, number: int) -> Sender | None:
        ticket = self._open.get(number)
        return None if ticket is None else ticket.sender

    def answer(self, number: int, body: ReplyBody | ErrorBody | bytes, payload: Payload = ()) -> list[Effect]:
        """The reply; nothing when the ticket has been answered before."""
        ticket = self._close(number)
        if ticket is None:
            return []
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

    def of_connection(self, connection: bytes) -> list[int]:
        return sorted(self._of_connection.get(connection, ()))

    def drop(self, numbers: Iterable[int]) -> list[Effect]:
        """Close them without an answer: the askers are gone. Actors at which they wait are told."""
        return [CancelCall(number) for number in numbers if self._close(number) is not None]

    def cut(self, error: ErrorBody) -> list[Effect]:
        """Answer everything that a stop need not wait for."""
        numbers = [number for number, ticket in self._open.items() if ticket.may_be_cut]
        return [effect for number in numbers for effect in self.answer(number, error)]

    def answer_all(self, error: ErrorBody) -> list[Effect]:
        return [effect for number in list(self._open) for effect in self.answer(number, error)]


def is_poll(request: Request) -> bool:
    return isinstance(request, Fetch | Metadata | GroupHeartbeat | Acquire) and request.max_wait_ms > 0


def _size_bytes(body: ReplyBody | ErrorBody | bytes, payload: Payload) -> int:
    """What an answer takes on the wire, near enough."""
    if isinstance(body, ErrorBody):
        return 0
    header = body if isinstance(body, bytes) else encode_header(body)
    return len(header) + sum(map(len, payload))
