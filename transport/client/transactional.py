"""A producer that writes in transactions, and the transaction object that programs use.

    with producer.transaction() as tx:
        tx.publish("PAYMENTS", value, key=...)
        tx.commit_offsets(consumer)

Messages are sent as they fill their batches, under a producer id and epoch that identify this transaction alone. Its
end waits until all are acknowledged, then sends the coordinator one request that names every partition and group. The
reply is the commit point and has the epoch of the next transaction. If any step fails the transaction is aborted: none
of it is ever read, and late batches are refused by their epoch. Called by `Client.producer`.

Its machine (`transacting.py`) has the states, and decides the meaning of an end without an answer.
"""

import threading
from datetime import datetime
from types import TracebackType
from typing import Any, NoReturn, Self

from ..batch import Headers
from ..protocol.errors import PlanariaError
from ..protocol.groups import CommitOffsets
from .commits import GivenOffsets, Metadata, commit_call
from .consumer import Consumer
from .delivery import Delivery
from .errors import Closed
from .lanes import ProducerIdentity
from .network import Network
from .options import Duration, ProducerOptions
from .producer import BatchingProducer
from .transacting import Transacting


class TransactionalProducer:
    """Publishes in consecutive transactions. For one thread at a time, except `Transaction.publish`."""

    def __init__(self, network: Network, options: ProducerOptions) -> None:
        self._network = network
        self._request_timeout_ms = options.request_timeout_ms
        self._machine = Transacting(options)
        self._producer = BatchingProducer(network, options, self._machine.on_done)
        self._producer.accumulator.suspend(
            PlanariaError("publish within a transaction: with producer.transaction() as tx")
        )
        self._current: Transaction | None = None
        self._lock = threading.Lock()
        """Held while an identity is claimed."""
        self._is_closed = False

    @property
    def transactional_id(self) -> str:
        """The id that it was created with."""
        return self._machine.transactional_id

    def transaction(self) -> "Transaction":
        """Begin a transaction. Raises ProducerFenced when another producer has the transactional id,
        TimedOut, or Closed."""
        self._refuse_when_closed()
        with self._lock:
            self._machine.refuse_while_open()
            self._claim()
            self._refuse_when_closed()
            identity = self._machine.begin()
            self._current = Transaction(self, identity)
            self._producer.begin(identity)
            return self._current

    def claim(self) -> None:
        """Take the transactional id now and end the open transaction of an earlier holder. Otherwise the
        first transaction does.

        For programs that read before they write: an open transaction may keep the offsets that they start
        from unreadable. Raises the errors of `transaction`.
        """
        self._refuse_when_closed()
        with self._lock:
            self._claim()

    def publish(self, *_: Any, **__: Any) -> NoReturn:
        """Always raise: a message cannot be published outside a transaction."""
        raise PlanariaError(
            "publish within a transaction: with producer.transaction() as tx: tx.publish(...)"
        )

    def _refuse_when_closed(self) -> None:
        self._network.refuse_when_closed()
        if self._is_closed:
            raise Closed("the producer is closed")

    def _claim(self) -> None:
        call = self._machine.claim()
        if call is None:
            return
        try:
            reply = self._network.exchange(call, self).reply
        except BaseException as error:
            self._machine.on_claim_failed(error)
            raise
        self._machine.on_claimed(reply)

    # Called by the transaction.

    def _commit_offsets(self, request: CommitOffsets) -> None:
        self._network.exchange(commit_call(self._machine.offsets(request), self._request_timeout_ms))

    def _end(self, *, is_commit: bool) -> None:
        """End the transaction once every message is acknowledged. Raises the error that prevented it."""
        self._current = None
        self._producer.accumulator.suspend(PlanariaError("the transaction has ended"))
        self._machine.end(is_commit=is_commit)
        try:
            if not is_commit:
                self._producer.drop()
            reply = self._producer.conclude(self._machine.end_call).reply
        except BaseException as error:
            explained = self._machine.on_end_failed(error)
            if explained is error:
                raise
            raise explained  # noqa: B904 - it has its cause
        self._machine.on_ended(reply)

    def close(self, timeout: Duration | None = None) -> None:
        """Abort the open transaction, and refuse further ones. Does nothing in a forked child.

        `timeout` (seconds or a timedelta; None: without limit) bounds the wait for the broker. Raises TimedOut.
        """
        if self._is_closed or self._network.is_lost:
            return
        # Without the lock: a thread may hold it for as long as it waits for the transactional id.
        self._is_closed = True
        self._network.end_calls(self)
        current = self._current
        if current is not None:
            current.abort()
        self._producer.close(timeout)
        self._network.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        try:
            self.close()
        except PlanariaError:
            pass  # the exception that left the block is the one to report; the transaction's timeout aborts it


class Transaction:
    """Committed at the end of its `with` block, aborted by an exception that leaves the block."""

    def __init__(self, producer: TransactionalProducer, identity: ProducerIdentity) -> None:
        self._identity = identity
        self._owner = producer
        self._has_ended = False
        # Replaces the method of this name until the end: the way through it would cost a fifth of a
        # transaction.
        self.__dict__["publish"] = producer._producer.publish

    def publish(
        self,
        topic: str,
        value: Any,
        *,
        key: bytes | str | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: datetime | int | None = None,
        expires_at: datetime | int | None = None,
        priority: int | None = None,
    ) -> Delivery:
        """Like `Producer.publish`, without `dedup_id`, `delay` and `deliver_at`. Raises when the transaction has
        ended.

        The Delivery is done when the broker has the message, which takes effect once the transaction commits. Do not
        use a reference to `tx.publish` after the end: it publishes in the transaction that is open then.
        """
        self._refuse()

    def commit_offsets(
        self,
        consumer: Consumer,
        offsets: GivenOffsets | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """Commit the given offsets, or those after the consumer's returned messages, if and when the transaction
        commits.

        Raises CommitFailed when the partitions are no longer its member's; then the transaction can only abort.
        """
        if self._has_ended:
            self._refuse()
        request = consumer._commit_for_transaction(offsets, metadata)
        if request is not None:
            self._owner._commit_offsets(request)

    def commit(self) -> None:
        """Wait for every message, then commit. Once this returns the transaction is durable.

        Raises TransactionAborted when a part failed or it timed out, TransactionUncertain when no reply
        arrived, ProducerFenced when another producer has the transactional id.
        """
        if self._has_ended:
            self._refuse()
        self._close()
        self._owner._end(is_commit=True)

    def abort(self) -> None:
        """Abort: none of it will be read. A transaction that has ended is unchanged."""
        if self._has_ended:
            return
        self._close()
        self._owner._end(is_commit=False)

    def _close(self) -> None:
        self._has_ended = True
        self.__dict__.pop("publish", None)

    def _refuse(self) -> NoReturn:
        raise PlanariaError("the transaction has ended")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if not self._has_ended:
                self.commit()
            return
        try:
            self.abort()
        except PlanariaError:
            pass  # the exception that left the block is the one to report; the timeout aborts an unreachable transaction
