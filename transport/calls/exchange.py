"""The exchange: sends every call to its receiver, retries, and gives up. Pure. Each actor and each client has one.

It guarantees exactly one Answered or Failed for each Call that has a reply and is not withdrawn.

    state         meaning                                            left by
    held          its receiver cannot be reached now                 Release -> in flight; Refused -> failed
    in flight     sent on a connection, no reply yet                 reply -> answered, refused; Lost -> retried or failed
    waiting       a retriable failure; the backoff runs              timer -> in flight, held
    answered, failed   the outcome is delivered, and the call forgotten

In every state the deadline fails the call; one that is endless is attempted again instead, and fails only by a refusal
that is not retriable. The directory decides whether a call is sent, held or fails, because it alone
knows which receivers exist. A connection that is over delivers nothing more, so a reply always belongs to the attempt in
flight.
"""

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from ..addresses import Address
from ..codec import decode_reply, excess_of, id_of
from ..machine import (
    Answered,
    Call,
    CancelCall,
    CancelTimer,
    Cast,
    Effect,
    Event,
    Failed,
    SetTimer,
    TimerFired,
)
from ..protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ..protocol.message import Reply
from ..protocol.session import Cancel
from ..timers import Timers
from .connections import Connection, Connections, InFlight, Owner, relayed
from .directory import Ask, Directory, Lost, Refused, Release
from .events import (
    Arrived,
    CancelTimers,
    Deliver,
    Disconnect,
    Disconnected,
    Send,
    Submitted,
    Undeliverable,
    Withdrawn,
)
from .retry import Jitter, RetryPolicy

MAX_LONG_POLLS = 16
"""Number of calls in flight up to which `is_quiet` looks at each of them."""
_RETRY = "retry"
_RETRY_TIMEOUT = "retry_timeout"


