"""A producer that writes in transactions, and the transaction object that programs use.

    with producer.transaction() as tx:
        tx.publish("PAYMENTS", value, key=...)
        tx.commit_offsets(consumer)

Messages are sent as they fill their batches, under a producer id and epoch that identify this transaction alone. Its
end waits until all are acknowledged, then sends the coordinator one request that names every partition and group. The
reply is the commit point and has the epoch of the next transaction. If any step fails the transaction is aborted: none
of it is ever read, and late batches are refused by their epoch. Called by `Client.producer`.

    idle --transaction()--> open --commit--> idle | outcome unknown | fenced
                            open --abort, or anything failed--> idle | fenced
    outcome unknown --transaction()--> the coordinator gives a new epoch, which settles the old one
    fenced: another producer has the transactional id; permanent
"""

import threading
from datetime import datetime
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self

from ..addresses import GATEWAY, TopicPartition
from ..batch import Headers
from ..machine import Call, Receipt
from ..protocol.data import InitProducer, InitProducerReply
from ..protocol.errors import ErrorCode, PlanariaError, ProtocolError
from ..protocol.groups import CommitOffsets, CommitOffsetsReply
from ..protocol.message import TopicPartitions
from ..protocol.transactions import EndTransaction, EndTransactionReply
from .commits import GivenOffsets, Metadata
from .delivery import Delivery
from .errors import Closed, ProducerFenced, TimedOut, TransactionAborted, TransactionUncertain
from .lanes import ProducerIdentity
from .network import Network
from .options import Duration, ProducerOptions
from .producer import BatchingProducer


class Committing(Protocol):
    """A consumer whose offsets can be committed by a transaction."""

    def _commit_for_transaction(
        self,
        offsets: GivenOffsets | None = None,
        metadata: Metadata | None = None,
    ) -> CommitOffsets | None: ...


