"""Clients and their machines: all that a program which only attaches needs."""

from .accumulator import Delivery, RecordMetadata
from .admin import TopicPartition
from .client import DEFAULT_ENDPOINT, Client
from .consumer import Consumer
from .errors import (
    BufferFull,
    Closed,
    CommitFailed,
    CorruptData,
    DeliveryFailed,
    DeliveryUncertain,
    NoOffset,
    OffsetOutOfRange,
    ProducerFenced,
    TimedOut,
    UnknownTopic,
)
from .messages import Message, MessageBatch
from .producer import Producer

__all__ = [
    "DEFAULT_ENDPOINT",
    "BufferFull",
    "Client",
    "Closed",
    "CommitFailed",
    "Consumer",
    "CorruptData",
    "Delivery",
    "DeliveryFailed",
    "DeliveryUncertain",
    "Message",
    "MessageBatch",
    "NoOffset",
    "OffsetOutOfRange",
    "Producer",
    "ProducerFenced",
    "RecordMetadata",
    "TimedOut",
    "TopicPartition",
    "UnknownTopic",
]
