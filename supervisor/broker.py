"""The embedded broker: the whole tree of processes behind one object in your program.

Owns the supervisor it started (a process of its own, which ends with this one however this one dies), a client of it, the
hosted subscriptions, and the in-process consumers of `subscribe` without a handler. When the supervisor is killed it is
started again on the same port and the same data, and the subscriptions are installed again. Runs no actor itself.
"""

import atexit
import logging
import os
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Unpack, overload

from ..transport.client.client import Client
from ..transport.client.consumer import Consumer
from ..transport.client.delivery import RecordMetadata
from ..transport.client.errors import TopicExists
from ..transport.client.messages import Message
from ..transport.client.options import REQUEST_TIMEOUT_MS
from ..transport.client.producer import Producer
from ..transport.client.share_consumer import ShareConsumer
from ..transport.client.transactional import TransactionalProducer
from ..transport.keywords import (
    BrokerSettings,
    ConsumerConfig,
    ProducerConfig,
    ShareConsumerConfig,
    SubscriberConfig,
    TopicSettings,
)
from ..transport.protocol.errors import ErrorCode, PlanariaError
from ..transport.protocol.operations import KillReply, StatusReply
from ..transport.protocol.topics import DescribeTopicReply
from . import config as configuration
from .admin_link import AdminLink
from .hosted import HostedSubscriptions, Subscription
from .keeper import SupervisorKeeper

EMBEDDED_ENDPOINT = "tcp://127.0.0.1:*"
"""A free port, so that embedded brokers do not get in each other's way; `Broker.endpoint` says which."""
LOG_FILE = "logs/broker.log"


_log = logging.getLogger(__name__)


