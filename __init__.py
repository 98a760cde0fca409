"""Planaria: a publish-subscribe broker of supervised processes that are restarted when they die.

    Broker      a broker of your own, embedded in this program
    App         handlers for `planaria worker`, declared beside their functions
    Client      a connection to a running one; creates producers and consumers
    Message     a consumed message               Delivery    the result of `publish`
    Context     lets a handler publish
    TopicDescription, GroupDescription, BrokerStatus, ...   the results of administrative calls
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
    from .transport.application import App
    from .transport.client.acknowledgements import Refused
    from .transport.client.client import Client
    from .transport.client.consumer import Consumer
    from .transport.client.dead_letters import DeadLetter, LetterFilter, histogram
    from .transport.client.delivery import Delivery, RecordMetadata
    from .transport.client.descriptions import (
        ActorStatus,
        BrokerStatus,
        CommittedOffset,
        Durations,
        GroupDescription,
        GroupMember,
        GroupPause,
        GroupPosition,
        GroupReport,
        HeldRange,
        KilledActor,
        LogPosition,
        LogReport,
        PartitionDescription,
        Quota,
        RecordInFlight,
        RecordRetrying,
        RetryingRange,
        RetryReport,
        ScheduledMessage,
        ShareGroupDescription,
        ShareGroupSettings,
        SharePartition,
        TopicDescription,
        TopicSummary,
        TransactionDescription,
    )
    from .transport.client.errors import (
        AuthenticationFailed,
        Backpressure,
        BufferFull,
        Closed,
        CommitFailed,
        Conflict,
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
    from .transport.client.messages import Message, MessageBatch
    from .transport.client.mirror_descriptions import (
        MirrorCut,
        MirrorDescription,
        MirroredTopic,
        MirrorFork,
        MirrorLag,
        TopicMirror,
    )
    from .transport.client.options import InvalidOption
    from .transport.client.producer import Producer
    from .transport.client.redrive import Redrive
    from .transport.client.redriving import RedriveRefused, RedriveReport
    from .transport.client.share_consumer import ShareConsumer
    from .transport.client.share_messages import ShareMessage
    from .transport.client.table import Table
    from .transport.client.transactional import Transaction, TransactionalProducer
    from .transport.client.until_signal import UntilSignal, until_signal
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
    from .transport.protocol.topics import TopicConfig
    from .transport.security.tls_options import Tls
    from .transport.subscription import InvalidSubscription
    from .transport.verdicts import Reject, Release

__version__ = "0.1.0"

_HOMES = {
    "ActorStatus": ".transport.client.descriptions",
    "App": ".transport.application",
    "AuthenticationFailed": ".transport.client.errors",
    "Backpressure": ".transport.client.errors",
    "Broker": ".supervisor.broker",
    "BrokerSettings": ".transport.keywords",
    "BrokerStatus": ".transport.client.descriptions",
    "BufferFull": ".transport.client.errors",
    "Client": ".transport.client.client",
    "Closed": ".transport.client.errors",
    "CommitFailed": ".transport.client.errors",
    "CommittedOffset": ".transport.client.descriptions",
    "ConfigError": ".supervisor.config",
    "Conflict": ".transport.client.errors",
    "Consumer": ".transport.client.consumer",
    "ConsumerConfig": ".transport.keywords",
    "Context": ".transport.context",
    "CorruptData": ".transport.client.errors",
    "DeadLetter": ".transport.client.dead_letters",
    "Delivery": ".transport.client.delivery",
    "DeliveryError": ".transport.client.errors",
    "DeliveryFailed": ".transport.client.errors",
    "DeliveryUncertain": ".transport.client.errors",
    "Durations": ".transport.client.descriptions",
    "Forked": ".transport.client.errors",
    "GroupDescription": ".transport.client.descriptions",
    "GroupMember": ".transport.client.descriptions",
    "GroupNotEmpty": ".transport.client.errors",
    "GroupPause": ".transport.client.descriptions",
    "GroupPosition": ".transport.client.descriptions",
    "GroupReport": ".transport.client.descriptions",
    "HeldRange": ".transport.client.descriptions",
    "InvalidOption": ".transport.client.options",
    "InvalidSubscription": ".transport.subscription",
    "KilledActor": ".transport.client.descriptions",
    "LetterFilter": ".transport.client.dead_letters",
    "LogPosition": ".transport.client.descriptions",
    "LogTruncated": ".transport.client.errors",
    "MemberFenced": ".transport.client.errors",
    "Message": ".transport.client.messages",
    "MessageBatch": ".transport.client.messages",
    "NoOffset": ".transport.client.errors",
    "OffsetOutOfRange": ".transport.client.errors",
    "PartitionDescription": ".transport.client.descriptions",
    "LogReport": ".transport.client.descriptions",
    "MirrorCut": ".transport.client.mirror_descriptions",
    "MirrorFork": ".transport.client.mirror_descriptions",
    "MirroredTopic": ".transport.client.mirror_descriptions",
    "MirrorLag": ".transport.client.mirror_descriptions",
    "MirrorDescription": ".transport.client.mirror_descriptions",
    "PlanariaError": ".transport.protocol.errors",
    "Producer": ".transport.client.producer",
    "ProducerConfig": ".transport.keywords",
    "ProducerFenced": ".transport.client.errors",
    "ProtocolError": ".transport.protocol.errors",
    "Quota": ".transport.client.descriptions",
    "QuotaSettings": ".transport.keywords",
    "RecordInFlight": ".transport.client.descriptions",
    "RecordMetadata": ".transport.client.delivery",
    "RecordRetrying": ".transport.client.descriptions",
    "Redrive": ".transport.client.redrive",
    "RedriveRefused": ".transport.client.redriving",
    "RedriveReport": ".transport.client.redriving",
    "Refused": ".transport.client.acknowledgements",
    "Reject": ".transport.verdicts",
    "Release": ".transport.verdicts",
    "RetryReport": ".transport.client.descriptions",
    "RetryingRange": ".transport.client.descriptions",
    "ScheduledMessage": ".transport.client.descriptions",
    "ShareConsumer": ".transport.client.share_consumer",
    "ShareConsumerConfig": ".transport.keywords",
    "ShareGroupDescription": ".transport.client.descriptions",
    "ShareGroupSettings": ".transport.client.descriptions",
    "ShareMessage": ".transport.client.share_messages",
    "SharePartition": ".transport.client.descriptions",
    "StartFailed": ".supervisor.launch",
    "SubscriberConfig": ".transport.keywords",
    "Subscription": ".supervisor.hosted",
    "SubscriptionFailed": ".supervisor.hosted",
    "Table": ".transport.client.table",
    "TimedOut": ".transport.client.errors",
    "Tls": ".transport.security.tls_options",
    "TopicConfig": ".transport.protocol.topics",
    "TopicDescription": ".transport.client.descriptions",
    "TopicMirror": ".transport.client.mirror_descriptions",
    "TopicExists": ".transport.client.errors",
    "TopicPartition": ".transport.addresses",
    "TopicReplaced": ".transport.client.errors",
    "TopicSettings": ".transport.keywords",
    "TopicSummary": ".transport.client.descriptions",
    "Transaction": ".transport.client.transactional",
    "TransactionAborted": ".transport.client.errors",
    "TransactionDescription": ".transport.client.descriptions",
    "TransactionUncertain": ".transport.client.errors",
    "TransactionalProducer": ".transport.client.transactional",
    "UnknownGroup": ".transport.client.errors",
    "UnknownTopic": ".transport.client.errors",
    "UntilSignal": ".transport.client.until_signal",
    "histogram": ".transport.client.dead_letters",
    "rehearse": ".supervisor.rehearsal",
    "until_signal": ".transport.client.until_signal",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


__all__ = [
    "ActorStatus",
    "App",
    "AuthenticationFailed",
    "Backpressure",
    "Broker",
    "BrokerSettings",
    "BrokerStatus",
    "BufferFull",
    "Client",
    "Closed",
    "CommitFailed",
    "CommittedOffset",
    "ConfigError",
    "Conflict",
    "Consumer",
    "ConsumerConfig",
    "Context",
    "CorruptData",
    "DeadLetter",
    "Delivery",
    "DeliveryError",
    "DeliveryFailed",
    "DeliveryUncertain",
    "Durations",
    "Forked",
    "GroupDescription",
    "GroupMember",
    "GroupNotEmpty",
    "GroupPause",
    "GroupPosition",
    "GroupReport",
    "HeldRange",
    "InvalidOption",
    "InvalidSubscription",
    "KilledActor",
    "LetterFilter",
    "LogPosition",
    "LogReport",
    "LogTruncated",
    "MemberFenced",
    "Message",
    "MessageBatch",
    "MirrorCut",
    "MirrorDescription",
    "MirrorFork",
    "MirrorLag",
    "MirroredTopic",
    "NoOffset",
    "OffsetOutOfRange",
    "PartitionDescription",
    "PlanariaError",
    "Producer",
    "ProducerConfig",
    "ProducerFenced",
    "ProtocolError",
    "Quota",
    "QuotaSettings",
    "RecordInFlight",
    "RecordMetadata",
    "RecordRetrying",
    "Redrive",
    "RedriveRefused",
    "RedriveReport",
    "Refused",
    "Reject",
    "Release",
    "RetryReport",
    "RetryingRange",
    "ScheduledMessage",
    "ShareConsumer",
    "ShareConsumerConfig",
    "ShareGroupDescription",
    "ShareGroupSettings",
    "ShareMessage",
    "SharePartition",
    "StartFailed",
    "SubscriberConfig",
    "Subscription",
    "SubscriptionFailed",
    "Table",
    "TimedOut",
    "Tls",
    "TopicConfig",
    "TopicDescription",
    "TopicExists",
    "TopicMirror",
    "TopicPartition",
    "TopicReplaced",
    "TopicSettings",
    "TopicSummary",
    "Transaction",
    "TransactionAborted",
    "TransactionDescription",
    "TransactionUncertain",
    "TransactionalProducer",
    "UnknownGroup",
    "UnknownTopic",
    "UntilSignal",
    "__version__",
    "histogram",
    "rehearse",
    "until_signal",
]
