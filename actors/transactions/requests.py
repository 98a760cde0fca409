"""The requests to a coordinator of transactions, and its decisions. Pure.

Owns the decisions: the records follow, and every answer waits until they are durable. So the answer to
`end_transaction` is the commit point, and markers are sent after it. Called by machine.py, which flushes.

    request              transaction                    decision
    init_producer        none                           a new producer id, epoch 0
                         is ending                      waits for the markers, TIMEOUT_MS; then CONCURRENT_TRANSACTIONS
                         Ongoing                        PrepareAbort; the answer waits as above
                         Empty, Complete*               the next epoch; the holder of the one before is fenced
                         (same holder, named by producer id and epoch: as above, but not fenced by another)
    add_to_transaction   the current epoch              Ongoing, with these participants
                         an older one, or unknown       these are sent its marker: an abort, if the outcome is unknown
    end_transaction      the current epoch              PrepareCommit | PrepareAbort, the next epoch
                         is ending (the one before)     waits as above
                         the one before, same outcome   answered as the first time
                         anything else                  PRODUCER_FENCED, TRANSACTION_ABORTED, INVALID_TRANSACTION
    (time)               Ongoing for too long           PrepareAbort
"""

from typing import Never

from msgspec import UNSET

from ...transport.machine import LoopEffect, Received, Reply
from ...transport.protocol.data import InitProducer, InitProducerReply
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done, Request, by_topic
from ...transport.protocol.transactions import (
    AddToTransaction,
    EndTransaction,
    EndTransactionReply,
    ListTransactions,
    ListTransactionsReply,
    TransactionDescription,
)
from ..journal.recorder import Recorder
from .decided import DecidedTransactions
from .markers import Markers
from .producer_numbers import ProducerNumbers
from .records import Change
from .transaction import Ended, Transaction, Why, topic_partitions_of
from .waiting_requests import WaitingRequests

REQUESTS: tuple[type[Request], ...] = (InitProducer, AddToTransaction, EndTransaction, ListTransactions)
MAX_IDS = 100_000
MAX_NAMED = 5
"""Maximum number of participants that an error names."""
OVERDUE_AGAIN_MS = 1_000
"""The delay before another attempt to end an overdue transaction for which there was no number."""


