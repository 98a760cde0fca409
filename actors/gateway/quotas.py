"""The quotas of clients, and the delays of requests under them. Pure.

Owns the quotas received from the controller, the client id of each connection, and a bucket for each limited rate of
each client. A request is charged on arrival, and delayed as its buckets require:

    up to MAX_HOLD_MS              held here, then routed; the reply's `throttle_ms` is the delay
    longer, produce or publish     BACKPRESSURE with `retry_after_ms`, uncharged: the producer keeps the batch meanwhile
    longer, fetch                  OVERLOADED with `retry_after_ms`, uncharged
    acks = 0                       lost when it would have to wait

The size of a fetch's answer is known only afterwards: it is charged with the recent average of this client's fetches,
and with the difference when it is answered. A restart resets the buckets. Called by the gateway's machine.
"""

from typing import Any

import msgspec
from msgspec import Struct

from ...transport.codec import is_json
from ...transport.machine import Received
from ...transport.protocol.data import Fetch, FetchReply, Produce, ProduceReply, Publish, PublishReply
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.message import Reply
from ...transport.protocol.quotas import ADDRESS_PREFIX, DEFAULT_CLIENT, Quota
from ...transport.protocol.session import Metadata
from ...transport.request_context import RequestContext
from ...transport.token_bucket import TokenBucket
from .access import Granted
from .limits import Limits

MAX_HOLD_MS = 1_000
MAX_NAMED_CONNECTIONS = 20_000
"""Beyond this the oldest is forgotten: it has to send `hello` again, or counts as one without a client id."""
MAX_CLIENTS = 20_000
"""Clients with buckets; beyond this the oldest starts with full ones again."""
MAX_NAME_CHARACTERS = 256
WEIGHT_OF_NEWEST = 0.3
# Tuples: a union of types would be built again with each check.
_LIMITED = (Produce, Publish, Fetch)
_LIMITED_REPLIES = (ProduceReply, PublishReply, FetchReply)
_COUNTED = (*_LIMITED, Metadata)
"""The newest fetch's weight in the average size."""


class _Account(Struct):
    """One client's buckets; None where there is no limit."""

    produce_bytes: TokenBucket | None
    fetch_bytes: TokenBucket | None
    produce_requests: TokenBucket | None
    fetch_requests: TokenBucket | None
    usual_fetch_bytes: float = 0


class QuotaCharge(Struct, frozen=True):
    """The charge of a request under a quota, settled by its answer."""

    throttle_ms: int = 0
    fetcher: _Account | None = None
    charged_bytes: float = 0

    def settle(self, size_bytes: int) -> None:
        """Settle the charge with the answer's size."""
        if self.fetcher is None or self.fetcher.fetch_bytes is None:
            return
        self.fetcher.fetch_bytes.charge(size_bytes - self.charged_bytes)
        usual = self.fetcher.usual_fetch_bytes
        self.fetcher.usual_fetch_bytes = usual + WEIGHT_OF_NEWEST * (size_bytes - usual)


