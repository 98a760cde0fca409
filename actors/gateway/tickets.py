"""The requests that are not answered yet, and their bytes, counted: in all and for each connection. Pure.

Every request that cannot be answered at once takes a ticket and gives it back with its answer. So a client can neither
fill the gateway nor be answered twice, whatever arrives late.
"""

from collections.abc import Iterable

from msgspec import Struct, field

from ...transport.codec import encode_header
from ...transport.machine import CancelCall, Effect, Payload, Reply, Sender
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.message import Reply as ReplyBody
from .quotas import Toll, with_throttle

MAX_OPEN = 10_000
MAX_OPEN_PER_CONNECTION = 1_000
MAX_OPEN_BYTES = 256 * 1024 * 1024
MAX_OPEN_BYTES_PER_CONNECTION = 64 * 1024 * 1024
"""Also the largest request there can be."""


class _Ticket(Struct, frozen=True):
    sender: Sender
    may_be_cut: bool
    size_bytes: int
    toll: Toll | None


class _Use(Struct):
    """What one connection has open."""

    numbers: set[int] = field(default_factory=set)
    bytes: int = 0


class Tickets:
    def __init__(
        self,
        max_open: int = MAX_OPEN,
        max_per_connection: int = MAX_OPEN_PER_CONNECTION,
        max_bytes: int = MAX_OPEN_BYTES,
        max_bytes_per_connection: int = MAX_OPEN_BYTES_PER_CONNECTION,
    ) -> None:
        self._max_open = max_open
        self._max_per_connection = max_per_connection
        self._max_bytes = max_bytes
        self._max_bytes_per_connection = max_bytes_per_connection
        self._open: dict[int, _Ticket] = {}
        self._bytes = 0
        self._of_connection: dict[bytes, _Use] = {}
        self._last_number = 0

    def __len__(self) -> int:
        return len(self._open)

    def open(self, sender: Sender, size_bytes: int, *, may_be_cut: bool, toll: Toll | None = None) -> int:
        """A ticket's number; `may_be_cut` says that a stop need not wait for the answer. Raises ProtocolError."""
        connection = sender.route[0]
        use = self._of_connection.get(connection) or _Use()
        refusal = self._refusal(use, size_bytes)
        if refusal is not None:
            raise refusal
        self._last_number += 1
        self._open[self._last_number] = _Ticket(sender, may_be_cut, size_bytes, toll)
        self._bytes += size_bytes
        use.numbers.add(self._last_number)
        use.bytes += size_bytes
        self._of_connection[connection] = use
        return self._last_number

    def _refusal(self, use: _Use, size_bytes: int) -> ProtocolError | None:
        if size_bytes > self._max_bytes_per_connection:
            message = (
                f"the request has {size_bytes} bytes, at most {self._max_bytes_per_connection} are taken"
            )
            return ProtocolError(ErrorCode.MESSAGE_TOO_LARGE, message)
        if len(use.numbers) >= self._max_per_connection:
            message = f"this connection has {len(use.numbers)} requests in flight, which is the limit"
            return ProtocolError(ErrorCode.OVERLOADED, message)
        if use.bytes + size_bytes > self._max_bytes_per_connection:
            message = f"this connection has {use.bytes} bytes in flight, {size_bytes} more are too many"
            return ProtocolError(ErrorCode.OVERLOADED, message)
        if len(self._open) >= self._max_open or self._bytes + size_bytes > self._max_bytes:
            return ProtocolError(ErrorCode.OVERLOADED, "the gateway has too many requests in flight")
        return None

    def sender(self, number: int) -> Sender | None:
        ticket = self._open.get(number)
        return None if ticket is None else ticket.sender

    def answer(self, number: int, body: ReplyBody | ErrorBody | bytes, payload: Payload = ()) -> list[Effect]:
        """The reply; nothing when the ticket has been answered before."""
        ticket = self._close(number)
        if ticket is None:
            return []
        if ticket.toll is not None:
            if ticket.toll.fetcher is not None:
                ticket.toll.settle(_size_bytes(body, payload))
            body = with_throttle(body, ticket.toll.throttle_ms)
        return [Reply(ticket.sender, body, payload)]

    def _close(self, number: int) -> _Ticket | None:
        ticket = self._open.pop(number, None)
        if ticket is None:
            return None
        connection = ticket.sender.route[0]
        self._bytes -= ticket.size_bytes
        use = self._of_connection[connection]
        use.numbers.remove(number)
        use.bytes -= ticket.size_bytes
        if not use.numbers:
            del self._of_connection[connection]
        return ticket

    def of_connection(self, connection: bytes) -> list[int]:
        use = self._of_connection.get(connection)
        return sorted(use.numbers) if use is not None else []

    def drop(self, numbers: Iterable[int]) -> list[Effect]:
        """Close them without an answer: the askers are gone. Actors at which they wait are told."""
        return [CancelCall(number) for number in numbers if self._close(number) is not None]

    def cut(self, error: ErrorBody) -> list[Effect]:
        """Answer everything that a stop need not wait for."""
        numbers = [number for number, ticket in self._open.items() if ticket.may_be_cut]
        return [effect for number in numbers for effect in self.answer(number, error)]

    def answer_all(self, error: ErrorBody) -> list[Effect]:
        return [effect for number in list(self._open) for effect in self.answer(number, error)]


def _size_bytes(body: ReplyBody | ErrorBody | bytes, payload: Payload) -> int:
    """What an answer takes on the wire, near enough."""
    if isinstance(body, ErrorBody):
        return 0
    header = body if isinstance(body, bytes) else encode_header(body)
    return len(header) + sum(map(len, payload))
