"""The Delivery through which a program waits for a published message, and the location of the message that it gets.

Knows its record and its batch (`producer_batch.py`), and nothing else. Made by the accumulator, one a message.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from ..batch import RecordFields
from .errors import TimedOut
from .options import Duration, wait_limit_s

if TYPE_CHECKING:
    from .producer_batch import ProducerBatch

_log = logging.getLogger(__name__)


class RecordMetadata(NamedTuple):
    """The location of a message. The offset is None with `acks` 0, where the broker does not reply.

    Partition and offset are None for a delayed message, which has none before its delivery.
    """

    topic: str
    partition: int | None
    offset: int | None
    duplicate: bool = False
    """True if its `dedup_id` was known: this is the location of the first record with that id; nothing was
    written."""
    scheduled_id: str | None = None
    """The id of a delayed message until its delivery; None for any other message."""


class Delivery(Struct, gc=False, eq=False):
    """The pending outcome of one published message."""

    _batch: "ProducerBatch"
    _record: RecordFields

    def __repr__(self) -> str:
        batch = self._batch
        state = ("failed" if batch.error else "done") if batch.is_done else "pending"
        return f"<Delivery to {batch.topic}/{batch.partition}, {state}>"

    def done(self) -> bool:
        """Return True if the message is acknowledged or has failed."""
        return self._batch.is_done

    def result(self, timeout: Duration | None = None) -> RecordMetadata:
        """Wait for the acknowledgement, up to `timeout` (seconds or a timedelta; None: without limit).

        Raises TimedOut, after which the delivery continues, and the cause of a failed delivery: DeliveryFailed when
        the message is certainly not in the log, DeliveryUncertain when it may be, TransactionAborted.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self._batch.location_of(self._record)

    def exception(self, timeout: Duration | None = None) -> Exception | None:
        """Wait as `result` does. Return the cause of the failure, or None. Raises TimedOut."""
        limit_s = wait_limit_s(timeout)
        self._batch.is_awaited = True
        if not self._batch.wait(limit_s):
            raise TimedOut(f"not acknowledged within {limit_s} s; the delivery continues")
        return self._batch.error

    def add_callback(self, callback: "Callable[[Delivery], object]") -> None:
        """Call `callback(delivery)` when done: in the network thread, or immediately if it is already done.

        The callback must be quick and must not wait for the broker: `result` and `client.publish` raise in it. The
        message's batch stops lingering, as if a thread waited for it. Exceptions of the callback are logged in either
        case; only KeyboardInterrupt and SystemExit propagate, and only from an immediate call.
        """
        batch = self._batch
        batch.is_awaited = True
        with batch.lock:
            is_done = batch.is_done
            if not is_done:
                batch.callbacks.append((callback, self))
        if not is_done:
            if batch.is_open and not batch.is_urgent:
                batch.hasten(batch)
            return
        try:
            callback(self)
        except Exception:  # noqa: BLE001 - the program's own code
            _log.exception("a delivery callback failed")


def call_back(callback: Callable[[Delivery], object], delivery: Delivery) -> None:
    try:
        callback(delivery)
    except BaseException:  # noqa: BLE001 - the program's own code, which may raise anything
        # All producers and consumers share the network thread: neither a fault nor sys.exit() of one
        # callback may end it.
        _log.exception("a delivery callback failed")
