"""`import planaria.aio`: the client for asyncio and trio. See `transport/aio/`."""

from .transport.aio.client import AsyncClient, Health, connect
from .transport.aio.consumer import AsyncConsumer
from .transport.aio.producer import AsyncProducer, PublishHandle
from .transport.aio.reading import AsyncReading
from .transport.aio.table import AsyncTable
from .transport.aio.transactional import AsyncTransaction, AsyncTransactionalProducer
from .transport.aio.until_signal import AsyncUntilSignal, until_signal
from .transport.aio.work import AsyncShareConsumer, AsyncShareMessage

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
