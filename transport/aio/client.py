"""The client for tasks: one connection to a broker, on one event loop.

Owns the network thread and hands out producers and consumers that share it. Nothing of a client may be used from another
loop or thread than the one in which it was entered, except `publish_nowait`, from any thread.
"""

import os
import threading
import warnings
from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, Unpack, overload

from ..addresses import GATEWAY
from ..client.configuration import Settings, configured
from ..client.delivery import RecordMetadata
from ..client.network import Network
from ..client.options import (
    REQUEST_TIMEOUT_MS,
    ClientOptions,
    ConsumerOptions,
    Duration,
    InvalidOption,
    as_topics,
    check_name,
    check_sources,
    checked,
    checked_producer,
    wait_limit_s,
)
from ..client.reading import Point, reading
from ..client.share_messages import ShareOptions
from ..client.table import Follower
from ..endpoints import Endpoints
from ..keywords import ConsumerConfig, ProducerConfig, PublishDetails, ShareConsumerConfig
from ..machine import Call
from ..protocol.data import Isolation
from ..protocol.session import Hello, HelloReply
from ..security.keys import ClientCredentials, KeyPair
from ..security.tls_options import Tls
from .admin import AsyncAdmin
from .calls import Caller
from .consumer import AsyncConsumer
from .loops import Bridge, LoopWatch, running_loop
from .producer import AsyncProducer, PublishHandle
from .reading import AsyncReading
from .table import OpeningTable
from .transactional import AsyncTransactionalProducer
from .work import AsyncShareConsumer


class Health(NamedTuple):
    """The state of a client's connection."""

    state: Literal["connected", "connecting", "closed", "failed"]
    last_contact_s: float | None
    """Seconds since the last message of the broker; None before the first."""