class TransactionalProducer:
    """Publishes in consecutive transactions. For one thread at a time, except `Transaction.publish`."""

    def __init__(self, network: Network, options: ProducerOptions) -> None:
        assert options.transactional_id is not None
        self._network = network
        self._transactional_id = options.transactional_id
        self._timeout_ms = options.transaction_timeout_ms
        self._request_timeout_ms = options.request_timeout_ms
        self._producer = _Part(network, options)
        self._producer.suspend(
            PlanariaError("publish within a transaction: with producer.transaction() as tx")
        )
        self._identity: ProducerIdentity | None = None
        self._last_identity: ProducerIdentity | None = None
        """The identity at the time an outcome became unknown. It identifies this producer to the
        coordinator again."""
        self._coordinator: str | None = None
        """The coordinator's endpoint, for a client on its machine."""
        self._current: Transaction | None = None
        self._fenced: ProtocolError | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def transactional_id(self) -> str:
        """The id that it was created with."""
        return self._transactional_id

    def transaction(self) -> "Transaction":
        """Begin a transaction. Raises ProducerFenced when another producer has the transactional id,
        TimedOut, or Closed."""
        self._refuse_when_closed()
        with self._lock:
            if self._current is not None:
                raise PlanariaError("a transaction is open already; end it first")
            if self._fenced is not None:
                raise self._fenced
            identity = self._identity or self._init()
            self._refuse_when_closed()
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
            if self._identity is None and self._current is None:
                self._init()

    def publish(self, *_: Any, **__: Any) -> NoReturn:
        """Always raise: a message cannot be published outside a transaction."""
        raise PlanariaError(
            "publish within a transaction: with producer.transaction() as tx: tx.publish(...)"
        )

    def _refuse_when_closed(self) -> None:
        self._network.refuse_when_closed()
        if self._is_closed:
            raise Closed("the producer is closed")

    def _init(self) -> ProducerIdentity:
        self._refuse_when_closed()
        last = self._last_identity
        request = InitProducer(
            transactional_id=self._transactional_id,
            transaction_timeout_ms=self._timeout_ms,
            producer_id=None if last is None else last.producer_id,
            producer_epoch=None if last is None else last.epoch,
        )
        try:
            reply = self._network.call(
                GATEWAY, request, InitProducerReply, timeout_ms=self._request_timeout_ms, asker=self
            )
        except ProducerFenced as error:
            self._fenced = error
            raise
        return self._take(reply)

    def _take(self, reply: InitProducerReply | EndTransactionReply) -> ProducerIdentity:
        self._coordinator = reply.endpoint or None
        self._identity = self._last_identity = ProducerIdentity(reply.producer_id, reply.producer_epoch)
        return self._identity

    # Called by the transaction.

    def _commit_offsets(self, request: CommitOffsets) -> None:
        self._network.call(GATEWAY, request, CommitOffsetsReply, timeout_ms=self._request_timeout_ms)

    def _end(self, transaction: "Transaction", commit: bool, groups: list[str]) -> None:
        """End the transaction once every message is acknowledged. Raises the error that prevented it.

        An abort does not wait: unacknowledged messages fail. A commit with a failed message becomes an abort.
        """
        assert self._current is transaction
        self._producer.suspend(PlanariaError("the transaction has ended"))
        if not commit:
            self._producer.drop()
        self._current = None
        identity, self._identity = transaction._identity, None
        receipt = Receipt()

        def ask() -> Call:
            request = EndTransaction(
                producer_id=identity.producer_id,
                producer_epoch=identity.epoch,
                commit=commit and self._producer.failure is None,
                partitions=_by_topic(self._producer.tps),
                groups=groups,
            )
            return Call(
                None,
                GATEWAY,
                request,
                EndTransactionReply,
                timeout_ms=self._request_timeout_ms,
                endpoint=self._coordinator,
                receipt=receipt,
                is_retried=True,
            )

        try:
            self._take(self._producer.conclude(ask).reply)
        except ProducerFenced as error:
            self._fenced = error
            raise
        except ProtocolError as error:
            self._explain(error, commit, receipt)
            raise
        if commit and self._producer.failure is not None:
            raise _aborted_by(self._producer.failure)

    def _explain(self, error: ProtocolError, commit: bool, receipt: Receipt) -> None:
        """Raise a more specific error for an end that was refused or had no reply, where there is one."""
        if error.code == ErrorCode.TRANSACTION_ABORTED:
            raise TransactionAborted(error.code, error.message) from None
        if commit and self._producer.failure is not None:
            raise _aborted_by(self._producer.failure)
        if commit and receipt.is_unsent:
            raise TransactionAborted(error.code, f"its end was never sent: {error.message}") from error
        if error.retriable or isinstance(error, TimedOut):
            message = f"whether it was {'committed' if commit else 'aborted'} is not known: {error.message}"
            raise TransactionUncertain(error.code, message) from error

    def close(self, timeout: Duration | None = None) -> None:
        """Abort the open transaction, and refuse further ones. Does nothing in a forked child.

        `timeout` (seconds or a timedelta; None: without limit) bounds the wait for the broker. Raises TimedOut.
        """
        if self._is_closed or self._network.is_inherited:
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
        self._groups: set[str] = set()
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
    ) -> Delivery:
        """Like `Producer.publish`, without `dedup_id`, `delay` and `deliver_at`. Raises when the transaction has
        ended.

        The Delivery is done when the broker has the message, which takes effect once the transaction commits. Do not
        use a reference to `tx.publish` after the end: it publishes in the transaction that is open then.
        """
        self._refuse()

    def commit_offsets(
        self,
        consumer: Committing,
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
        if request is None:
            return
        self._groups.add(request.group)
        self._owner._commit_offsets(
            CommitOffsets(
                group=request.group,
                offsets=request.offsets,
                member_id=request.member_id,
                generation=request.generation,
                producer_id=self._identity.producer_id,
                producer_epoch=self._identity.epoch,
            )
        )

    def commit(self) -> None:
        """Wait for every message, then commit. Once this returns the transaction is durable.

        Raises TransactionAborted when a part failed or it timed out, TransactionUncertain when no reply
        arrived, ProducerFenced when another producer has the transactional id.
        """
        if self._has_ended:
            self._refuse()
        self._close()
        self._owner._end(self, True, sorted(self._groups))

    def abort(self) -> None:
        """Abort: none of it will be read. A transaction that has ended is unchanged."""
        if self._has_ended:
            return
        self._close()
        self._owner._end(self, False, sorted(self._groups))

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


class _Part(BatchingProducer):
    """The underlying producer: it receives its identity, and records the partitions it wrote to."""

    def __init__(self, network: Network, options: ProducerOptions) -> None:
        super().__init__(network, options)
        self.tps: set[TopicPartition] = set()
        """Partitions with published messages since the last begin."""
        self.failure: Exception | None = None

    def begin(self, identity: ProducerIdentity) -> None:
        self.tps.clear()
        self.failure = None
        super().begin(identity)

    def finish(
        self, batch: Any, base_offset: int, error: Exception | None, is_duplicate: bool = False
    ) -> None:
        self.tps.add(TopicPartition(batch.topic, batch.partition))
        self.failure = self.failure or error
        super().finish(batch, base_offset, error, is_duplicate)


def _aborted_by(failure: Exception) -> TransactionAborted:
    code = failure.code if isinstance(failure, ProtocolError) else ErrorCode.TRANSACTION_ABORTED
    aborted = TransactionAborted(code, f"a message of it failed: {failure}")
    aborted.__cause__ = failure
    return aborted


def _by_topic(tps: set[TopicPartition]) -> TopicPartitions:
    found: TopicPartitions = {}
    for topic, partition in sorted(tps):
        found.setdefault(topic, []).append(partition)
    return found
