"""The client that programs hold: one connection to a broker, and what can be asked of it.

Owns the network thread and hands out producers and consumers that share it. Called by programs, the command line and the
embedded broker. Never decides where a request goes; that is the exchange's business.
"""

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, overload

from ..batch import Headers
from ..endpoints import DEFAULT_ENDPOINT
from .admin import Admin
from .consumer import Consumer
from .delivery import RecordMetadata
from .network import Network
from .options import (
    REQUEST_TIMEOUT_MS,
    ClientOptions,
    ConsumerOptions,
    InvalidOption,
    ProducerOptions,
    as_topics,
    check_name,
    checked,
)
from .producer import Producer
from .share_consumer import ShareConsumer, ShareOptions
from .transactional import TransactionalProducer


class Client(Admin):
    """A connection to a broker; a context manager. Safe to use from several threads."""

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        *,
        client_id: str = "",
        request_timeout_ms: int = REQUEST_TIMEOUT_MS,
        metadata_timeout_ms: int = 1_000,
    ) -> None:
        """Connects in the background: a broker that is not there yet shows at the first request.

        A request is retried until `request_timeout_ms` have passed, then TimedOut is raised. A topic that the broker
        does not know is waited for, for `metadata_timeout_ms`, because it may just have been created. Here and below
        InvalidOption is raised for an option that is unknown or wrong.
        """
        checked(
            ClientOptions,
            {
                "client_id": client_id,
                "request_timeout_ms": request_timeout_ms,
                "metadata_timeout_ms": metadata_timeout_ms,
            },
        )
        self._network = Network(endpoint, client_id=client_id, metadata_timeout_ms=metadata_timeout_ms)
        super().__init__(self._network, request_timeout_ms)
        self._client_id = client_id
        self._open: list[Any] = []
        self._publisher: Producer | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    @overload
    def producer(self, *, transactional_id: str, **options: Any) -> TransactionalProducer: ...

    @overload
    def producer(self, *, transactional_id: None = None, **options: Any) -> Producer: ...

    def producer(
        self, *, transactional_id: str | None = None, **options: Any
    ) -> Producer | TransactionalProducer:
        """A new producer, with a `transactional_id` one of transactions; `options` are the fields of ProducerOptions."""
        options.setdefault("request_timeout_ms", self._request_timeout_ms)
        found = checked(ProducerOptions, {**options, "transactional_id": transactional_id})
        if found.transactional_id is not None and found.acks != "all":
            raise InvalidOption("acks: must be 'all' with a transactional_id")
        kind = Producer if found.transactional_id is None else TransactionalProducer
        producer = kind(self._network, found)
        self._open.append(producer)
        return producer

    def consumer(
        self, group: str | None = None, topics: str | Sequence[str] = (), **options: Any
    ) -> Consumer:
        """A new consumer, for one thread at a time; `options` are the fields of ConsumerOptions."""
        options.setdefault("request_timeout_ms", self._request_timeout_ms)
        options.setdefault("client_id", self._client_id)
        if group is not None:
            check_name("group", group)
        consumer = Consumer(self._network, group, as_topics(topics), checked(ConsumerOptions, options))
        self._open.append(consumer)
        return consumer

    def share_consumer(self, group: str, topics: str | Sequence[str], **options: Any) -> ShareConsumer:
        """A member of a share group, to whom single records are locked; `options` are the fields of ShareOptions."""
        options.setdefault("request_timeout_ms", self._request_timeout_ms)
        check_name("group", group)
        consumer = ShareConsumer(self._network, group, as_topics(topics), checked(ShareOptions, options))
        self._open.append(consumer)
        return consumer

    def publish(
        self,
        topic: str,
        value: Any,
        key: bytes | str | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        dedup_id: str | None = None,
        deliver_at: datetime | int | None = None,
        delay: timedelta | float | None = None,
        scheduled_id: str | None = None,
    ) -> RecordMetadata:
        """Publish one message and wait for its acknowledgement. For more than a few, hold a producer."""
        with self._lock:
            if self._publisher is None:
                self._publisher = self.producer(delivery_timeout_ms=self._request_timeout_ms)
        delivery = self._publisher.publish(
            topic, value, key, headers, partition, timestamp_ms, dedup_id, deliver_at, delay, scheduled_id
        )
        return delivery.result()

    def close(self) -> None:
        """Close the producers and consumers that are still open, then the connection."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            for item in self._open:
                item.close()
        finally:
            self._network.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        self._is_closed = True
        try:
            for item in self._open:
                item.__exit__(kind, error, trace)
        finally:
            self._network.close()
