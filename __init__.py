"""Planaria: a publish-subscribe broker of supervised processes that regrow whatever is killed.

    Broker      a broker of your own, embedded in this program
    Client      a connection to a running one; producers and consumers come from it
    Message     what a consumer hands out        Delivery    what `publish` returns
    Context     what a handler publishes by

Every process of a broker imports this module, so the names are loaded when they are first used and not before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .supervisor.broker import Broker
    from .transport.client.client import Client
    from .transport.client.consumer import Consumer
    from .transport.client.delivery import Delivery, RecordMetadata
    from .transport.client.messages import Message
    from .transport.client.producer import Producer
    from .transport.client.share_consumer import ShareConsumer, ShareMessage
    from .transport.context import Context
    from .transport.protocol.errors import PlanariaError, ProtocolError
    from .transport.verdicts import Reject, Release

__version__ = "0.1.0"

_HOMES = {
    "Broker": ".supervisor.broker",
    "Client": ".transport.client.client",
    "Consumer": ".transport.client.consumer",
    "Context": ".transport.context",
    "Delivery": ".transport.client.delivery",
    "Message": ".transport.client.messages",
    "PlanariaError": ".transport.protocol.errors",
    "Producer": ".transport.client.producer",
    "ProtocolError": ".transport.protocol.errors",
    "RecordMetadata": ".transport.client.delivery",
    "Reject": ".transport.verdicts",
    "Release": ".transport.verdicts",
    "ShareConsumer": ".transport.client.share_consumer",
    "ShareMessage": ".transport.client.share_consumer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


__all__ = [
    "Broker",
    "Client",
    "Consumer",
    "Context",
    "Delivery",
    "Message",
    "PlanariaError",
    "Producer",
    "ProtocolError",
    "RecordMetadata",
    "Reject",
    "Release",
    "ShareConsumer",
    "ShareMessage",
    "__version__",
]
