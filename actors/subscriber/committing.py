"""How a commit is made: by itself, or in a transaction with what was published. Impure: asks the broker and waits.

    delivery         a commit                                             who is late is fenced by
    exactly-once     publishes, moves the offsets and commits: one        the producer's epoch, when it has a successor;
                     transaction, open no longer than that                member and generation, when its partition went
    the others       moves the offsets                                    member and generation

A transaction that fails is aborted, and the machine still has all that was in it: the next one says the same. Where that
can never succeed, because an output topic was deleted or changed, the records are handled again. Where the
end is in doubt, nobody can go on from here: a new incarnation claims the transactional id, which settles what is open,
and reads from what is committed. Called by the feed, on its thread.
"""

import logging
from typing import Protocol, TypeAlias

from ...transport.client.consumer import Consumer
from ...transport.client.errors import (
    DeliveryFailed,
    ProducerFenced,
    TransactionAborted,
    TransactionUncertain,
    UnknownTopic,
)
from ...transport.client.transactional import TransactionalProducer
from ...transport.protocol.errors import ErrorCode, PlanariaError
from .effects import Commit, HandOver, Leave

CommitOrder: TypeAlias = Commit | HandOver | Leave

TRANSACTION_TIMEOUT_MS = 15_000
"""Of a process that ended in the middle and does not come back; others wait so long for its partitions' offsets."""
DELIVERY_TIMEOUT_MS = 5_000
"""Then the transaction is aborted, so that its other partitions' readers do not wait for the one that takes nothing."""

_CHANGED = frozenset({ErrorCode.UNKNOWN_TOPIC, ErrorCode.UNKNOWN_PARTITION, ErrorCode.MESSAGE_TOO_LARGE})
"""A topic has changed since the handler published to it. Called anew, the handler is refused as it publishes."""
_FOR_GOOD = frozenset({ErrorCode.INVALID_BATCH, ErrorCode.FORBIDDEN})

_log = logging.getLogger("planaria.subscriber")


class Undecided(PlanariaError):
    """Nobody knows whether the commit was made, or none like it can be made any more."""


class Spoiled(PlanariaError):
    """Nothing was committed, and nothing that holds these outputs can be: a topic has changed since they were made."""


class Committing(Protocol):
    is_exact: bool
    """Whether a record whose progress was committed must not be handled again, whatever it costs to know."""

    def prepare(self) -> None:
        """Called before the group is joined."""

    def commit(self, consumer: Consumer, order: CommitOrder) -> None:
        """Raises Undecided, Spoiled, or another PlanariaError when surely nothing was committed."""


class PlainCommits:
    is_exact = False

    def prepare(self) -> None:
        """Nothing of an earlier life is in the way."""

    def commit(self, consumer: Consumer, order: CommitOrder) -> None:
        consumer.commit(order.offsets, order.metadata)


class AtomicCommits:
    is_exact = True

    def __init__(self, producer: TransactionalProducer) -> None:
        self._producer = producer

    def prepare(self) -> None:
        """End what an earlier life left open: its partitions' offsets cannot be read before."""
        try:
            self._producer.claim()
        except PlanariaError as error:
            # The first transaction does it, or the timeout of the one that is open.
            _log.warning("transactional id not claimed", extra={"fields": {"reason": str(error)}})

    def commit(self, consumer: Consumer, order: CommitOrder) -> None:
        try:
            with self._producer.transaction() as tx:
                for each in order.outputs:
                    tx.publish(
                        each.topic,
                        each.value,
                        each.key,
                        headers=each.headers,
                        partition=each.partition,
                        timestamp_ms=each.timestamp_ms,
                    )
                tx.commit_offsets(consumer, order.offsets, order.metadata)
        except (TransactionUncertain, ProducerFenced) as error:
            raise Undecided(str(error)) from error
        except UnknownTopic as error:
            raise Spoiled(str(error)) from error
        except TransactionAborted as error:
            cause = error.__cause__
            if isinstance(cause, DeliveryFailed) and cause.code in _CHANGED:
                raise Spoiled(cause.message) from error
            if isinstance(cause, DeliveryFailed) and cause.code in _FOR_GOOD:
                raise Undecided(str(error)) from error
            raise