class AsyncClient(AsyncAdmin):
    """A connection to a broker; an async context manager. For all tasks of one event loop."""

    _is_closed = True
    """Until it is connected."""

    def __init__(self, network: Network, request_timeout_ms: int, client_id: str) -> None:
        bridge = Bridge(running_loop(), network.let_pass)
        super().__init__(Caller(network, bridge), request_timeout_ms)
        self._network = network
        self._request_timeout_ms = request_timeout_ms
        self._client_id = client_id
        self._publisher: AsyncProducer | None = None
        self._first_publish = threading.Lock()
        self._ends = AsyncExitStack()
        self._is_closed = False
        watch = LoopWatch(bridge.loop, network.stop)
        network.post(watch, watch.START)

    def __del__(self) -> None:
        if not self._is_closed and not self._network.is_inherited:
            name = f" {self._client_id!r}" if self._client_id else ""
            message = f"unclosed client{name}: use it in `async with`, or await its close()"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    # Publishing.

    @overload
    def producer(
        self, *, transactional_id: str, **options: Unpack[ProducerConfig]
    ) -> AsyncTransactionalProducer: ...

    @overload
    def producer(
        self, *, transactional_id: None = None, **options: Unpack[ProducerConfig]
    ) -> AsyncProducer: ...

    def producer(
        self, *, transactional_id: str | None = None, **options: Unpack[ProducerConfig]
    ) -> AsyncProducer | AsyncTransactionalProducer:
        """Return a new producer, an async context manager; with a `transactional_id`, one that writes in transactions.

        The options are those of `Client.producer`. Without a block it is closed with the client. Raises InvalidOption,
        Closed.
        """
        self._network.refuse_when_closed()
        options.setdefault("request_timeout_ms", self._request_timeout_ms)
        found = checked_producer({**options, "transactional_id": transactional_id})
        producer: AsyncProducer | AsyncTransactionalProducer
        if found.transactional_id is None:
            producer = AsyncProducer(self._caller, found)
        else:
            producer = AsyncTransactionalProducer(self._caller, found)
        self._ends.push_async_exit(producer.__aexit__)
        return producer

    async def publish(self, topic: str, value: Any, **details: Unpack[PublishDetails]) -> RecordMetadata:
        """Publish a message and wait for its acknowledgement. Safe to call from many tasks: they share batches.

        The arguments and errors are those of `Producer.publish` and `Delivery.result`. A cancelled call may have
        published its message.
        """
        return await self._default().publish(topic, value, **details)

    def publish_nowait(self, topic: str, value: Any, **details: Unpack[PublishDetails]) -> PublishHandle:
        """Hand a message over, and return at once. `await handle` waits for its acknowledgement. From any thread.

        Raises BufferFull if too much waits for the broker, InvalidOption, Closed.
        """
        return self._default().publish_nowait(topic, value, **details)

    def _default(self) -> AsyncProducer:
        if self._publisher is not None:
            return self._publisher
        with self._first_publish:
            return self._made_default()

    def _made_default(self) -> AsyncProducer:
        if self._publisher is None:
            self._publisher = self.producer(linger_ms=0)
        return self._publisher

    # Reading.

    def consumer(
        self, group: str | None = None, topics: str | Sequence[str] = (), **options: Unpack[ConsumerConfig]
    ) -> AsyncConsumer:
        """Return a new consumer, an async context manager, of a group's topics or of `partitions`.

        The options are those of `Client.consumer` but for the callbacks: see `AsyncConsumer.assignment_changed`.
        Raises InvalidOption, Closed.
        """
        self._network.refuse_when_closed()
        for name in ("on_assigned", "on_revoked", "on_lost"):
            if options.get(name) is not None:
                raise InvalidOption(
                    f"{name}: an asynchronous consumer has no callbacks; await assignment_changed()"
                )
        options.setdefault("request_timeout_ms", self._request_timeout_ms)
        options.setdefault("client_id", self._client_id)
        if group is not None:
            check_name("group", group)
        return AsyncConsumer(self._caller, group, as_topics(topics), checked(ConsumerOptions, options))

    def read(
        self,
        topic: str,
        *,
        since: Point = "beginning",
        until: Point = "now",
        partitions: Sequence[int] | None = None,
        isolation: Isolation = "read_committed",
    ) -> AsyncReading:
        """Yield the messages of a topic that are there when the first is requested, then end. As `Client.read`.

        async for message in client.read("ORDERS", since="24h"):
            print(message.offset, message.data)
        """
        self._network.refuse_when_closed()
        what = reading(topic, since, until, partitions, isolation, self._request_timeout_ms)
        return AsyncReading(self._caller, what)

    def table(self, topic: str, *, isolation: Isolation = "read_committed") -> OpeningTable:
        """Return the values of a topic by key, a read-only Mapping that is kept current. As `Client.table`.

            async with client.table("BALANCES") as balances:
                print(balances["anna"])

        `await client.table(...)` opens it without a block. Reading it never waits.
        """
        self._network.refuse_when_closed()
        whole = reading(topic, "beginning", "now", None, isolation, self._request_timeout_ms)
        return OpeningTable(self._caller, partial(Follower, self._network, whole))

    def work(
        self, group: str, topics: str | Sequence[str], **options: Unpack[ShareConsumerConfig]
    ) -> AsyncShareConsumer:
        """Return a new member of a share group, an async context manager, for any number of tasks.

            async with client.work("resize", "IMAGES") as jobs:
                async for job in jobs:
                    async with job:
                        await resize(job.data)

        The options are those of `Client.share_consumer`; `acknowledge` can only be "explicit". Raises InvalidOption,
        Closed.
        """
        self._network.refuse_when_closed()
        options.setdefault("request_timeout_ms", self._request_timeout_ms)
        check_name("group", group)
        found = as_topics(topics)
        check_sources(group, found, None)
        return AsyncShareConsumer(self._caller, group, found, checked(ShareOptions, options))

    # The connection.

    def health(self) -> Health:
        """Return the state of the connection. Failures in the background are raised at the next call, too."""
        network = self._network
        if network.failure is not None:
            state: Literal["connected", "connecting", "closed", "failed"] = "failed"
        elif not network.is_running:
            state = "closed"
        else:
            state = "connected" if network.has_session else "connecting"
        last_ms = network.last_contact_ms
        return Health(state, None if last_ms is None else (network.now_ms() - last_ms) / 1000)

    async def wait_for_broker(self, timeout: Duration) -> None:
        """Wait until the broker has answered a greeting. Raises TimedOut after `timeout` (seconds or a timedelta)."""
        timeout_ms = int(wait_limit_s(timeout) * 1000)
        greeting = Hello(client_id=self._client_id)
        call = Call(None, GATEWAY, greeting, HelloReply, timeout_ms=timeout_ms, is_retried=True)
        await self._caller.exchange(call)

    async def close(self) -> None:
        """Flush and close the producers, then the connection; the connection alone if the client's loop has ended."""
        await self._end(None, None, None)

    async def _end(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_closed:
            return
        loop = self._caller.bridge.loop
        if loop.has_ended():  # and with it every task that could flush or leave a group
            self._is_closed = True
            await running_loop().in_thread(self._network.close)
            return
        loop.check()
        self._is_closed = True
        try:
            await self._ends.__aexit__(kind, error, trace)
        finally:
            await loop.in_thread(self._network.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._caller.bridge.loop.shield():
            await self._end(kind, error, trace)


class Connecting:
    """A client that is made where it is entered, or awaited: `async with connect(...)`, `await connect(...)`."""

    def __init__(self, endpoint: Endpoints, options: ClientOptions, credentials: ClientCredentials) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._options = options
        self._client: AsyncClient | None = None

    def __await__(self) -> Generator[Any, Any, AsyncClient]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> AsyncClient:
        options = self._options
        network = Network(
            self._endpoint,
            client_id=options.client_id,
            metadata_timeout_ms=options.metadata_timeout_ms,
            credentials=self._credentials,
        )
        self._client = AsyncClient(network, options.request_timeout_ms, options.client_id)
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._client is not None
        await self._client.__aexit__(kind, error, trace)


def connect(
    endpoint: Endpoints | None = None,
    *,
    client_id: str = "",
    request_timeout_ms: int = REQUEST_TIMEOUT_MS,
    metadata_timeout_ms: int = 1_000,
    key: str | os.PathLike[str] | KeyPair | None = None,
    server_key: str | None = None,
    token: str | None = None,
    user: str | None = None,
    password: str | None = None,
    tls: Tls | None = None,
) -> Connecting:
    """Connect to a broker, in the background: `async with planaria.aio.connect(url) as client`.

    The endpoints, options and errors are those of `Client`. Works under asyncio and trio.
    """
    options = {
        "client_id": client_id,
        "request_timeout_ms": request_timeout_ms,
        "metadata_timeout_ms": metadata_timeout_ms,
    }
    given = Settings(key=key, server_key=server_key, token=token, user=user, password=password, tls=tls)
    endpoint, credentials = configured(endpoint, os.environ, given)
    return Connecting(endpoint, checked(ClientOptions, options), credentials)
