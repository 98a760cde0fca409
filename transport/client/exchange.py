"""The exchange: finds the peer of every request, retries, and gives up. Pure. Every client has one; its
network runs it.

It guarantees exactly one Answered or Failed for each Ask. Called by the network with the users' requests and
the events of the socket. Never touches a socket.

The connection to the gateway, with its greeting, is in `gateway_link.py`. Without a session nothing else is
sent to it.

Partitions, and other actors whose endpoint a request names, are reached directly when the broker runs on this
machine, and through the gateway otherwise. A request to an offline partition, and any request while there is
no session, is held and not sent, so no message waits in a socket for the wrong peer. While requests are held,
a `metadata` long poll is in flight, so they leave as soon as the directory changes.
"""

from itertools import count
from typing import Any

from msgspec import structs

from ..addresses import topic_partition_of
from ..codec import decode_reply, id_of
from ..protocol.data import Fetch, Produce
from ..protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ..protocol.message import Reply
from ..protocol.session import Cancel, HelloReply, Metadata, MetadataReply
from .asking import Answered, Ask, CancelTimer, Effect, Event, Failed, Owner, SetTimer, TimerFired
from .connections import Connection, Connections, InFlightRequest
from .directory import Directory
from .errors import unknown_topic
from .exchange_events import (
    Arrived,
    CancelTimers,
    CheckLocality,
    CheckSilence,
    Connect,
    Deliver,
    Disconnect,
    Disconnected,
    LocalityKnown,
    Resolved,
    Send,
    SilenceMeasured,
    Submitted,
    Undeliverable,
    Wanted,
    Withdrawn,
)
from .gateway_link import DIAL, HELLO, GatewayLink
from .retry import Jitter, RetryPolicy

LONG_POLL_MS = 20_000
POLL_GRACE_MS = 5_000
REFRESH_MS = 1_000
"""Maximum age of the metadata of the topics in use. A topic that grew is noticed within this time."""

_OFFLINE = frozenset({ErrorCode.PARTITION_OFFLINE, ErrorCode.ACTOR_UNAVAILABLE, ErrorCode.SHUTTING_DOWN})
_POLL = "poll"
_REFRESH = "refresh"
_BELIEVE = "believe"


