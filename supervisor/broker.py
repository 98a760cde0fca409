"""The embedded broker: the whole tree of processes behind one object in your program.

Owns the supervisor it started (a process of its own, which ends with this one however this one dies), a client of it, the
hosted subscriptions, and the in-process consumers of `subscribe` without a handler. When the supervisor is killed it is
started again on the same port and the same data, and the subscriptions are installed again. Runs no actor itself.
"""

import atexit
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Unpack, overload

from ..transport.addresses import HTTP
from ..transport.client.access import BrokerAccess
from ..transport.client.admin_requests import ReplyT
from ..transport.client.client import Client
from ..transport.client.consumer import Consumer
from ..transport.client.delivery import RecordMetadata
from ..transport.client.descriptions import TopicDescription
from ..transport.client.messages import Message
from ..transport.client.options import REQUEST_TIMEOUT_MS, Duration
from ..transport.durations import in_milliseconds
from ..transport.keywords import BrokerSettings, ConsumerConfig, SubscriberConfig, TopicSettings
from ..transport.protocol.errors import PlanariaError
from ..transport.protocol.message import Request
from ..transport.security.broker_keys import internal_key_in
from . import config as configuration
from .hosted import HostedSubscriptions, Subscription
from .keeper import SupervisorKeeper

EMBEDDED_ENDPOINT = "tcp://127.0.0.1:*"
"""A free port, so that embedded brokers do not get in each other's way; `Broker.endpoint` says which."""
LOG_FILE = "logs/broker.log"
CLIENT_ID = "embedded"


class Broker(BrokerAccess):
    """A broker of your own, in child processes, with all calls of a Client.

        with Broker("data") as broker:
            broker.create_topic("ORDERS", 3)
            broker.publish("ORDERS", "order-1", {"amount": 100})
            broker.subscribe("billing", "ORDERS", handler=handle, retries=3)

    `data_dir`, or the setting `data`, holds everything that lasts (default `planaria-data`); `settings` are the keys of
    planaria.toml, such as `hang_timeout_ms=1000`. Serves when the constructor returns; ends with `close`, with the `with`
    block, or with the program. Raises ConfigError for a wrong setting and StartFailed when it cannot start, both in one
    line.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        endpoint: str | None = None,
        **settings: Unpack[BrokerSettings],
    ) -> None:
        overrides: dict[str, Any] = {"log_file": LOG_FILE, **in_milliseconds(settings)}
        if isinstance(defaults := overrides.get("topic_defaults"), dict):
            overrides["topic_defaults"] = in_milliseconds(defaults)
        if data_dir is not None:
            if "data" in overrides:
                raise configuration.ConfigError(
                    "data: the data directory is given twice, as `data_dir` and as `data`"
                )
            overrides["data"] = data_dir
        overrides["endpoint"] = endpoint or os.environ.get("PLANARIA_ENDPOINT", EMBEDDED_ENDPOINT)
        config = configuration.load(overrides, environment=os.environ)
        self._keeper = SupervisorKeeper(config)
        self.endpoint = self._keeper.started.endpoint
        """Where clients of any language connect."""
        key = internal_key_in(config.data) if config.authentication != "none" else None
        self.client = Client(self.endpoint, client_id=CLIENT_ID, key=key)
        super().__init__(self.client._network, REQUEST_TIMEOUT_MS, CLIENT_ID)
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
    def http_endpoint(self) -> str | None:
        """The URL at which metrics and probes are served, such as `http://127.0.0.1:5572`; None without the setting."""
        actors = self.client.status().actors
        return next((actor.endpoint for actor in actors if actor.address == HTTP), None)

    @property
    def supervisor_pid(self) -> int:
        """The supervisor's process id; another one after it was killed and started again."""
        return self._keeper.started.pid

    def create_topic(
        self, topic: str, partitions: int = 1, *, if_not_exists: bool = True, **config: Unpack[TopicSettings]
    ) -> TopicDescription:
        """Declare a topic: `Client.create_topic` whose `if_not_exists` is True unless given.

            broker.create_topic("ORDERS", 3)

        The topic is created when it is new, and otherwise returned as it is; a setting that differs from `config` is
        reported by a warning in the log. Raises TopicExists when the topic has fewer partitions.
        """
        return super().create_topic(topic, partitions, if_not_exists=if_not_exists, **config)

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
        expected_offset: int | None = None,
        expected_key_version: int | None = None,
        expires_at: datetime | int | None = None,
        priority: int | None = None,
        timeout: Duration | None = 30.0,
    ) -> RecordMetadata:
        """Publish one message and wait until it is durable. For many messages use `producer()`.

            broker.publish("ORDERS", "order-1", {"amount": 100}, headers={"source": "web"})

        The key comes before the value here alone; `Client.publish` and all others take the key by keyword. The other
        arguments and the errors are those of `Client.publish`; `timeout` is in seconds or a timedelta.
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
            expected_offset=expected_offset,
            expected_key_version=expected_key_version,
            expires_at=expires_at,
            priority=priority,
            timeout=timeout,
        )

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
            return self._hosted.install(
                group, topics, handler, workers, self.endpoint, in_milliseconds(options)
            )
        if consumer is None:
            raise PlanariaError("subscribe needs a handler, or the name of a consumer for consume()")
        if (group, consumer) in self._consumers:
            raise PlanariaError(f"consumer {consumer!r} is subscribed in group {group!r} already")
        options.setdefault("auto_offset_reset", "earliest")
        self._consumers[group, consumer] = _NamedConsumer(self.client.consumer(group, topics, **options))
        return None

    def consume(self, group: str, consumer: str, timeout: Duration | None = 10.0) -> Message | None:
        """Return the next message of a named consumer, or None after `timeout` (seconds or a timedelta).

            message = broker.consume("billing", "consumer-1")

        The message of an earlier call counts as handled and is committed in the background and on `close`. Raises
        PlanariaError for a consumer that `subscribe` has not made, and the errors of `Consumer.poll`.
        """
        named = self._named(group, consumer)
        found = named.consumer.poll(timeout, max_messages=1)
        if not found:
            return None
        named.last = found[0]
        return found[0]

    def get_offset(self, group: str, consumer: str) -> int:
        """Return the offset after the last message that `consume` returned to this consumer, in its partition.

        The group continues there. Raises PlanariaError when nothing has been consumed yet.
        """
        last = self._named(group, consumer).last
        if last is None:
            raise PlanariaError(f"consumer {consumer!r} of group {group!r} has consumed nothing yet")
        return last.offset + 1

    def _ask_supervisor(
        self, request: Request, reply_type: type[ReplyT], *, is_retried: bool = True
    ) -> ReplyT:
        """Ask the supervisor itself, which answers whatever the gateway does.

        While a killed supervisor has no successor, this waits for it. When a supervisor ends that may have received a
        request which must not be repeated, a ProtocolError with ACTOR_UNAVAILABLE is raised.
        """
        return self._keeper.ask(
            lambda link: link.ask(request, reply_type), REQUEST_TIMEOUT_MS, is_retried=is_retried
        )

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