class Broker:
    """A broker of your own, in child processes.

    `data_dir` holds everything that lasts (default `planaria-data`); `settings` are the keys of planaria.toml, such as
    `hang_timeout_ms=1000`. Serves when the constructor returns; ends with `close`, with the `with` block, or with the
    program. Raises ConfigError for a wrong setting and StartFailed when it cannot start, both in one line.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        endpoint: str | None = None,
        **settings: Unpack[BrokerSettings],
    ) -> None:
        overrides: dict[str, Any] = {"log_file": LOG_FILE, **settings}
        if data_dir is not None:
            overrides["data"] = os.fspath(data_dir)
        overrides["endpoint"] = endpoint or os.environ.get("PLANARIA_ENDPOINT", EMBEDDED_ENDPOINT)
        self._keeper = SupervisorKeeper(configuration.load(overrides, environment=os.environ))
        self.endpoint = self._keeper.started.endpoint
        """Where clients of any language connect."""
        self.client = Client(self.endpoint, client_id="embedded")
        self._consumers: dict[tuple[str, str], _NamedConsumer] = {}
        self._hosted = HostedSubscriptions(self._keeper, self.client)
        self._is_closed = False
        atexit.register(self.close)

    def __enter__(self) -> "Broker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything in order: consumers commit, handlers finish, logs are synced. Closing twice is nothing.

        Does nothing in a forked child: the broker is its parent's.
        """
        if self._is_closed or self._keeper.is_inherited:
            return
        self._is_closed = True
        atexit.unregister(self.close)
        try:
            for named in self._consumers.values():
                named.consumer.close()
            self.client.close()
        finally:
            self._keeper.close()

    @property
    def supervisor_pid(self) -> int:
        """The supervisor's process id; another one after it was killed and started again."""
        return self._keeper.started.pid

    def create_topic(
        self, topic: str, partitions: int = 1, **config: Unpack[TopicSettings]
    ) -> DescribeTopicReply:
        """Declare a topic: created when it is new, left as it is when it has at least so many partitions already.

        A setting of an existing topic that differs from `config` stays, and a warning in the log tells of it. Raises
        TopicExists when the topic has fewer partitions.
        """
        description = self.client.create_topic(topic, partitions, if_not_exists=True, **config)
        for name, value in config.items():
            found = getattr(description.config, name)
            if value is not None and found != value:
                _log.warning(
                    "topic %s has %s = %r, not %r; alter_topic changes it", topic, name, found, value
                )
        if len(description.partitions) < partitions:
            raise TopicExists(
                ErrorCode.TOPIC_EXISTS,
                f"topic {topic!r} exists with {len(description.partitions)} partitions, not {partitions};"
                " alter_topic lets it grow",
            )
        return description

    def publish(
        self,
        topic: str,
        key: bytes | str | None,
        value: Any,
        *,
        headers: dict[str, str] | None = None,
        dedup_id: str | None = None,
        deliver_at: datetime | int | None = None,
        delay: timedelta | float | None = None,
        scheduled_id: str | None = None,
        timeout: float | None = 30.0,
    ) -> RecordMetadata:
        """Publish one message and wait until it is durable. For many messages use `producer()`.

        The key comes before the value here alone; `Client.publish` and all others take the key by keyword.

        A repeat of a `dedup_id` within the topic's window is not written again: the first one's place is returned.
        With `deliver_at` or `delay` (seconds) it is held back until then, under the `scheduled_id` that is returned.
        """
        return self.client.publish(
            topic,
            value,
            key=key,
            headers=headers,
            dedup_id=dedup_id,
            deliver_at=deliver_at,
            delay=delay,
            scheduled_id=scheduled_id,
            timeout=timeout,
        )

    @overload
    def producer(
        self, *, transactional_id: str, **options: Unpack[ProducerConfig]
    ) -> TransactionalProducer: ...

    @overload
    def producer(self, *, transactional_id: None = None, **options: Unpack[ProducerConfig]) -> Producer: ...

    def producer(
        self, *, transactional_id: str | None = None, **options: Unpack[ProducerConfig]
    ) -> Producer | TransactionalProducer:
        """Return a new producer, as `Client.producer` does."""
        if transactional_id is None:
            return self.client.producer(**options)
        return self.client.producer(transactional_id=transactional_id, **options)

    def consumer(
        self, group: str | None = None, topics: str | Sequence[str] = (), **options: Unpack[ConsumerConfig]
    ) -> Consumer:
        """Return a new consumer, as `Client.consumer` does."""
        return self.client.consumer(group, topics, **options)

    def share_consumer(
        self, group: str, topics: str | Sequence[str], **options: Unpack[ShareConsumerConfig]
    ) -> ShareConsumer:
        """Return a new member of a share group, as `Client.share_consumer` does."""
        return self.client.share_consumer(group, topics, **options)

    @overload
    def subscribe(
        self,
        group: str,
        topic: str | list[str],
        consumer: None = None,
        *,
        handler: Callable[..., object] | str,
        workers: int = 1,
        **options: Unpack[SubscriberConfig],
    ) -> Subscription: ...

    @overload
    def subscribe(
        self,
        group: str,
        topic: str | list[str],
        consumer: str,
        **options: Unpack[ConsumerConfig],
    ) -> None: ...

    def subscribe(
        self,
        group: str,
        topic: str | list[str],
        consumer: str | None = None,
        *,
        handler: Callable[..., object] | str | None = None,
        workers: int = 1,
        **options: Any,
    ) -> Subscription | None:
        """Subscribe a group to a topic or several.

        With a `handler` (a function, or `"module:function"`), `workers` supervised processes run it, with the options
        of SubscriberConfig. It receives a message, and a Context to publish with if it takes two arguments. Returns the
        Subscription when all processes are ready; raises InvalidSubscription or SubscriptionFailed.

        Without a handler, `consumer` names a member in this program, with the options of ConsumerConfig, whose messages
        `consume` returns. Raises InvalidOption, or PlanariaError when the name is taken.
        """
        self._keeper.refuse_when_inherited()
        topics = [topic] if isinstance(topic, str) else list(topic)
        if handler is not None:
            if consumer is not None:
                raise PlanariaError("a subscription has a handler or a named consumer, not both")
            return self._hosted.install(group, topics, handler, workers, self.endpoint, options)
        if consumer is None:
            raise PlanariaError("subscribe needs a handler, or the name of a consumer for consume()")
        if (group, consumer) in self._consumers:
            raise PlanariaError(f"consumer {consumer!r} is subscribed in group {group!r} already")
        options.setdefault("auto_offset_reset", "earliest")
        self._consumers[group, consumer] = _NamedConsumer(self.client.consumer(group, topics, **options))
        return None

    def consume(self, group: str, consumer: str, timeout: float | None = 10.0) -> Message | None:
        """The next message of a named consumer, None when none came in `timeout` seconds.

        The message of an earlier call counts as handled and is committed in the background and on `close`.
        """
        named = self._named(group, consumer)
        found = named.consumer.poll(timeout, max_messages=1)
        if not found:
            return None
        named.last = found[0]
        return found[0]

    def get_offset(self, group: str, consumer: str) -> int:
        """The offset after the last message that `consume` gave to this consumer, in that message's partition.

        From there the group goes on. Raises PlanariaError when nothing has been consumed yet.
        """
        last = self._named(group, consumer).last
        if last is None:
            raise PlanariaError(f"consumer {consumer!r} of group {group!r} has consumed nothing yet")
        return last.offset + 1

    def status(self) -> StatusReply:
        """The tree of processes, as `planaria status` shows it. The supervisor answers, whatever the gateway does.

        While a killed supervisor has no successor, this waits for it. Raises TimedOut after REQUEST_TIMEOUT_MS.
        """
        return self._keeper.ask(AdminLink.status, REQUEST_TIMEOUT_MS, is_retried=True)

    def kill(self, address: str, signal: str = "SIGKILL") -> KillReply:
        """Send an actor a signal, to watch it regrow. The supervisor does it, whatever the gateway does.

        Waits for a supervisor as `status` does, but is sent once: when the supervisor ends after that, a ProtocolError
        with ACTOR_UNAVAILABLE is raised, for a second signal would reach the actor's successor.
        """
        return self._keeper.ask(lambda link: link.kill(address, signal), REQUEST_TIMEOUT_MS, is_retried=False)

    def _named(self, group: str, consumer: str) -> "_NamedConsumer":
        self._keeper.refuse_when_inherited()
        named = self._consumers.get((group, consumer))
        if named is None:
            raise PlanariaError(f"no consumer {consumer!r} in group {group!r}: subscribe it first")
        return named


class _NamedConsumer:
    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.last: Message | None = None