class Exchange:
    """Turns requests into outcomes."""

    def __init__(
        self, endpoint: str, *, client_id: str, metadata_timeout_ms: int, retry: RetryPolicy, jitter: Jitter
    ) -> None:
        self.directory = Directory()
        self._client_id = client_id
        self._metadata_timeout_ms = metadata_timeout_ms
        self._retry = retry
        self._jitter = jitter
        self._serials = count(1)
        self._attempts = count(1)
        self._pending: dict[int, InFlightRequest] = {}
        self._held: dict[int, InFlightRequest] = {}
        self._interest: dict[str, None] = {}
        self._connections = Connections()
        self._link = GatewayLink(
            endpoint, self._connections, self._attempts, client_id=client_id, retry=retry, jitter=jitter
        )
        self._lost: set[str] = set()
        """Endpoints named by requests, of incarnations that have ended."""
        self._is_local: bool | None = None
        self._polls: dict[int, int | None] = {}

    # Events.

    def start(self, now: int) -> list[Effect]:
        return [*self._link.dial(now), SetTimer(_REFRESH, now + REFRESH_MS)]

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Submitted(owner=owner, ask=ask):
                return self._on_ask(owner, ask, now)
            case Arrived():
                return self._on_message(event, now)
            case Disconnected(endpoint=endpoint, is_refused=is_refused):
                connection = self._connections.at(endpoint)
                is_gateway = connection is not None and connection is self._link.connection
                if connection is None or (is_refused and is_gateway and self._link.is_dialled_by_zeromq):
                    return []
                if is_refused:
                    connection.hand_back()  # the connection was never established: no request has left
                return self._on_lost(connection, now)
            case Undeliverable():
                return self._on_undeliverable(event, now)
            case Wanted(topic=topic):
                return self._want(topic, now)
            case LocalityKnown(instance_id=instance_id, is_local=is_local):
                session = self._link.session
                if session is None or session.instance_id != instance_id:
                    return []
                self._is_local = is_local
                return self._release(now)
            case SilenceMeasured(endpoint=endpoint, silence_ms=silence_ms):
                connection = self._connections.at(endpoint)
                is_dead = connection is self._link.connection and self._link.is_dead(silence_ms)
                return self._on_lost(connection, now) if connection is not None and is_dead else []
            case Resolved():
                return self._link.on_resolved(event, now)
            case Withdrawn(owner=owner):
                return self._withdraw(owner)
            case TimerFired(key=key):
                return self._on_timer(key, now)
        raise AssertionError(f"no such event: {event!r}")

    def _on_timer(self, key: Any, now: int) -> list[Effect]:
        match key:
            case ("deadline", serial):
                return self._on_deadline(self._pending[serial])
            case ("retry", serial):
                return self._dispatch(self._pending[serial], now)
            case ("unknown", serial):
                return self._on_still_unknown(self._pending[serial])
            case ("retry_timeout", serial):
                return self._on_timeout(self._pending[serial])
            case (kind, attempt) if kind == _POLL:
                return self._on_poll_overdue(attempt, now)
        gateway = self._link.connection
        if key == HELLO:
            return self._on_lost(gateway, now) if gateway is not None and self._link.session is None else []
        if key == DIAL:
            return self._link.on_time_to_dial()
        if key == _REFRESH:
            effects = self._ask_metadata(now)
            if gateway is not None and self._link.session is not None:
                effects.append(CheckSilence(gateway.endpoint))
            return [*effects, SetTimer(_REFRESH, now + REFRESH_MS)]
        assert key in (_BELIEVE, _POLL), key
        return self._release(now)

    # The session.

    def _on_hello(self, reply: Any, now: int) -> list[Effect]:
        if isinstance(reply, ErrorBody):
            if reply.retriable:
                return []  # the timer of the greeting is running and makes a new connection
            failed = [
                self._finish(pending, Failed(pending.ask.key, reply))
                for pending in list(self._pending.values())
            ]
            return [effect for effects in failed for effect in effects]
        if self.directory.instance_id not in (None, reply.instance_id):
            self.directory.forget()
            self._is_local = None
        effects = self._link.on_hello(reply)
        self.directory.expire_version()
        if self._is_local is None:
            effects.append(CheckLocality(reply.run_directory, reply.instance_id))
        return effects + self._ask_metadata(now) + self._release(now)

    def _on_lost(self, connection: Connection, now: int) -> list[Effect]:
        """Handle a broken connection: the requests in flight on it have no reply."""
        self._connections.drop(connection)
        effects: list[Effect] = [Disconnect(connection.route, connection.endpoint)]
        if connection is self._link.connection:
            self._polls.clear()
            effects += self._link.dial(now)
        elif connection.partition is not None:
            self.directory.suspect(*connection.partition, now)
        else:
            self._lost.add(connection.endpoint)
        error = ErrorBody(
            ErrorCode.ACTOR_UNAVAILABLE, f"lost the connection to {connection.endpoint}", retriable=True
        )
        for pending in list(connection.in_flight.values()):
            if pending is not None:
                pending.land()
                effects += self._retry_or_fail(pending, error, now, at_once=True)
        return effects

    def _on_undeliverable(self, event: Undeliverable, now: int) -> list[Effect]:
        connection = self._connections.on_route(event.route)
        if connection is None:
            return []
        if not event.is_full:
            connection.hand_back(event.attempt)
            return self._on_lost(connection, now)
        connection.hand_back(event.attempt)
        pending = connection.in_flight.pop(event.attempt, None)
        if pending is None:
            return []
        pending.land()
        error = ErrorBody(ErrorCode.OVERLOADED, f"{connection.endpoint} does not keep up", retriable=True)
        return self._retry_or_fail(pending, error, now)

    # Asks.

    def _on_ask(self, owner: Owner, ask: Ask, now: int) -> list[Effect]:
        pending = InFlightRequest(next(self._serials), owner, ask, now + ask.timeout_ms)
        pending.partition = topic_partition_of(ask.address)
        self._pending[pending.serial] = pending
        effects: list[Effect] = [SetTimer(("deadline", pending.serial), pending.deadline)]
        if ask.receipt is not None:
            ask.receipt.is_kept = True
        if ask.retry_timeout_ms is not None:
            effects.append(SetTimer(("retry_timeout", pending.serial), now + ask.retry_timeout_ms))
        return effects + self._dispatch(pending, now)

    def _on_timeout(self, pending: InFlightRequest) -> list[Effect]:
        pending.is_impatient = True
        return self._on_deadline(pending) if pending.connection is None else []

    def _dispatch(self, pending: InFlightRequest, now: int) -> list[Effect]:
        """Send the request, or hold it until it can be sent."""
        connection, effects = self._connection_for(pending, now)
        if connection is None:
            self._held[pending.serial] = pending
            return effects + self._poll(now)
        self._held.pop(pending.serial, None)
        pending.attempt = next(self._attempts)
        request = pending.ask.request
        if connection is self._link.connection:
            request = structs.replace(request, id=pending.attempt, greeted=True)
        elif isinstance(request, Produce | Fetch):
            # Partitions need no greeting.
            request = structs.replace(request, id=pending.attempt, client_id=self._client_id)
        else:
            request = structs.replace(request, id=pending.attempt)
        effects.append(Send(connection.route, pending.attempt, request, pending.ask.payload))
        if pending.ask.receipt is not None:
            pending.ask.receipt.sends += 1
        if not pending.ask.has_reply:
            return effects + self._forget(pending)
        pending.connection = connection
        connection.in_flight[pending.attempt] = pending
        return effects

    def _connection_for(self, pending: InFlightRequest, now: int) -> tuple[Connection | None, list[Effect]]:
        gateway = self._link.connection if self._link.session is not None else None
        if pending.partition is None:
            endpoint = pending.ask.endpoint
            if endpoint is not None and self._is_local and endpoint not in self._lost:
                return self._connection_at(endpoint, None)
            return gateway, []
        topic, number = pending.partition
        found = self.directory.partition(topic, number)
        if found is None:
            return None, self._want(topic, now) + self._watch_unknown(pending, now)
        if not self.directory.is_online(topic, number, now):
            believed_at = self.directory.believed_at(topic, number, now)
            return None, [SetTimer(_BELIEVE, believed_at)] if believed_at is not None else []
        if self._is_local is None:
            return None, []
        if not self._is_local or found.endpoint is None:
            return gateway, []
        return self._connection_at(found.endpoint, (topic, number, found.incarnation))

    def _connection_at(
        self, endpoint: str, partition: tuple[str, int, int] | None
    ) -> tuple[Connection, list[Effect]]:
        connection = self._connections.at(endpoint)
        if connection is not None:
            return connection, []
        connection = self._connections.new(endpoint, partition)
        return connection, [Connect(connection.route, connection.endpoint)]

    def _watch_unknown(self, pending: InFlightRequest, now: int) -> list[Effect]:
        """Handle an unknown topic or partition: fail only after a while, because it may just have been created."""
        assert pending.partition is not None
        topic = pending.partition[0]
        is_known = self.directory.is_unknown(topic) or self.directory.partition_count(topic) is not None
        if pending.waits_for_topic or not is_known:
            return []
        pending.waits_for_topic = True
        return [SetTimer(("unknown", pending.serial), now + self._metadata_timeout_ms)]

    def _on_still_unknown(self, pending: InFlightRequest) -> list[Effect]:
        pending.waits_for_topic = False
        assert pending.partition is not None
        topic, number = pending.partition
        if self.directory.partition(topic, number) is not None:
            return []
        partitions = self.directory.partition_count(topic)
        if partitions is None:
            error = unknown_topic(topic)
        else:
            error = ErrorBody(
                ErrorCode.UNKNOWN_PARTITION, f"{topic!r} has {partitions} partitions, no {number}"
            )
        pending.land()
        return self._finish(pending, Failed(pending.ask.key, error))

    def _release(self, now: int) -> list[Effect]:
        """Dispatch all held requests again."""
        effects: list[Effect] = []
        for pending in list(self._held.values()):
            effects += self._dispatch(pending, now)
        return effects

    def _retry_or_fail(
        self, pending: InFlightRequest, error: ErrorBody, now: int, *, at_once: bool = False
    ) -> list[Effect]:
        if pending.partition is not None and error.code in _OFFLINE:
            found = self.directory.partition(*pending.partition)
            if found is not None and not at_once:
                self.directory.suspect(*pending.partition, found.incarnation, now)
        # The owner of the refused request decides when to retry after backpressure.
        is_held = error.code == ErrorCode.BACKPRESSURE
        if not pending.ask.is_retried or not error.retriable or is_held or pending.is_impatient:
            return self._finish(pending, Failed(pending.ask.key, error))
        pending.last_error = error
        pending.failures += 1
        if at_once:
            return self._dispatch(pending, now)
        delay_ms = self._retry.delay_ms(pending.failures, self._jitter)
        return [SetTimer(("retry", pending.serial), now + delay_ms)]

    def _on_deadline(self, pending: InFlightRequest) -> list[Effect]:
        cancelled = self._cancel(pending)
        pending.land()
        op = pending.ask.request.__struct_config__.tag
        if pending.last_error is not None:
            reason = f"; last answer: {pending.last_error.code}: {pending.last_error.message}"
        elif self._link.session is None:
            reason = f"; {self._link.absence}"
        elif pending.serial in self._held:
            reason = "; it is offline"
        else:
            reason = ""
        message = f"{op} to {pending.ask.address} was not answered within {pending.ask.timeout_ms} ms{reason}"
        error = ErrorBody(ErrorCode.TIMED_OUT, message, retriable=True)
        return [*cancelled, *self._finish(pending, Failed(pending.ask.key, error))]

    def _finish(self, pending: InFlightRequest, event: Event) -> list[Effect]:
        return [*self._forget(pending), Deliver(pending.owner, event)]

    def _forget(self, pending: InFlightRequest) -> list[Effect]:
        pending.land()
        serial = pending.serial
        del self._pending[serial]
        self._held.pop(serial, None)
        effects: list[Effect] = [CancelTimer(("deadline", serial))]
        if pending.failures:
            effects.append(CancelTimer(("retry", serial)))
        if pending.waits_for_topic:
            effects.append(CancelTimer(("unknown", serial)))
        if pending.ask.retry_timeout_ms is not None:
            effects.append(CancelTimer(("retry_timeout", serial)))
        return effects

    def _withdraw(self, owner: Owner) -> list[Effect]:
        gone = [pending for pending in self._pending.values() if pending.owner is owner]
        effects = [effect for pending in gone for effect in (*self._cancel(pending), *self._forget(pending))]
        return [*effects, CancelTimers(owner)]

    def _cancel(self, pending: InFlightRequest) -> list[Effect]:
        """Notify the receiver that the request was withdrawn, so that it keeps and locks nothing for this client."""
        if pending.connection is None or pending.attempt not in pending.connection.in_flight:
            return []
        return [Send(pending.connection.route, 0, Cancel(request_id=pending.attempt))]

    # Messages.

    def _on_message(self, event: Arrived, now: int) -> list[Effect]:
        attempt = id_of(event.header)
        connection = self._connections.on_route(event.route)
        if connection is None or not isinstance(attempt, int) or attempt not in connection.in_flight:
            return []  # no request waits for this reply any more
        pending = connection.in_flight.pop(attempt)
        if attempt == self._link.hello_attempt:
            return self._on_hello(_decode(event.header, HelloReply), now)
        if pending is None:
            reply = _decode(event.header, MetadataReply)
            return [*self._greeting_for(reply), *self._on_metadata(attempt, reply, now)]
        pending.land()
        reply = _decode(event.header, pending.ask.reply_type)
        if isinstance(reply, ErrorBody):
            return [*self._greeting_for(reply), *self._retry_or_fail(pending, reply, now)]
        return self._finish(pending, Answered(pending.ask.key, reply, event.payload))

    def _greeting_for(self, reply: Any) -> list[Effect]:
        """Return the greeting that a refusal demands before the next attempt."""
        is_required = isinstance(reply, ErrorBody) and reply.code == ErrorCode.HELLO_REQUIRED
        return self._link.greet_again() if is_required else []

    # The directory.

    def _want(self, topic: str, now: int) -> list[Effect]:
        if topic in self._interest:
            return []
        self._interest[topic] = None
        return self._ask_metadata(now)

    def _ask_metadata(self, now: int, after_version: int | None = None) -> list[Effect]:
        """Request the endpoints of the topics of interest; with `after_version`, as a long poll for a
        later version."""
        gateway, session = self._link.connection, self._link.session
        if gateway is None or session is None or not self._interest:
            return []
        wait_ms = min(LONG_POLL_MS, session.max_wait_ms) if after_version is not None else 0
        attempt = next(self._attempts)
        self._polls[attempt] = after_version
        gateway.in_flight[attempt] = None
        request = Metadata(
            id=attempt,
            greeted=True,
            topics=list(self._interest),
            after_version=after_version,
            max_wait_ms=wait_ms,
        )
        return [
            Send(gateway.route, attempt, request),
            SetTimer((_POLL, attempt), now + wait_ms + POLL_GRACE_MS),
        ]

    def _poll(self, now: int) -> list[Effect]:
        """Keep exactly one long poll in flight while requests wait for a partition."""
        is_needed = any(pending.partition is not None for pending in self._held.values())
        if not is_needed or self._polls or self.directory.version is None:
            return []
        return self._ask_metadata(now, self.directory.version)

    def _on_poll_overdue(self, attempt: int, now: int) -> list[Effect]:
        if attempt not in self._polls:
            return []
        del self._polls[attempt]
        if self._link.connection is not None:
            self._link.connection.in_flight.pop(attempt, None)
        return self._ask_metadata(now)

    def _on_metadata(self, attempt: int, reply: Any, now: int) -> list[Effect]:
        effects: list[Effect] = [CancelTimer((_POLL, attempt))]
        self._polls.pop(attempt, None)
        if isinstance(reply, ErrorBody):
            return [*effects, SetTimer(_POLL, now + self._retry.delay_ms(4, self._jitter))]
        self.directory.update(reply)
        for connection in self._connections:
            if connection.partition is not None and self._is_replaced(connection):
                effects += self._on_lost(connection, now)
        return [*effects, *self._release(now), *self._poll(now)]

    def _is_replaced(self, connection: Connection) -> bool:
        assert connection.partition is not None
        topic, number, incarnation = connection.partition
        found = self.directory.partition(topic, number)
        return (
            found is None
            or (found.online and found.endpoint != connection.endpoint)
            or found.incarnation > incarnation
        )


def _decode(header: bytes, reply_type: type[Reply]) -> Any:
    """Return the reply or the refusal. A malformed reply counts as a refusal."""
    try:
        return decode_reply(header, reply_type)
    except ProtocolError as error:
        return error.body
