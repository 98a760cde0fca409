"""The client for asyncio and trio.

The machines and the network thread are those of the client for threads (`transport/client/`); here they have an
asynchronous face:

    loops.py      the running loop, and the queue from the network thread into it: one wake-up for each turn of the thread
    calls.py      calls and outcomes that a task waits for
    the others    the objects that programs use
"""

from .client import AsyncClient, Health, connect
from .consumer import AsyncConsumer
from .producer import AsyncProducer, PublishHandle
from .reading import AsyncReading
from .table import AsyncTable
from .transactional import AsyncTransaction, AsyncTransactionalProducer
from .until_signal import AsyncUntilSignal, until_signal
from .work import AsyncShareConsumer, AsyncShareMessage

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