class TransactionRequests:
    def __init__(
        self,
        number: int,
        endpoint: str | None,
        node: str,
        transactions: dict[str, Transaction],
        recorder: Recorder[Change, Never],
        markers: Markers,
        now: int,
    ) -> None:
        self._endpoint = endpoint
        """The endpoint sent to each new holder."""
        self._node = node
        """The node, likewise, in a cluster."""
        self._recorder = recorder
        self._markers = markers
        self.decided = DecidedTransactions(transactions, now)
        self.numbers = ProducerNumbers(number)
        self.waiting = WaitingRequests()
        self.wall_offset_ms = 0
        """The lead of the wall clock over `now`."""

    def on_request(self, received: Received, now: int) -> list[LoopEffect]:
        try:
            self._recorder.check_room(received.sender, self.decided.change_count)
            return self._on_request(received, now)
        except ProtocolError as error:
            return [Reply(received.sender, error.body)]

    def _on_request(self, received: Received, now: int) -> list[LoopEffect]:
        match received.request:
            case InitProducer() as request:
                return self._on_init(received, request, now)
            case AddToTransaction() as request:
                return self._on_add(received, request, now)
            case EndTransaction() as request:
                return self._on_end(received, request, now)
            case ListTransactions():
                transactions = sorted(self.decided.transactions.items())
                found = [
                    _described(name, transaction, self.wall_offset_ms) for name, transaction in transactions
                ]
                return self._answer(received, ListTransactionsReply(transactions=found))
        raise AssertionError(f"unknown request {received.request!r}")

    def _on_init(self, received: Received, request: InitProducer, now: int) -> list[LoopEffect]:
        name = request.transactional_id
        assert name is not None, "the gateway sends others to the controller"
        transaction = self.decided.transactions.get(name)
        if transaction is None:
            return self._on_first(received, request, name, now)
        if transaction.is_ending:
            return self._wait(name, received, now)
        is_same = _is_same_holder(transaction, request)
        if request.producer_id is not None and not is_same:
            raise ProtocolError(ErrorCode.PRODUCER_FENCED, f"transactional id {name!r} has another holder")
        next_id = self.numbers.next_id(transaction)
        if next_id is None:
            return self._wait_for_number(received)
        why: Why = "asked" if is_same else "fenced"
        if transaction.state == "Ongoing":
            self.decided.decide(name, transaction.decided(False, why, next_id, now))
            return self._wait(name, received, now)
        if is_same and (request.producer_id, request.producer_epoch) != (
            transaction.producer_id,
            transaction.producer_epoch,
        ):
            # Its last transaction has ended, and the resulting producer id and epoch are not given out yet.
            return self._answer(
                received,
                InitProducerReply(
                    producer_id=transaction.producer_id, producer_epoch=transaction.producer_epoch
                ),
            )
        transaction = transaction.reopened(next_id, request.transaction_timeout_ms, why, now)
        self.decided.decide(name, transaction)
        return self._answer(
            received,
            InitProducerReply(producer_id=transaction.producer_id, producer_epoch=transaction.producer_epoch),
        )

    def _on_first(self, received: Received, request: InitProducer, name: str, now: int) -> list[LoopEffect]:
        if request.producer_id is not None:
            raise ProtocolError(ErrorCode.PRODUCER_FENCED, f"transactional id {name!r} is no longer known")
        if len(self.decided.transactions) >= MAX_IDS:
            raise ProtocolError(ErrorCode.OVERLOADED, f"there are {MAX_IDS} transactional ids")
        producer_id = self.numbers.first_id()
        if producer_id is None:
            return self._wait_for_number(received)
        self.decided.decide(name, Transaction("Empty", producer_id, 0, request.transaction_timeout_ms, now))
        return self._answer(received, InitProducerReply(producer_id=producer_id, producer_epoch=0))

    def _on_add(self, received: Received, request: AddToTransaction, now: int) -> list[LoopEffect]:
        identity = (request.producer_id, request.producer_epoch)
        name = self.decided.id_of(request.producer_id)
        transaction = None if name is None else self.decided.transactions[name]
        if (
            name is not None
            and transaction is not None
            and identity == (transaction.producer_id, transaction.producer_epoch)
        ):
            if transaction.is_ending:
                raise ProtocolError(
                    ErrorCode.CONCURRENT_TRANSACTIONS, "the previous transaction is still being ended"
                )
            joined = transaction.joined(request.partitions, request.groups, now)
            if (joined.partitions, joined.groups) != (transaction.partitions, transaction.groups):
                self.decided.decide(name, joined)
            return self._answer(received, Done())
        is_ahead = transaction is not None and request.producer_id == transaction.producer_id
        if is_ahead and transaction is not None and request.producer_epoch > transaction.producer_epoch:
            raise ProtocolError(
                ErrorCode.INVALID_TRANSACTION, f"there is no epoch {request.producer_epoch} yet"
            )
        if name is not None and self.decided.is_undurable(name):
            # A crash may still undo the outcome, so it must not be answered yet.
            raise ProtocolError(ErrorCode.CONCURRENT_TRANSACTIONS, "the end is still being recorded")
        ended = Ended(*identity, False, "fenced")
        if (
            transaction is not None
            and transaction.ended is not None
            and identity == _identity(transaction.ended)
        ):
            ended = transaction.ended
        tps = sorted(topic_partitions_of(request.partitions))
        return [Reply(received.sender, Done()), *self._markers.send_late(ended, tps, request.groups)]

    def _on_end(self, received: Received, request: EndTransaction, now: int) -> list[LoopEffect]:
        identity = (request.producer_id, request.producer_epoch)
        name = self.decided.id_of(request.producer_id)
        if name is None:
            raise ProtocolError(
                ErrorCode.INVALID_TRANSACTION, f"producer {request.producer_id} has no transactions"
            )
        transaction = self.decided.transactions[name]
        current = (transaction.producer_id, transaction.producer_epoch)
        if identity != current:
            return self._on_repeated_end(received, request, transaction)
        if transaction.is_ending:
            return self._wait(name, received, now)
        has_participants = request.partitions or request.groups or transaction.state == "Ongoing"
        if not has_participants:
            return self._answer(
                received, EndTransactionReply(producer_id=current[0], producer_epoch=current[1])
            )
        next_id = self.numbers.next_id(transaction)
        if next_id is None:
            return self._wait_for_number(received)
        joined = transaction.joined(request.partitions, request.groups, now)
        self.decided.decide(name, joined.decided(request.commit, "asked", next_id, now))
        return self._answer(received, EndTransactionReply(producer_id=next_id[0], producer_epoch=next_id[1]))

    def _on_repeated_end(
        self, received: Received, request: EndTransaction, transaction: Transaction
    ) -> list[LoopEffect]:
        identity = (request.producer_id, request.producer_epoch)
        ended = transaction.ended
        if ended is None or identity != _identity(ended) or ended.why == "fenced":
            if (
                identity > (transaction.producer_id, transaction.producer_epoch)
                and request.producer_id == transaction.producer_id
            ):
                raise ProtocolError(
                    ErrorCode.INVALID_TRANSACTION, f"there is no epoch {request.producer_epoch} yet"
                )
            raise ProtocolError(ErrorCode.PRODUCER_FENCED, "another producer uses the transactional id now")
        if request.commit == ended.is_committed:
            body = EndTransactionReply(
                producer_id=transaction.producer_id, producer_epoch=transaction.producer_epoch
            )
            return self._answer(received, body)
        if ended.why == "timeout":
            raise ProtocolError(
                ErrorCode.TRANSACTION_ABORTED, "the transaction was open for longer than its timeout"
            )
        outcome = "committed" if ended.is_committed else "aborted"
        raise ProtocolError(ErrorCode.INVALID_TRANSACTION, f"the transaction has been {outcome}")

    def _answer(
        self, received: Received, body: InitProducerReply | EndTransactionReply | Done | ListTransactionsReply
    ) -> list[LoopEffect]:
        """Answer once all decisions so far are durable."""
        if isinstance(body, InitProducerReply | EndTransactionReply):
            body.endpoint, body.node = self._endpoint or UNSET, self._node or UNSET
        return self._recorder.reply(received.sender, body, is_gathered=self.decided.change_count > 0)

    # Waiting

    def _wait(self, name: str, received: Received, now: int) -> list[LoopEffect]:
        """Let a request wait for the end of a transaction."""
        if not self.waiting.add(name, received, now):
            raise self._still_ending(name)
        return []

    def time_out(self, now: int) -> list[LoopEffect]:
        """Fail requests that have waited too long. Their senders may repeat them."""
        expired = self.waiting.take_expired(now)
        return [Reply(received.sender, self._still_ending(name).body) for name, received in expired]

    def _still_ending(self, name: str) -> ProtocolError:
        missing = self._markers.unanswered(name)
        who = ", ".join(missing[:MAX_NAMED]) + (" and others" if len(missing) > MAX_NAMED else "")
        why = f"{who} has not answered" if missing else "its record is not durable"
        message = f"the previous transaction is still being ended: {why}"
        return ProtocolError(ErrorCode.CONCURRENT_TRANSACTIONS, message)

    def _wait_for_number(self, received: Received) -> list[LoopEffect]:
        """Let a request wait until there is a number for a producer id."""
        self.numbers.wait(received)
        return []

    def on_number(self, number: int, now: int) -> list[LoopEffect]:
        waiting = self.numbers.add(number)
        return [] if waiting is None else self.on_request(waiting, now)

    # Outcomes

    def begin(self) -> tuple[list[LoopEffect], list[str]]:
        """Resend markers after the replay, because they may not have been written."""
        return self._send_markers(
            [
                (name, transaction)
                for name, transaction in self.decided.transactions.items()
                if transaction.is_ending
            ]
        )

    def on_durable(self, changes: list[Change]) -> tuple[list[LoopEffect], list[str]]:
        """Send the markers of transactions whose end is durable; return effects, and the ids that need none."""
        self.decided.on_durable(changes)
        return self._send_markers(
            [
                (each.transactional_id, each.transaction)
                for each in changes
                if each.transaction is not None and each.transaction.is_ending
            ]
        )

    def _send_markers(self, ending: list[tuple[str, Transaction]]) -> tuple[list[LoopEffect], list[str]]:
        effects: list[LoopEffect] = []
        finished: list[str] = []
        for name, transaction in ending:
            more, done = self._markers.send(name, transaction)
            effects += more
            finished += done
        return effects, finished

    def on_complete(self, names: list[str], now: int) -> list[LoopEffect]:
        """Complete transactions whose participants have all answered."""
        effects: list[LoopEffect] = []
        for name in names:
            self.decided.complete(name, now)
            for received in self.waiting.take(name):
                effects += self.on_request(received, now)
        return effects

    def abort_overdue(self, now: int) -> None:
        """Abort transactions that have exceeded their timeout."""
        for name in self.decided.overdue(now):
            transaction = self.decided.transactions[name]
            next_id = self.numbers.next_id(transaction)
            if next_id is None:
                self.decided.postpone(name, now + OVERDUE_AGAIN_MS)
            else:
                self.decided.decide(name, transaction.decided(False, "timeout", next_id, now))


def _identity(ended: Ended) -> tuple[int, int]:
    return ended.producer_id, ended.producer_epoch


def _is_same_holder(transaction: Transaction, request: InitProducer) -> bool:
    """Return True if the requester is the last holder of this transactional id."""
    given = (request.producer_id, request.producer_epoch)
    if given == (transaction.producer_id, transaction.producer_epoch):
        return True
    return (
        transaction.ended is not None
        and given == _identity(transaction.ended)
        and transaction.ended.why != "fenced"
    )


def _described(name: str, transaction: Transaction, wall_offset_ms: int) -> TransactionDescription:
    return TransactionDescription(
        transactional_id=name,
        state=transaction.state,
        producer_id=transaction.producer_id,
        producer_epoch=transaction.producer_epoch,
        timeout_ms=transaction.timeout_ms,
        started_ms=None if transaction.started_ms is None else transaction.started_ms + wall_offset_ms,
        partitions=by_topic(transaction.partitions),
        groups=list(transaction.groups),
    )
