"""Clients and their machines: all that a program which only attaches needs."""

from ..addresses import TopicPartition
from ..endpoints import DEFAULT_ENDPOINT
from .client import Client
from .consumer import Consumer
from .delivery import Delivery, RecordMetadata
from .errors import (
    AuthenticationFailed,
    Backpressure,
    BufferFull,
    Closed,
    CommitFailed,
    CorruptData,
    DeliveryError,
    DeliveryFailed,
    DeliveryUncertain,
    Forked,
    MemberFenced,
    NoOffset,
    OffsetOutOfRange,
    ProducerFenced,
    TimedOut,
    TransactionAborted,
    TransactionUncertain,
    UnknownTopic,
)
from .messages import Message, MessageBatch
from .options import InvalidOption
from .producer import Producer
from .transactional import Transaction, TransactionalProducer

__all__ = [
    "DEFAULT_ENDPOINT",
    "AuthenticationFailed",
    "Backpressure",
    "BufferFull",
    "Client",
    "Closed",
    "CommitFailed",
    "Consumer",
    "CorruptData",
    "Delivery",
    "DeliveryError",
    "DeliveryFailed",
    "DeliveryUncertain",
    "Forked",
    "InvalidOption",
    "MemberFenced",
    "Message",
    "MessageBatch",
    "NoOffset",
    "OffsetOutOfRange",
    "Producer",
    "ProducerFenced",
    "RecordMetadata",
    "TimedOut",
    "TopicPartition",
    "Transaction",
    "TransactionAborted",
    "TransactionUncertain",
    "TransactionalProducer",
    "UnknownTopic",
]
