"""The decisions of a transactional producer: its states, requests, and the meaning of a lost answer. Pure.

    state      meaning                                                        predecessors
    unclaimed  it has no producer id and epoch                                claiming
    claiming   InitProducer is in flight: it ends the transaction before      unclaimed, uncertain
    idle       the next transaction has its producer id and epoch             claiming, ending
    open       messages and offsets are taken                                 idle
    ending     nothing more is taken; once all is done EndTransaction leaves   open
    uncertain  the end had no answer, or was refused: the next claim settles it  ending, claiming
    fenced     another producer has the transactional id; permanent           claiming, ending

The program's side calls it, a thread or a task, one call at a time. Only `on_done` and `end_call` run on the network
thread, between `end` and the outcome of the end, or while messages are published. Called by `transactional.py`.

Invariants
    A transaction commits only if each of its messages was acknowledged.
    An identity is used for one transaction, or for a second one after a transaction in which nothing was written.
    An error that leaves the outcome open is TransactionUncertain, and no other error does.
"""

from typing import Literal

from ..addresses import GATEWAY, TopicPartition
from ..machine import Call, Receipt
from ..protocol.data import InitProducer, InitProducerReply
from ..protocol.errors import ErrorCode, PlanariaError, ProtocolError
from ..protocol.groups import CommitOffsets
from ..protocol.message import by_topic
from ..protocol.transactions import EndTransaction, EndTransactionReply
from .errors import ProducerFenced, TimedOut, TransactionAborted, TransactionUncertain
from .lanes import ProducerIdentity
from .options import ProducerOptions

State = Literal["unclaimed", "claiming", "idle", "open", "ending", "uncertain", "fenced"]
PREDECESSORS: dict[State, frozenset[State]] = {
    "unclaimed": frozenset({"claiming"}),
    "claiming": frozenset({"unclaimed", "uncertain"}),
    "idle": frozenset({"claiming", "ending"}),
    "open": frozenset({"idle"}),
    "ending": frozenset({"open"}),
    "uncertain": frozenset({"ending", "claiming"}),
    "fenced": frozenset({"claiming", "ending"}),
}


