"""The audit: records of administrative acts and of refusals, written to the topic `__audit`. Pure.

Owns the records that are not durable yet. No request waits for one of them. Records of a turn are one `produce`, sent in
front of the turn's other messages, so the beginning of an act leaves the gateway before the act itself does; while one is
in flight, further records wait for the next.

    act permitted            `begun` at once; its outcome when its ticket is closed (`tickets.py`)
    act at the supervisor    written with its outcome; the supervisor keeps it until it is durable
    refusal                  counted (`refusals.py`), written at the end of its window, or when the gateway stops
    topic takes no records   they wait; beyond MAX_WAITING the newest are dropped, and their number is written later

A record is a batch of its own with its number as dedup id, so a repeated `produce` writes it once. A gateway that is
killed loses the refusals of the open window and the records in flight to the partition that have not reached it.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from ...transport.addresses import AUDIT_TOPIC, CONTROLLER, SUPERVISOR, partition_address
from ...transport.audit_record import AuditRecord, encode_record
from ...transport.deduplication import identified_batch, identified_headers
from ...transport.machine import Answered, Call, Effect, Failed, Received, SetTimer, TimerFired
from ...transport.protocol.control import AwaitActs, AwaitActsReply, EnsureInternalActors
from ...transport.protocol.data import Produce, ProduceReply
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.message import Done
from ...transport.protocol.session import Hello
from ...transport.security.principals import INTERNAL
from .access import Access, Granted, key_of
from .acts import ACTS, details_of, op_of, resource_of
from .keys import ActsWatch, AuditCall, AuditRetry, AuditStart, RefusalsTimer
from .refusals import WINDOW_MS, Refusal, Refusals
from .tickets import Ticket, Tickets

MAX_WAITING = 5_000
MAX_RECORDS_PER_CALL = 128
PRODUCE_TIMEOUT_MS = 30_000
START_TIMEOUT_MS = 60_000
RETRY_MS = 1_000
WATCH_MS = 60_000
START_RETRY_MS = 30_000
PARTITION = partition_address(AUDIT_TOPIC, 0)
_REFUSALS = frozenset({ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN})
_UNKNOWN = frozenset({ErrorCode.TIMED_OUT, ErrorCode.ACTOR_UNAVAILABLE, ErrorCode.SHUTTING_DOWN})
"""Codes of failures after which a change may have been made."""


class Audit:
    def __init__(
        self,
        name: str,
        hosts: Mapping[bytes, str],
        tickets: Tickets,
        access: Access | None,
        node: str,
        *,
        is_on: bool,
    ) -> None:
        """`name` is that of this start of the gateway: it begins the ids of its records."""
        self._name = name
        self._node = node
        self._hosts = hosts
        self._tickets = tickets
        self._access = access
        self.is_on = is_on
        self._refusals = Refusals()
        self._waiting: deque[AuditRecord] = deque()
        self._in_flight: Sequence[AuditRecord] = ()
        self._lost = 0
        self._is_paused = False
        """True after a failure, until its timer fires."""
        self._opens_window = False
        self._last_number = 0
        self._is_watching = False
        """True once the supervisor has been asked for acts."""
        self._last_act = 0
        """Number of the last act over the supervisor's socket."""
        self._unwritten_acts: set[str] = set()
        """Ids of such acts that are not durable."""
        self.wall_ms = 0
        """The time of day of the present event."""

    @property
    def has_work(self) -> bool:
        """Return True if `flush` may return something: hot path, asked after each event."""
        return self._opens_window or bool(self._waiting)

    @property
    def has_unwritten(self) -> bool:
        """Return True while records are not durable yet."""
        return bool(self._in_flight or self._waiting)

    def on_controller_up(self) -> list[Effect]:
        """Have the topic created, if it is not there yet."""
        if not self.is_on:
            return []
        request = EnsureInternalActors(topic=AUDIT_TOPIC)
        start = Call(AuditStart(), CONTROLLER, request, Done, timeout_ms=START_TIMEOUT_MS, is_endless=True)
        if self._is_watching:
            return [start]
        self._is_watching = True
        return [start, *self._watch()]

    # Acts

    def begin(self, number: int, event: Received, granted: Granted | None) -> None:
        """Record a permitted act, and later its outcome, when its ticket is closed."""
        if not self.is_on or type(event.request) not in ACTS or event.context.is_admitted:
            return
        record = self._begun(event, granted)
        self._tickets.on_closed(number, self._end_of(record))

    def at_once(self, event: Received, granted: Granted | None) -> None:
        """Record an act of this gateway itself, which does not learn the outcome."""
        if self.is_on:
            self._begun(event, granted)

    def _begun(self, event: Received, granted: Granted | None) -> AuditRecord:
        record = AuditRecord(
            id=self._new_id(),
            time_ms=self.wall_ms,
            outcome="begun",
            op=op_of(event.request),
            resource=resource_of(event.request),
            principal="" if granted is None else granted.principal,
            client_id=event.context.client_id,
            address=self._address_of(event),
            details=details_of(event.request),
        )
        self._add(record)
        return record

    def _end_of(self, record: AuditRecord) -> Callable[[ErrorBody | None, bool], None]:
        def end(error: ErrorBody | None, is_answered: bool) -> None:
            if not is_answered:
                outcome, code = "unknown", ""
            elif error is None:
                outcome, code = "done", ""
            else:
                outcome, code = ("unknown" if error.code in _UNKNOWN else "failed"), error.code
            ended = replace(record, time_ms=self.wall_ms, outcome=outcome, error=code, details=None)
            self._add(ended)

        return end

    def _watch(self) -> list[Effect]:
        """Wait for acts over the supervisor's socket, if those before are durable."""
        if self._unwritten_acts:
            return []
        request = AwaitActs(after=self._last_act)
        key = ActsWatch()
        return [Call(key, SUPERVISOR, request, AwaitActsReply, timeout_ms=WATCH_MS, is_endless=True)]

    def _on_acts(self, reply: AwaitActsReply, now: int) -> list[Effect]:
        for act in reply.acts:
            self._last_act = act.number
            self._unwritten_acts.add(act.id)
            record = AuditRecord(
                id=act.id,
                time_ms=act.at_ms + self.wall_ms - now,
                outcome="failed" if act.error else "done",
                op=op_of(act.request),
                resource=resource_of(act.request),
                principal=INTERNAL,
                error=act.error,
                details=details_of(act.request),
            )
            self._add(record)
        return self._watch()

    # Refusals

    def refuse(self, event: Received, error: ErrorBody) -> None:
        """Count a refused request, if it was refused for lack of a credential or a right."""
        if not self.is_on or error.code not in _REFUSALS:
            return
        request = event.request
        principal, resource = "", ""
        key = key_of(event)
        if self._access is not None and key is not None:
            principal = self._access.principal_of(key, self.wall_ms) or ""
            if isinstance(request, Hello):
                principal = request.user if self._access.knows(request.user) else ""
                resource = f"principal:{principal}" if principal else ""
            elif principal:
                need = self._access.missing(principal, request)
                resource = resource_of(request) if need is None else need.resource
        self._count(Refusal(principal, op_of(request), resource, str(error.code)), self._address_of(event))

    def refuse_parked(self, ticket: Ticket, error: ErrorBody) -> None:
        """Count a request that was permitted and is not any longer."""
        if self.is_on and ticket.granted is not None and ticket.sender.kind is not None:
            resource = ticket.granted.needs[0].resource if ticket.granted.needs else ""
            op = str(ticket.sender.kind.__struct_config__.tag)
            refusal = Refusal(ticket.granted.principal, op, resource, error.code)
            self._count(refusal, self._hosts.get(ticket.sender.route[0], ""))

    def refuse_handshake(self, host: str, wall_ms: int) -> None:
        """Count a connection whose key is not known."""
        if self.is_on:
            refusal = Refusal("", "handshake", "", str(ErrorCode.UNAUTHENTICATED))
            self._opens_window |= self._refusals.count(refusal, host, wall_ms)

    def _address_of(self, event: Received) -> str:
        return event.context.address or self._hosts.get(event.sender.route[0], "")

    def _count(self, refusal: Refusal, address: str) -> None:
        self._opens_window |= self._refusals.count(refusal, address, self.wall_ms)

    def end_window(self) -> None:
        """Write the refusals of the window that ends, or is cut short by a stop."""
        for record in self._refusals.take():
            self._add(replace(record, id=self._new_id()))

    # Writing

    def flush(self, now: int) -> list[Effect]:
        """Return the effects that write the waiting records. Called at the end of each event."""
        effects: list[Effect] = []
        if self._opens_window:
            self._opens_window = False
            effects.append(SetTimer(RefusalsTimer(), now + WINDOW_MS))
        if not self._waiting or self._in_flight or self._is_paused:
            return effects
        if self._lost:
            lost, self._lost = self._lost, 0
            record = AuditRecord(id=self._new_id(), time_ms=self.wall_ms, outcome="lost", count=lost)
            self._waiting.append(replace(record, node=self._node))
        count = min(len(self._waiting), MAX_RECORDS_PER_CALL)
        self._in_flight = [self._waiting.popleft() for _ in range(count)]
        return [*effects, self._call()]

    def on_event(self, event: Answered | Failed | TimerFired, now: int) -> list[Effect]:
        """Handle the outcome of a call, or a timer."""
        match event.key, event:
            case AuditCall(), Answered(reply=reply):
                return self._on_written(reply, now)
            case AuditCall(), Failed():
                # Only a damaged partition refuses records: an operator may mend it.
                self._waiting.extendleft(reversed(self._in_flight))
                self._in_flight = ()
                return self._pause(now)
            case ActsWatch(), Answered(reply=reply):
                return self._on_acts(reply, now)
            case ActsWatch(), Failed():  # the broker stops
                return []
            case AuditStart(), Answered():
                return []
            case AuditStart(), Failed():
                return [SetTimer(AuditRetry(is_start=True), now + START_RETRY_MS)]
            case RefusalsTimer(), TimerFired():
                self.end_window()
                return []
            case AuditRetry(is_start=is_start), TimerFired():
                self._is_paused = self._is_paused and is_start
                return self.on_controller_up() if is_start else []
        raise AssertionError(f"no event of the audit: {event!r}")

    def _on_written(self, reply: ProduceReply, now: int) -> list[Effect]:
        sent, self._in_flight = self._in_flight, ()
        again = []
        for position, record in enumerate(sent):
            result = reply.batches[position] if position < len(reply.batches) else None
            error = None if result is None else result.error
            if error is not None and error.retriable:
                again.append(record)
            elif error is not None:
                self._lost += 1
        self._waiting.extendleft(reversed(again))
        effects = self._pause(now) if again else []
        if self._unwritten_acts:
            self._unwritten_acts.difference_update(each.id for each in sent if each not in again)
            effects += self._watch()
        return effects

    def give_up(self) -> None:
        """Forget the records that are not written: the time for that is over."""
        self._waiting.clear()
        self._in_flight = ()

    def _pause(self, now: int) -> list[Effect]:
        self._is_paused = True
        return [SetTimer(AuditRetry(), now + RETRY_MS)]

    def _call(self) -> Call:
        batches = [
            identified_batch(
                (
                    None,
                    encode_record(record),
                    record.time_ms,
                    identified_headers(None, self._dedup_id(record)),
                ),
                record.time_ms,
            )
            for record in self._in_flight
        ]
        request = Produce(topic=AUDIT_TOPIC, partition=0)
        return Call(
            AuditCall(),
            PARTITION,
            request,
            ProduceReply,
            payload=batches,
            timeout_ms=PRODUCE_TIMEOUT_MS,
            is_endless=True,
        )

    @staticmethod
    def _dedup_id(record: AuditRecord) -> str:
        return record.id if record.outcome in ("begun", "refused", "lost") else f"{record.id}.end"

    def _add(self, record: AuditRecord) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            self._unwritten_acts.discard(record.id)
        else:
            self._waiting.append(replace(record, node=self._node) if self._node else record)

    def _new_id(self) -> str:
        self._last_number += 1
        return f"{self._name}.{self._last_number}"
