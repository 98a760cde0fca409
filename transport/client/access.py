"""The calls that Client and Broker share: they make producers and consumers, and administer the broker.

Never decides where a request goes; that is the exchange's business.
"""

import atexit
from collections.abc import Generator, Sequence
from typing import Unpack, overload

from ..keywords import ConsumerConfig, ProducerConfig, ShareConsumerConfig
from ..protocol.data import Isolation
from .admin import Admin
from .consumer import Consumer
from .messages import Message
from .network import Network
from .options import (
    ConsumerOptions,
    as_topics,
    check_name,
    check_sources,
    checked,
    checked_producer,
)
from .producer import Producer, batching_of
from .reading import Point, messages_of_spans, reading
from .share_consumer import ShareConsumer
from .share_messages import ShareOptions
from .table import Follower, Table
from .transactional import TransactionalProducer


class BrokerAccess(Admin):
    """Makes producers and consumers over one connection, which closes them with itself."""

    def __init__(self, network: Network, request_timeout_ms: int, client_id: str) -> None:
        super().__init__(network, request_timeout_ms)
        self._client_id = client_id

    @overload
    def producer(
        self, *, transactional_id: str, **options: Unpack[ProducerConfig]
    ) -> TransactionalProducer: ...

    @overload
    def producer(self, *, transactional_id: None = None, **options: Unpack[ProducerConfig]) -> Producer: ...

    def producer(
        self, *, transactional_id: str | None = None, **options: Unpack[ProducerConfig]
    ) -> Producer | TransactionalProducer:
        """Return a new producer; with a `transactional_id` (1 to 256 characters), one that writes in transactions.

            with client.producer(linger_ms=20, compression="zstd") as producer:
                for row in rows:
                    producer.publish("ORDERS", row, key=row["customer"])

        The options are those of ProducerConfig. Raises InvalidOption for an unknown or wrong option, Closed when the
        client is closed.
        """
        self._network.refuse_when_closed()
        options.setdefault("request_timeout_ms", self._request_timeout_ms)
        found = checked_producer({**options, "transactional_id": transactional_id})
        if found.transactional_id is not None:
            return self._network.keep(TransactionalProducer(self._network, found))
        producer = Producer(self._network, found)
        batching = self._network.keep(batching_of(producer))
        atexit.register(batching.flush_at_exit)
        return producer

    def consumer(
        self, group: str | None = None, topics: str | Sequence[str] = (), **options: Unpack[ConsumerConfig]
    ) -> Consumer:
        """Return a new consumer, for one thread at a time.

            with client.consumer("billing", ["ORDERS"], auto_offset_reset="earliest") as consumer:
                for message in consumer:
                    handle(message.key, message.data)

        With `group` and `topics` the group assigns partitions to it. With `partitions=[(topic, number), ...]` it reads
        exactly these, and uses the group only for commits. With `topics` alone it reads all their partitions. The
        options are those of ConsumerConfig. Raises InvalidOption for an unknown or wrong option, UnknownTopic without a
        group, Closed when the client is closed.
        """
        self._network.refuse_when_closed()
        options.setdefault("request_timeout_ms", self._request_timeout_ms)
        options.setdefault("client_id", self._client_id)
        if group is not None:
            check_name("group", group)
        consumer = Consumer(self._network, group, as_topics(topics), checked(ConsumerOptions, options))
        return self._network.keep(consumer)

    def read(
        self,
        topic: str,
        *,
        since: Point = "beginning",
        until: Point = "now",
        partitions: Sequence[int] | None = None,
        isolation: Isolation = "read_committed",
    ) -> Generator[Message, None, None]:
        """Yield the messages of a topic that are there now, then end. No group, nothing is committed.

            for message in client.read("ORDERS", since="24h"):
                print(message.offset, message.data)

        Reads all partitions or `partitions`, each in order. `since` and `until` are "beginning", "now", a time (a
        datetime, local without a zone, milliseconds since the epoch, or text as on the command line), a duration before
        now (a timedelta or text), or a dict of offsets by partition. `until` is exclusive and never beyond the end at the
        time of this call. Raises InvalidOption, UnknownTopic, ProtocolError with UNKNOWN_PARTITION, TimedOut; while
        iterating also TopicReplaced, CorruptData.
        """
        self._network.refuse_when_closed()
        what = reading(topic, since, until, partitions, isolation, self._request_timeout_ms)
        return messages_of_spans(self._network, what, what.spans(self._network), self._network.keep)

    def table(self, topic: str, *, isolation: Isolation = "read_committed") -> Table:
        """Return the values of a topic by key, a read-only Mapping that a thread keeps current.

            with client.table("BALANCES") as balances:
                print(balances["anna"], len(balances))

        It has everything that is in the topic now; later messages follow by themselves, and `wait_for` waits for one of
        them. For topics with `cleanup="compact"`. Raises InvalidOption, UnknownTopic, TimedOut, CorruptData, Closed.
        """
        self._network.refuse_when_closed()
        whole = reading(topic, "beginning", "now", None, isolation, self._request_timeout_ms)
        return Table(Follower(self._network, whole))

    def share_consumer(
        self, group: str, topics: str | Sequence[str], **options: Unpack[ShareConsumerConfig]
    ) -> ShareConsumer:
        """Return a new member of a share group, to which single messages are locked until they are acknowledged.

            with client.share_consumer("resize", "IMAGES") as consumer:
                for message in consumer:
                    with message:
                        resize(message.data)

        The options are those of ShareConsumerConfig. Raises InvalidOption for an unknown or wrong option, Closed when
        the client is closed.
        """
        self._network.refuse_when_closed()
        options.setdefault("request_timeout_ms", self._request_timeout_ms)
        check_name("group", group)
        found = as_topics(topics)
        check_sources(group, found, None)
        consumer = ShareConsumer(self._network, group, found, checked(ShareOptions, options))
        atexit.register(consumer._flush_at_exit)
        return self._network.keep(consumer)