class Transacting:
    """A transactional producer without threads, sockets and batches."""

    def __init__(self, options: ProducerOptions) -> None:
        assert options.transactional_id is not None
        self.state: State = "unclaimed"
        self.identity: ProducerIdentity | None = None
        """The identity of the present transaction, or of the last one, by which the coordinator knows this producer."""
        self.transactional_id = options.transactional_id
        self._timeout_ms = options.transaction_timeout_ms
        self._request_timeout_ms = options.request_timeout_ms
        self._coordinator: str | None = None
        """The coordinator's endpoint, for a client on its machine."""
        self._node: str | None = None
        """The coordinator's node, in a cluster."""
        self._fenced: ProducerFenced | None = None
        self._tps: set[TopicPartition] = set()
        """Partitions with messages of this transaction."""
        self._groups: set[str] = set()
        self._failure: Exception | None = None
        self._is_commit = False
        self._receipt = Receipt()

    def _become(self, state: State) -> None:
        assert self.state in PREDECESSORS[state], f"{self.state} -> {state}"
        self.state = state

    # Claiming.

    def claim(self) -> Call | None:
        """Return the request for an identity; None if there is one. Raises ProducerFenced.

        `on_claimed` or `on_claim_failed` follows.
        """
        if self._fenced is not None:
            raise self._fenced
        if self.state not in ("unclaimed", "uncertain"):
            return None
        last = self.identity
        self._become("claiming")
        request = InitProducer(
            transactional_id=self.transactional_id,
            transaction_timeout_ms=self._timeout_ms,
            producer_id=None if last is None else last.producer_id,
            producer_epoch=None if last is None else last.epoch,
        )
        timeout_ms = self._request_timeout_ms
        return Call(None, GATEWAY, request, InitProducerReply, timeout_ms=timeout_ms, is_retried=True)

    def on_claim_failed(self, error: BaseException) -> None:
        """Take the error or interrupt that ended the claim. A later claim tries again."""
        if isinstance(error, ProducerFenced):
            self._become("fenced")
            self._fenced = error
        else:
            self._become("unclaimed" if self.identity is None else "uncertain")

    def on_claimed(self, reply: InitProducerReply | EndTransactionReply) -> None:
        """Take the identity of the next transaction."""
        self._become("idle")
        self._coordinator, self._node = reply.endpoint or None, reply.node or None
        self.identity = ProducerIdentity(reply.producer_id, reply.producer_epoch)

    # A transaction.

    def refuse_while_open(self) -> None:
        if self.state in ("open", "ending"):
            raise PlanariaError("a transaction is open already; end it first")

    def begin(self) -> ProducerIdentity:
        """Begin a transaction under the claimed identity."""
        self._become("open")
        assert self.identity is not None
        self._tps.clear()
        self._groups.clear()
        self._failure = None
        return self.identity

    def offsets(self, request: CommitOffsets) -> CommitOffsets:
        """Return a consumer's commit as one of this transaction, which then names the group at its end."""
        assert self.state == "open", self.state
        assert self.identity is not None
        self._groups.add(request.group)
        return CommitOffsets(
            group=request.group,
            offsets=request.offsets,
            member_id=request.member_id,
            generation=request.generation,
            producer_id=self.identity.producer_id,
            producer_epoch=self.identity.epoch,
        )

    def on_done(self, tp: TopicPartition, error: Exception | None) -> None:
        """Take the outcome of a batch of messages. Runs on the network thread."""
        self._tps.add(tp)
        self._failure = self._failure or error

    # The end.

    def end(self, *, is_commit: bool) -> None:
        """Take nothing more. An abort drops the messages that are not acknowledged; a commit waits for them."""
        self._become("ending")
        self._is_commit = is_commit
        self._receipt = Receipt()

    def end_call(self) -> Call | None:
        """Return the request that ends the transaction. Runs on the network thread, once every message is done.

        A commit with a failed message becomes an abort. None if the program was interrupted meanwhile: the next claim
        ends the transaction.
        """
        if self.state != "ending":
            return None
        assert self.identity is not None
        request = EndTransaction(
            producer_id=self.identity.producer_id,
            producer_epoch=self.identity.epoch,
            commit=self._is_commit and self._failure is None,
            partitions=by_topic(self._tps),
            groups=sorted(self._groups),
        )
        return Call(
            None,
            GATEWAY,
            request,
            EndTransactionReply,
            timeout_ms=self._request_timeout_ms,
            endpoint=self._coordinator,
            node=self._node,
            receipt=self._receipt,
            is_retried=True,
        )

    def on_ended(self, reply: EndTransactionReply) -> None:
        """Take the reply. Raises TransactionAborted for a commit that became an abort."""
        self.on_claimed(reply)
        if self._is_commit and self._failure is not None:
            raise aborted_by(self._failure)

    def on_end_failed(self, error: BaseException) -> BaseException:
        """Return the error for the program, where there is a more specific one than that of the request."""
        if isinstance(error, ProducerFenced):
            self._become("fenced")
            self._fenced = error
            return error
        self._become("uncertain")
        if not isinstance(error, ProtocolError):
            return error
        outcome = "committed" if self._is_commit else "aborted"
        explained: ProtocolError = error
        if error.code == ErrorCode.TRANSACTION_ABORTED:
            explained = TransactionAborted(error.code, error.message)
            explained.__suppress_context__ = True  # it says no more than this one
        elif self._is_commit and self._failure is not None:
            explained = aborted_by(self._failure)
        elif self._is_commit and self._receipt.is_unsent:
            explained = TransactionAborted(error.code, f"its end was never sent: {error.message}")
            explained.__cause__ = error
        elif error.retriable or isinstance(error, TimedOut):
            message = f"whether it was {outcome} is not known: {error.message}"
            explained = TransactionUncertain(error.code, message)
            explained.__cause__ = error
        return explained


def aborted_by(failure: Exception) -> TransactionAborted:
    """Return the error of a commit that became an abort because a message failed."""
    code = failure.code if isinstance(failure, ProtocolError) else ErrorCode.TRANSACTION_ABORTED
    aborted = TransactionAborted(code, f"a message of it failed: {failure}")
    aborted.__cause__ = failure
    return aborted