class Quotas:
    def __init__(self) -> None:
        self._quotas: dict[str, Quota] = {}
        self._names: dict[bytes, str] = {}
        self._accounts: dict[str, _Account] = {}
        self.limits = Limits()
        self.throttled_ms = 0
        """Time for which requests were delayed, since the start."""

    def configure(self, quotas: dict[str, Quota]) -> bool:
        """Replace the quotas; return True if they differ from the previous ones."""
        if quotas == self._quotas:
            return False
        before, self._quotas = self._quotas, quotas
        self.limits.configure(quotas)
        for client in list(self._accounts):
            if self._quota_of(client) != before.get(client, before.get(DEFAULT_CLIENT)):
                del self._accounts[client]
        return True

    def on_hello(self, connection: bytes, client_id: str) -> None:
        """Record a connection's client id."""
        self._names.pop(connection, None)
        self._names[connection] = client_id[:MAX_NAME_CHARACTERS]
        forget_oldest(self._names, MAX_NAMED_CONNECTIONS)

    def on_disconnected(self, connection: bytes) -> None:
        self._names.pop(connection, None)
        self.limits.on_disconnected(connection)

    def require_greeting(self, event: Received) -> None:
        """Raise HELLO_REQUIRED if a quota may apply to a requester that gave its client id on a closed connection."""
        request = event.request
        if not self._quotas or request.greeted is not True:
            return
        is_counted = isinstance(request, _COUNTED)
        if is_counted and event.sender.route[0] not in self._names:
            raise ProtocolError(
                ErrorCode.HELLO_REQUIRED,
                "no `hello` was received on this connection: send it, then repeat the request",
            )

    def is_limited(self, connection: bytes) -> bool:
        if not self._quotas:
            return False
        quota = self._quota_of(self._names.get(connection, ""))
        return quota is not None and quota.is_limit

    def admit(
        self, event: Received, size_bytes: int, now: int, granted: Granted | None = None
    ) -> QuotaCharge | None:
        """Return the request's delay; None for a request under no quota. Raises ProtocolError when it is too long."""
        request = event.request
        if not self._quotas or not isinstance(request, _LIMITED):
            return None
        account = self._account_of(self._client_of(event, granted), now)
        if account is None:
            return None
        if isinstance(request, Fetch):
            throttle_ms = _wait_ms(account.fetch_bytes, account.fetch_requests, now)
            if throttle_ms > MAX_HOLD_MS:
                raise _refusal(ErrorCode.OVERLOADED, "fetch", throttle_ms)
            _charge(account.fetch_bytes, account.usual_fetch_bytes)
            _charge(account.fetch_requests, 1)
            self.throttled_ms += throttle_ms
            return QuotaCharge(throttle_ms, account, account.usual_fetch_bytes)
        throttle_ms = _wait_ms(account.produce_bytes, account.produce_requests, now)
        if throttle_ms > (0 if request.acks == 0 else MAX_HOLD_MS):
            raise _refusal(ErrorCode.BACKPRESSURE, "produce", throttle_ms)
        _charge(account.produce_bytes, size_bytes)
        _charge(account.produce_requests, 1)
        self.throttled_ms += throttle_ms
        return QuotaCharge(throttle_ms)

    def context_of(self, event: Received, granted: Granted | None = None) -> RequestContext:
        """Return the context of an admitted request, for the actor that it is forwarded to."""
        return RequestContext(
            principal=event.context.principal if granted is None else granted.principal,
            client_id=self._client_of(event, granted),
            connection=event.sender.route[0],
            is_admitted=True,
            trace=event.context.trace,
        )

    def _client_of(self, event: Received, granted: Granted | None) -> str:
        """Return the name that quotas go by: the principal, or without authentication the client's own id."""
        if granted is not None:
            return granted.principal
        named = event.context.client_id[:MAX_NAME_CHARACTERS]
        name = named or self._names.get(event.sender.route[0], "")
        return "" if name.startswith(ADDRESS_PREFIX) else name

    def _quota_of(self, client: str) -> Quota | None:
        return self._quotas.get(client, self._quotas.get(DEFAULT_CLIENT))

    def _account_of(self, client: str, now: int) -> _Account | None:
        account = self._accounts.get(client)
        if account is None:
            quota = self._quota_of(client)
            if quota is None or not quota.is_limit:
                return None
            account = _Account(
                produce_bytes=_bucket(quota.produce_bytes, now),
                fetch_bytes=_bucket(quota.fetch_bytes, now),
                produce_requests=_bucket(quota.produce_requests, now),
                fetch_requests=_bucket(quota.fetch_requests, now),
            )
            self._accounts[client] = account
            forget_oldest(self._accounts, MAX_CLIENTS)
        return account


def with_throttle(body: Reply | ErrorBody | bytes, throttle_ms: int) -> Reply | ErrorBody | bytes:
    """Return the answer with the request's delay, if there was any."""
    if not throttle_ms or isinstance(body, ErrorBody):
        return body
    if isinstance(body, bytes):
        if is_json(body):
            return msgspec.json.encode({**msgspec.json.decode(body), "throttle_ms": throttle_ms})
        return msgspec.msgpack.encode({**msgspec.msgpack.decode(body), "throttle_ms": throttle_ms})
    if isinstance(body, _LIMITED_REPLIES):
        return msgspec.structs.replace(body, throttle_ms=throttle_ms)
    return body


def forget_oldest(known: dict[Any, Any], limit: int) -> None:
    while len(known) > limit:
        del known[next(iter(known))]


def _bucket(rate: int, now: int) -> TokenBucket | None:
    return TokenBucket(rate, now) if rate > 0 else None


def _wait_ms(size: TokenBucket | None, requests: TokenBucket | None, now: int) -> int:
    return max((bucket.wait_ms(now) for bucket in (size, requests) if bucket is not None), default=0)


def _charge(bucket: TokenBucket | None, amount: float) -> None:
    if bucket is not None:
        bucket.charge(amount)


def _refusal(code: ErrorCode, what: str, wait_ms: int) -> ProtocolError:
    # Early enough that the bucket is used while the repeated request is on its way.
    retry_after_ms = wait_ms - MAX_HOLD_MS // 2
    return ProtocolError(code, f"the client's {what} quota is used up", retry_after_ms=retry_after_ms)
