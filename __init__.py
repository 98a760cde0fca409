"""Planaria: a publish-subscribe broker of supervised processes that are restarted when they die.

    Broker      a broker of your own, embedded in this program
    Client      a connection to a running one; creates producers and consumers
    Message     a consumed message               Delivery    the result of `publish`
    Context     lets a handler publish
    PlanariaError   raised by calls; a refusal by the broker is a ProtocolError with its code

Every process of a broker imports this module, so the names are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .supervisor.broker import Broker
    from .supervisor.config import ConfigError
    from .supervisor.hosted import Subscription, SubscriptionFailed
    from .supervisor.launch import StartFailed
    from .supervisor.rehearsal import rehearse
    from .transport.addresses import TopicPartition
    from .transport.client.client import Client
    from .transport.client.consumer import Consumer
    from .transport.client.dead_letters import LetterFilter, histogram
    from .transport.client.delivery import Delivery, RecordMetadata
    from .transport.client.errors import (
        Backpressure,
        BufferFull,
        Closed,
        CommitFailed,
        CorruptData,
        DeliveryError,
        DeliveryFailed,
        DeliveryUncertain,
        Forked,
        GroupNotEmpty,
        LogTruncated,
        MemberFenced,
        NoOffset,
        OffsetOutOfRange,
        ProducerFenced,
        TimedOut,
        TopicExists,
        TopicReplaced,
        TransactionAborted,
        TransactionUncertain,
        UnknownGroup,
        UnknownTopic,
    )
    from .transport.client.messages import Message
    from .transport.client.options import InvalidOption
    from .transport.client.producer import Producer
    from .transport.client.redrive import Redrive
    from .transport.client.share_consumer import ShareConsumer
    from .transport.client.share_messages import ShareMessage
    from .transport.client.transactional import Transaction, TransactionalProducer
    from .transport.context import Context
    from .transport.keywords import (
        BrokerSettings,
        ConsumerConfig,
        ProducerConfig,
        QuotaSettings,
        ShareConsumerConfig,
        SubscriberConfig,
        TopicSettings,
    )
    from .transport.protocol.errors import PlanariaError, ProtocolError
    from .transport.subscription import InvalidSubscription
    from .transport.verdicts import Reject, Release

__version__ = "0.1.0"

_HOMES = {
    "Backpressure": ".transport.client.errors",
    "Broker": ".supervisor.broker",
    "BrokerSettings": ".transport.keywords",
    "BufferFull": ".transport.client.errors",
    "Client": ".transport.client.client",
    "Closed": ".transport.client.errors",
    "CommitFailed": ".transport.client.errors",
    "ConfigError": ".supervisor.config",
    "Consumer": ".transport.client.consumer",
    "ConsumerConfig": ".transport.keywords",
    "Context": ".transport.context",
    "CorruptData": ".transport.client.errors",
    "Delivery": ".transport.client.delivery",
    "DeliveryError": ".transport.client.errors",
    "DeliveryFailed": ".transport.client.errors",
    "DeliveryUncertain": ".transport.client.errors",
    "Forked": ".transport.client.errors",
    "GroupNotEmpty": ".transport.client.errors",
    "InvalidOption": ".transport.client.options",
    "InvalidSubscription": ".transport.subscription",
    "LetterFilter": ".transport.client.dead_letters",
    "LogTruncated": ".transport.client.errors",
    "MemberFenced": ".transport.client.errors",
    "Message": ".transport.client.messages",
    "NoOffset": ".transport.client.errors",
    "OffsetOutOfRange": ".transport.client.errors",
    "PlanariaError": ".transport.protocol.errors",
    "Producer": ".transport.client.producer",
    "ProducerConfig": ".transport.keywords",
    "ProducerFenced": ".transport.client.errors",
    "ProtocolError": ".transport.protocol.errors",
    "QuotaSettings": ".transport.keywords",
    "RecordMetadata": ".transport.client.delivery",
    "Redrive": ".transport.client.redrive",
    "Reject": ".transport.verdicts",
    "Release": ".transport.verdicts",
    "ShareConsumer": ".transport.client.share_consumer",
    "ShareConsumerConfig": ".transport.keywords",
    "ShareMessage": ".transport.client.share_messages",
    "StartFailed": ".supervisor.launch",
    "SubscriberConfig": ".transport.keywords",
    "Subscription": ".supervisor.hosted",
    "SubscriptionFailed": ".supervisor.hosted",
    "TimedOut": ".transport.client.errors",
    "TopicExists": ".transport.client.errors",
    "TopicPartition": ".transport.addresses",
    "TopicReplaced": ".transport.client.errors",
    "TopicSettings": ".transport.keywords",
    "Transaction": ".transport.client.transactional",
    "TransactionAborted": ".transport.client.errors",
    "TransactionUncertain": ".transport.client.errors",
    "TransactionalProducer": ".transport.client.transactional",
    "UnknownGroup": ".transport.client.errors",
    "UnknownTopic": ".transport.client.errors",
    "histogram": ".transport.client.dead_letters",
    "rehearse": ".supervisor.rehearsal",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


__all__ = [
    "Backpressure",
    "Broker",
    "BrokerSettings",
    "BufferFull",
    "Client",
    "Closed",
    "CommitFailed",
    "ConfigError",
    "Consumer",
    "ConsumerConfig",
    "Context",
    "CorruptData",
    "Delivery",
    "DeliveryError",
    "DeliveryFailed",
    "DeliveryUncertain",
    "Forked",
    "GroupNotEmpty",
    "InvalidOption",
    "InvalidSubscription",
    "LetterFilter",
    "LogTruncated",
    "MemberFenced",
    "Message",
    "NoOffset",
    "OffsetOutOfRange",
    "PlanariaError",
    "Producer",
    "ProducerConfig",
    "ProducerFenced",
    "ProtocolError",
    "QuotaSettings",
    "RecordMetadata",
    "Redrive",
    "Reject",
    "Release",
    "ShareConsumer",
    "ShareConsumerConfig",
    "ShareMessage",
    "StartFailed",
    "SubscriberConfig",
    "Subscription",
    "SubscriptionFailed",
    "TimedOut",
    "TopicExists",
    "TopicPartition",
    "TopicReplaced",
    "TopicSettings",
    "Transaction",
    "TransactionAborted",
    "TransactionUncertain",
    "TransactionalProducer",
    "UnknownGroup",
    "UnknownTopic",
    "__version__",
    "histogram",
    "rehearse",
]
