"""The client that programs hold: one connection to a broker, and the calls on it.

Owns the network thread and hands out producers and consumers that share it. Called by programs, the command line and the
embedded broker. Never decides where a request goes; that is the exchange's business.
"""

import os
import threading
from contextlib import ExitStack
from datetime import datetime, timedelta
from time import monotonic
from types import TracebackType
from typing import Any, Self

from ..addresses import GATEWAY
from ..batch import Headers
from ..endpoints import Endpoints
from ..keywords import Milliseconds
from ..protocol.session import Hello, HelloReply
from ..security.keys import KeyPair
from ..security.tls_options import Tls
from .access import BrokerAccess
from .configuration import Settings, configured
from .delivery import RecordMetadata
from .network import Network
from .options import (
    REQUEST_TIMEOUT_MS,
    ClientOptions,
    Duration,
    checked,
    wait_limit_s,
)
from .producer import Producer, batching_of


class Client(BrokerAccess):
    """A connection to a broker; a context manager. Safe to use from several threads."""

    def __init__(
        self,
        endpoint: Endpoints | None = None,
        *,
        client_id: str = "",
        request_timeout_ms: Milliseconds = REQUEST_TIMEOUT_MS,
        metadata_timeout_ms: Milliseconds = 1_000,
        key: str | os.PathLike[str] | KeyPair | None = None,
        server_key: str | None = None,
        token: str | None = None,
        user: str | None = None,
        password: str | None = None,
        tls: Tls | None = None,
    ) -> None:
        """Connect in the background: a broker that is not there yet shows at the first request.

            with Client("tcp://127.0.0.1:5570", client_id="shop") as client:
                client.publish("ORDERS", {"amount": 100}, key="order-1")

        For a cluster, give the endpoints of some of its nodes, as a list or as "tcp://a:5570,b:5570,c:5570": one that
        answers is enough, and when its node dies the client continues at another one. `client_id` is the name that quotas
        and `describe_group` use. The times are in milliseconds or a timedelta: a request is retried until
        `request_timeout_ms` have passed, then TimedOut is raised. A call for a topic that the broker does not know waits
        up to `metadata_timeout_ms`, because the topic may just have been created.

        Without an endpoint, PLANARIA_CONNECT and the other variables are used, then the file named by PLANARIA_CONFIG, or
        ~/.config/planaria/client.toml, then the default endpoint on this machine.

        For a broker with authentication: `key` is a key file, which usually contains the broker's public key as well;
        otherwise `server_key` is that public key. `token`, or `user` and `password`, identify a client whose key the
        broker does not know. All traffic is encrypted then. At a TLS endpoint, such as "tls://broker.example:5574", a
        client has a token, a password or a certificate; `tls` names the files, and without it the authorities of the
        system are trusted. Raises InvalidOption for a wrong option, CredentialsError, KeyFileError or TlsFileError for
        credentials that cannot be used, PlanariaError for a malformed endpoint.
        """
        options = checked(
            ClientOptions,
            {
                "client_id": client_id,
                "request_timeout_ms": request_timeout_ms,
                "metadata_timeout_ms": metadata_timeout_ms,
            },
        )
        given = Settings(key=key, server_key=server_key, token=token, user=user, password=password, tls=tls)
        endpoint, credentials = configured(endpoint, os.environ, given)
        self._network = Network(
            endpoint,
            client_id=client_id,
            metadata_timeout_ms=options.metadata_timeout_ms,
            credentials=credentials,
        )
        super().__init__(self._network, options.request_timeout_ms, client_id)
        self._publisher: Producer | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def wait_for_broker(self, timeout: Duration) -> None:
        """Wait until the broker has answered a greeting. Raises TimedOut after `timeout` (seconds or a timedelta).

        No other call needs this: each waits for the broker by itself.
        """
        self._network.call(
            GATEWAY,
            Hello(client_id=self._client_id),
            HelloReply,
            timeout_ms=int(wait_limit_s(timeout) * 1000),
        )

    def publish(
        self,
        topic: str,
        value: Any,
        *,
        key: bytes | str | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: datetime | int | None = None,
        dedup_id: str | None = None,
        deliver_at: datetime | int | None = None,
        delay: timedelta | float | None = None,
        scheduled_id: str | None = None,
        expected_offset: int | None = None,
        expected_key_version: int | None = None,
        expires_at: datetime | int | None = None,
        priority: int | None = None,
        timeout: Duration | None = None,
    ) -> RecordMetadata:
        """Publish one message and wait for its acknowledgement. For more than a few, hold a producer.

        The arguments and errors are those of `Producer.publish` and `Delivery.result`. Raises TimedOut after `timeout`
        (seconds or a timedelta; None: the client's `request_timeout_ms`).
        """
        timeout_s = self._request_timeout_ms / 1000 if timeout is None else wait_limit_s(timeout)
        deadline = monotonic() + timeout_s
        self._network.refuse_when_closed()
        with self._lock:
            if self._publisher is None:
                timeout_ms = self._request_timeout_ms
                self._publisher = self.producer(
                    delivery_timeout_ms=timeout_ms, max_block_ms=timeout_ms, linger_ms=0
                )
        publisher = batching_of(self._publisher)
        publisher.destinations.find(topic, int(timeout_s * 1000))
        delivery = publisher.publish_in_detail(
            topic,
            value,
            key=key,
            headers=headers,
            partition=partition,
            timestamp_ms=timestamp_ms,
            dedup_id=dedup_id,
            deliver_at=deliver_at,
            delay=delay,
            scheduled_id=scheduled_id,
            expected_offset=expected_offset,
            expected_key_version=expected_key_version,
            expires_at=expires_at,
            priority=priority,
        )
        # Without a timeout the delivery ends by itself, and can say whether the message was ever sent.
        return delivery.result(None if timeout is None else max(0.0, deadline - monotonic()))

    def close(self) -> None:
        """Close the producers and consumers that are still open, then the connection. Does nothing in a forked child.

        All are closed even when one raises; the error is raised at the end.
        """
        if self._is_closed or self._network.is_lost:
            return
        self._is_closed = True
        with ExitStack() as ends:
            ends.callback(self._network.close)
            for item in reversed(self._network.open_items()):
                ends.callback(item.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or self._network.is_lost:
            self.close()
            return
        self._is_closed = True
        with ExitStack() as ends:
            ends.callback(self._network.close)
            for item in reversed(self._network.open_items()):
                ends.callback(item.__exit__, kind, error, trace)
