"""The numbers from which a coordinator of transactions makes producer ids, and the requests that wait for one. Pure.

Owns a reserve of SPARE_NUMBERS; the machine requests more from the controller. Called by requests.py and the machine.
"""

from collections import deque

from ...transport.machine import Received
from ...transport.producer_ids import transactional_producer_id
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.transactions import LAST_EPOCH
from .transaction import Transaction

SPARE_NUMBERS = 2
"""Numbers for producer ids that are kept in reserve."""
MAX_WAITING = 100_000


class ProducerNumbers:
    def __init__(self, coordinator: int) -> None:
        self._coordinator = coordinator
        self._numbers: deque[int] = deque()
        self._waiting: deque[Received] = deque()

    @property
    def is_low(self) -> bool:
        """True if more numbers are needed."""
        return len(self._numbers) < SPARE_NUMBERS + len(self._waiting)

    def add(self, number: int) -> Received | None:
        """Add a number; return the request that waited for it, if one did."""
        self._numbers.append(number)
        return self._waiting.popleft() if self._waiting else None

    def wait(self, received: Received) -> None:
        """Let a request wait for a number. Raises ProtocolError if too many do."""
        if len(self._waiting) >= MAX_WAITING:
            raise ProtocolError(ErrorCode.OVERLOADED, "too many requests wait for producer ids")
        self._waiting.append(received)

    def first_id(self) -> int | None:
        """Return a new producer id; None while there is not a number for one."""
        return (
            transactional_producer_id(self._coordinator, self._numbers.popleft()) if self._numbers else None
        )

    def next_id(self, transaction: Transaction) -> tuple[int, int] | None:
        """Return the next producer id and epoch; None while there is not a number for a new producer id."""
        if transaction.producer_epoch < LAST_EPOCH:
            return transaction.producer_id, transaction.producer_epoch + 1
        producer_id = self.first_id()
        return None if producer_id is None else (producer_id, 0)