class Exchange:
    """Turns calls into outcomes."""

    def __init__(
        self, directory: Directory, *, retry: RetryPolicy, jitter: Jitter, max_in_flight: int | None = None
    ) -> None:
        """Refuse calls beyond `max_in_flight` with OVERLOADED, except endless ones; None sets no limit."""
        self.timers = Timers()
        """Timers of the exchange and its directory. `expire` takes those that are due."""
        self._directory = directory
        self._retry = retry
        self._jitter = jitter
        self._max_in_flight = max_in_flight
        self._serials = count(1)
        self._attempts = count(1)
        self._pending: dict[int, InFlight] = {}
        self._held: dict[Address, dict[int, InFlight]] = {}
        self._tokens: dict[Any, InFlight] = {}
        self._connections = Connections()
        directory.attach(self._connections, self._held)

    def __len__(self) -> int:
        """Return the number of calls without an outcome."""
        return len(self._pending)

    def start(self, now: int) -> list[Effect]:
        return self._follow(self._directory.start(now), now)

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Submitted(owner=owner, call=call):
                return self.submit(owner, call, now)
            case Arrived():
                return self.receive(event, now)
            case Undeliverable():
                return self._on_undeliverable(event, now)
            case Disconnected():
                return self._on_disconnected(event, now)
            case Withdrawn(owner=owner):
                return self._withdraw(owner)
            case CancelCall(token=token):
                pending = self._tokens.get(token)
                return [*self._cancel(pending), *self._forget(pending)] if pending is not None else []
        return self._follow(self._directory.handle(event, now), now)

    def submit(
        self, owner: Owner, call: Call, now: int, connection: Connection | None = None
    ) -> list[Effect]:
        """Begin a call; on this connection, if one is given."""
        is_over_limit = self._max_in_flight is not None and len(self._pending) >= self._max_in_flight
        if is_over_limit and not call.is_endless:
            error = ErrorBody(ErrorCode.OVERLOADED, "too many calls in flight", True)
            return [Deliver(owner, Failed(call.key, error))]
        if call.payload and (excess := excess_of(call.payload)) is not None:
            return [Deliver(owner, Failed(call.key, excess))] if call.has_reply else []
        serial = next(self._serials)
        pending = self._pending[serial] = InFlight(serial, owner, call, connection)
        self.timers.set(serial, now + call.timeout_ms)
        if call.receipt is not None:
            call.receipt.is_kept = True
        if call.token is not None:
            self._tokens[call.token] = pending
        if call.retry_timeout_ms is not None:
            self.timers.set((_RETRY_TIMEOUT, serial), now + call.retry_timeout_ms)
        return self._attempt(pending, now)

    def cast(self, cast: Cast, now: int) -> list[Effect]:
        if cast.payload and excess_of(cast.payload) is not None:
            return []  # lost, as any cast may be
        connection, effects = self._directory.connection_to(cast.address)
        if connection is not None:
            request, payload = cast.request, cast.payload
            target = connection.relays.get(cast.address)
            if target is not None:
                request, payload = relayed(target, request, payload, None)
            send = Send(
                connection.route, 0, request, payload, is_dropped_when_full=True, context=cast.context
            )
            effects = [*effects, send]
        return effects

    def expire(self, now: int) -> list[Effect]:
        """Handle the timers that are due."""
        effects: list[Effect] = []
        for key in self.timers.pop_due(now):
            effects += self.on_timer(key, now)
        return effects

    def on_timer(self, key: Any, now: int) -> list[Effect]:
        """Handle one timer, which is no longer set."""
        match key:
            case int():
                return self._on_deadline(self._pending[key], now)
            case (kind, serial) if kind == _RETRY:
                return self._attempt(self._pending[serial], now)
            case (kind, serial) if kind == _RETRY_TIMEOUT:
                pending = self._pending[serial]
                pending.is_final = True
                return self._on_deadline(pending, now) if pending.connection is None else []
        return self._follow(self._directory.handle(TimerFired(key), now), now)

    # Attempts.

    def _attempt(self, pending: InFlight, now: int) -> list[Effect]:
        """Send the call, hold it until it can be sent, or fail it."""
        effects: list[Effect] = []
        location: Any = pending.fixed
        if location is None:
            location, more = self._directory.locate(pending, now)
            if more:
                effects = self._follow(more, now)
        if location is None:
            if not pending.is_held:
                pending.is_held = True
                self._held.setdefault(pending.call.address, {})[pending.serial] = pending
            return effects
        if pending.is_held:
            self._unhold(pending)
        if isinstance(location, Connection):
            effects.append(self._sent(pending, location))
            if not pending.call.has_reply:
                self._forget(pending)
            return effects
        return effects + self._retry_or_fail(pending, location, now)

    def _sent(self, pending: InFlight, connection: Connection) -> Send:
        call = pending.call
        attempt = pending.attempt = next(self._attempts)
        if call.receipt is not None:
            call.receipt.sends += 1
        if call.has_reply:
            pending.connection = connection
            connection.in_flight[attempt] = pending
        if self._directory.uses_envelopes or isinstance(call.request, bytes):
            request, payload = call.request, call.payload
            target = connection.relays.get(call.address)
            if target is not None:
                request, payload = relayed(target, request, payload, call.timeout_ms)
            return Send(connection.route, attempt, request, payload, has_envelope=True, context=call.context)
        request = self._directory.addressed(attempt, connection, call.request)
        return Send(connection.route, attempt, request, call.payload)

    def _unhold(self, pending: InFlight) -> None:
        pending.is_held = False
        held = self._held[pending.call.address]
        del held[pending.serial]
        if not held:
            del self._held[pending.call.address]

    def _retry_or_fail(
        self, pending: InFlight, error: ErrorBody, now: int, *, at_once: bool = False
    ) -> list[Effect]:
        call = pending.call
        # The owner of the refused call decides when to retry after backpressure.
        is_retried = call.is_endless or (call.is_retried and error.code != ErrorCode.BACKPRESSURE)
        if not (is_retried and error.retriable) or pending.is_final:
            return self._finish(pending, Failed(pending.call.key, error), now)
        pending.last_error = error
        pending.failures += 1
        if at_once:
            return self._attempt(pending, now)
        delay_ms = self._retry.delay_ms(pending.failures, self._jitter)
        self.timers.set((_RETRY, pending.serial), now + delay_ms)
        return []

    # Outcomes.

    def receive(self, event: Arrived, now: int) -> list[Effect]:
        """Handle a message: the reply to an attempt in flight. Any other is ignored."""
        connection = self._connections.on_route(event.route)
        envelope = event.envelope
        attempt = int.from_bytes(envelope[0], "big") if envelope else id_of(event.header)
        if connection is None or not isinstance(attempt, int):
            return []
        pending = connection.in_flight.pop(attempt, None)
        if pending is None:
            return []
        pending.connection = None
        call = pending.call
        if call.reply_type is None:
            return self._finish(pending, Answered(call.key, event.header, event.payload), now)
        reply = _decode(event.header, call.reply_type)
        if isinstance(reply, ErrorBody):
            effects = self._follow(self._directory.on_refusal(pending, connection, reply, now), now)
            return effects + self._retry_or_fail(pending, reply, now)
        return self._finish(pending, Answered(call.key, reply, event.payload), now)

    def _on_deadline(self, pending: InFlight, now: int) -> list[Effect]:
        call = pending.call
        if not call.is_endless:
            failed = Failed(call.key, _timed_out(pending, self._directory.absence(pending)))
            return [*self._cancel(pending), *self._finish(pending, failed, now)]
        self.timers.set(pending.serial, now + call.timeout_ms)
        if pending.connection is None:
            return []  # held, or waiting for its next attempt
        effects = self._cancel(pending)
        pending.land()
        return [*effects, *self._attempt(pending, now)]

    def _finish(self, pending: InFlight, event: Answered | Failed, now: int) -> list[Effect]:
        self._forget(pending)
        if pending.owner is self._directory:
            return self._follow(self._directory.handle(event, now), now)
        return [Deliver(pending.owner, event)]

    def _forget(self, pending: InFlight) -> list[Effect]:
        if pending.connection is not None:
            pending.land()
        pending.is_over = True
        serial = pending.serial
        del self._pending[serial]
        if pending.is_held:
            self._unhold(pending)
        self.timers.cancel(serial)
        if pending.failures:
            self.timers.cancel((_RETRY, serial))
        if pending.call.retry_timeout_ms is not None:
            self.timers.cancel((_RETRY_TIMEOUT, serial))
        if pending.call.token is not None:
            del self._tokens[pending.call.token]
        return []

    def _withdraw(self, owner: Owner) -> list[Effect]:
        effects: list[Effect] = []
        for pending in [each for each in self._pending.values() if each.owner is owner]:
            effects += self._cancel(pending)
            self._forget(pending)
        return [*effects, CancelTimers(owner)]

    def _cancel(self, pending: InFlight) -> list[Effect]:
        """Notify the receiver that the call was withdrawn, so that it keeps and locks nothing for this sender."""
        connection = pending.connection
        if connection is None:
            return []
        if self._directory.uses_envelopes or isinstance(pending.call.request, bytes):
            return [Send(connection.route, pending.attempt, Cancel(), has_envelope=True)]
        return [Send(connection.route, 0, Cancel(request_id=pending.attempt))]

    # Connections.

    def _on_disconnected(self, event: Disconnected, now: int) -> list[Effect]:
        effects: list[Effect] = []
        for connection in self._connections.reported_as(event.endpoint):
            if event.is_refused:
                if self._directory.reconnects(connection):
                    continue
                connection.hand_back()  # the connection was never established: no call has left
            effects += self._lose(connection, _lost(connection), now)
        return effects

    def _on_undeliverable(self, event: Undeliverable, now: int) -> list[Effect]:
        connection = self._connections.on_route(event.route)
        if connection is None:
            return []
        connection.hand_back(event.attempt)
        if not event.is_full:
            return self._lose(connection, _lost(connection), now)
        pending = connection.in_flight.pop(event.attempt, None)
        if pending is None:
            return []
        pending.connection = None
        error = ErrorBody(ErrorCode.OVERLOADED, f"{pending.call.address} accepts no messages", True)
        return self._retry_or_fail(pending, error, now)

    def _lose(
        self,
        connection: Connection,
        error: ErrorBody,
        now: int,
        is_unexecuted: bool = False,
        address: str | None = None,
    ) -> list[Effect]:
        """Handle the end of a connection, or of one address behind it: the calls in flight have no reply."""
        if self._connections.on_route(connection.route) is not connection:
            return []
        lost = [each for each in connection.in_flight.values() if address in (None, each.call.address)]
        for pending in lost:
            pending.land()  # all before the first attempt, which looks for others that it could overtake
        effects: list[Effect] = []
        if address is None:
            self._connections.drop(connection)
            effects.append(Disconnect(connection.endpoint))
            effects += self._follow(self._directory.on_lost(connection, now), now)
        if is_unexecuted:
            return effects + self._each(lost, lambda each: self._attempt(each, now))
        return effects + self._each(lost, lambda each: self._retry_or_fail(each, error, now, at_once=True))

    # The directory.

    def _follow(self, effects: Iterable[Effect], now: int) -> list[Effect]:
        """Perform the directory's effects on calls and timers. Return the others."""
        found: list[Effect] = []
        for effect in effects:
            match effect:
                case SetTimer(key=key, at=at):
                    self.timers.set(key, at)
                case CancelTimer(key=key):
                    self.timers.cancel(key)
                case Release(address=address):
                    found += self._each(self._held_at(address), lambda each: self._attempt(each, now))
                case Lost():
                    found += self._lose(
                        effect.connection, effect.error, now, effect.is_unexecuted, effect.address
                    )
                case Refused():
                    found += self._refuse(effect, now)
                case Ask(connection=connection, call=call):
                    found += self.submit(self._directory, call, now, connection)
                case _:
                    found.append(effect)
        return found

    def _held_at(self, address: Address | None) -> list[InFlight]:
        if address is not None:
            return list(self._held.get(address, {}).values())
        held = [pending for waiting in self._held.values() for pending in waiting.values()]
        return sorted(held, key=lambda pending: pending.serial)

    def _refuse(self, refused: Refused, now: int) -> list[Effect]:
        if refused.serial is not None:
            pending = self._pending.get(refused.serial)
            found = [pending] if pending is not None else []
        elif refused.address is not None:
            found = self._held_at(refused.address)
        else:
            found = [each for each in self._pending.values() if each.owner is not self._directory]
        is_final = not refused.error.retriable
        failing = [each for each in found if is_final or not each.call.is_endless]
        return self._each(failing, lambda each: self._finish(each, Failed(each.call.key, refused.error), now))

    def _each(self, calls: list[InFlight], act: Callable[[InFlight], list[Effect]]) -> list[Effect]:
        return [effect for pending in calls if not pending.is_over for effect in act(pending)]


def is_quiet(exchange: Exchange) -> bool:
    """Return True if every call without an outcome is a long poll, which is answered when something happens."""
    pending = exchange._pending
    if not pending:
        return True
    if len(pending) > MAX_LONG_POLLS:
        return False
    return all(getattr(each.call.request, "max_wait_ms", 0) for each in pending.values())


def _lost(connection: Connection) -> ErrorBody:
    message = f"lost the connection to {connection.endpoint}"
    return ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, message, retriable=True)


def _timed_out(pending: InFlight, absence: str) -> ErrorBody:
    call, error = pending.call, pending.last_error
    reason = f"last answer: {error.code}: {error.message}" if error is not None else absence
    op = "request" if isinstance(call.request, bytes) else call.request.__struct_config__.tag
    message = f"{op} to {call.address} was not answered within {call.timeout_ms} ms"
    return ErrorBody(ErrorCode.TIMED_OUT, f"{message}; {reason}" if reason else message, retriable=True)


def _decode(header: bytes, reply_type: type[Reply]) -> Any:
    """Return the reply or the refusal. A malformed reply counts as a refusal."""
    try:
        return decode_reply(header, reply_type)
    except ProtocolError as error:
        return error.body
