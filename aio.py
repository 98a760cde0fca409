"""`import planaria.aio`: the client for asyncio and trio. See `transport/aio/`."""

from .transport.aio import (
    AsyncClient,
    AsyncConsumer,
    AsyncProducer,
    AsyncReading,
    AsyncShareConsumer,
    AsyncShareMessage,
    AsyncTable,
    AsyncTransaction,
    AsyncTransactionalProducer,
    AsyncUntilSignal,
    Health,
    PublishHandle,
    connect,
    until_signal,
)

__all__ = [
    "AsyncClient",
    "AsyncConsumer",
    "AsyncProducer",
    "AsyncReading",
    "AsyncShareConsumer",
    "AsyncShareMessage",
    "AsyncTable",
    "AsyncTransaction",
    "AsyncTransactionalProducer",
    "AsyncUntilSignal",
    "Health",
    "PublishHandle",
    "connect",
    "until_signal",
]
