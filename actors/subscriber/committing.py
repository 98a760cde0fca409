"""Committing: moves the offsets, alone or in a transaction with the outputs. Impure: awaits the broker.

    delivery         a commit                                             a zombie is fenced by
    exactly-once     publishes, moves the offsets and commits: one        the producer's epoch, when it has a successor;
                     transaction, open no longer than that                member and generation, when its partition went
    the others       moves the offsets                                    member and generation

A transaction that fails is aborted. The machine keeps its content, and the next commit repeats it. Where a repeat can
never succeed, because an output topic was deleted or changed, the records are handled again. Where the outcome is
unknown, this incarnation cannot continue: the next one claims the transactional id, which completes or aborts the open
transaction, and reads from the committed offset. Called by the feed.
"""

import logging
from typing import Protocol, TypeAlias

from ...transport.aio.consumer import AsyncConsumer
from ...transport.aio.transactional import AsyncTransactionalProducer
from ...transport.client.errors import (
    DeliveryFailed,
    ProducerFenced,
    TransactionAborted,
    TransactionUncertain,
    UnknownTopic,
)
from ...transport.protocol.errors import ErrorCode, PlanariaError
from .effects import Commit, HandOver, Leave

CommitOrder: TypeAlias = Commit | HandOver | Leave

TRANSACTION_TIMEOUT_MS = 15_000
"""Timeout of the transaction of a process that died and does not return; readers of its partitions' offsets wait as
long.
"""
DELIVERY_TIMEOUT_MS = 5_000
"""Time for the publishes; then the transaction is aborted, so that one blocked partition does not hold up the readers
of others.
"""

_CHANGED = frozenset({ErrorCode.UNKNOWN_TOPIC, ErrorCode.UNKNOWN_PARTITION, ErrorCode.MESSAGE_TOO_LARGE})
"""Errors that mean a topic has changed since the handler published to it. On its next call, the handler's publish is
refused.
"""
_FOR_GOOD = frozenset({ErrorCode.INVALID_BATCH, ErrorCode.FORBIDDEN})

_log = logging.getLogger("planaria.subscriber")


class Undecided(PlanariaError):
    """The outcome of the commit is unknown, or no such commit can succeed any more."""


class Spoiled(PlanariaError):
    """Nothing was committed, and these outputs can never be committed: a topic has changed since they were made."""


class Committer(Protocol):
    is_exact: bool
    """True if a record with committed progress must never be handled again, even if the start is delayed."""

    async def prepare(self) -> None:
        """Prepare for joining the group; called before it."""

    async def commit(self, consumer: AsyncConsumer, order: CommitOrder) -> None:
        """Commit. Raises Undecided, Spoiled, or another PlanariaError if nothing was committed."""


class PlainCommits:
    is_exact = False

    async def prepare(self) -> None:
        """Do nothing: a previous incarnation leaves no state to end."""

    async def commit(self, consumer: AsyncConsumer, order: CommitOrder) -> None:
        await consumer.commit(order.offsets, order.metadata)


class AtomicCommits:
    is_exact = True

    def __init__(self, producer: AsyncTransactionalProducer) -> None:
        self._producer = producer

    async def prepare(self) -> None:
        """End the transaction that a previous incarnation left open: its partitions' offsets cannot be read before."""
        try:
            await self._producer.claim()
        except PlanariaError as error:
            # The first transaction claims the id, unless the open one times out before.
            _log.warning("transactional id not claimed", extra={"fields": {"reason": str(error)}})

    async def commit(self, consumer: AsyncConsumer, order: CommitOrder) -> None:
        try:
            async with self._producer.transaction() as tx:
                for each in order.outputs:
                    await tx._hand_over(
                        each.topic,
                        each.value,
                        key=each.key,
                        headers=each.headers,
                        partition=each.partition,
                        timestamp_ms=each.timestamp_ms,
                    )
                await tx.commit_offsets(consumer, order.offsets, order.metadata)
        except (TransactionUncertain, ProducerFenced) as error:
            raise Undecided(str(error)) from error
        except TransactionAborted as error:
            cause = error.__cause__
            if isinstance(cause, DeliveryFailed | UnknownTopic) and cause.code in _CHANGED:
                raise Spoiled(cause.message) from error
            if isinstance(cause, DeliveryFailed) and cause.code in _FOR_GOOD:
                raise Undecided(str(error)) from error
            raise
