"""The gateway's machine: routes every request to its actor and every answer back. Pure and without state of its own.

Owned by its roles: unanswered requests (`tickets`), the queue of each actor (`lanes`), the directory (`peers`), the
table of topics, parked metadata polls, requests that wait for an actor (`router`). Called by `process.py` alone. No
client request may crash it, and no client may take the room that others need (`shares`).

    event                    result
    Received                 refused without the right (`access`), delayed as the client's quota requires (`quotas`),
                             then as the table of routes says (`routes`): passed on by `router`, or answered here; a
                             kill of the gateway itself is answered first, because afterwards it is too late
    PasswordChecked          the greeting that waits for it is answered
    Answered, Failed         the key of the call says whose it was (`keys`)
    Disconnected, cancel     the requests are dropped wherever they wait
    PeerUp, PeerDown         requests that waited for the actor are routed again, metadata polls are answered

Stopping: requests that only wait, for news or for their actor, are answered SHUTTING_DOWN at once; writes in flight may
finish until the deadline.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, assert_never

import msgspec

from ...transport.addresses import CONTROLLER, SUPERVISOR, Address
from ...transport.machine import (
    Answered,
    CancelTimer,
    Cast,
    Connected,
    Disconnected,
    Failed,
    LoopEffect,
    LoopEvent,
    PeerDown,
    PeersAsleep,
    PeerUp,
    Received,
    Reply,
    SetTimer,
    Stop,
    StopRequested,
    TimerFired,
    WallClockStepped,
)
from ...transport.protocol.data import Produce, Publish
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.message import Request
from ...transport.protocol.operations import Kill, KillReply
from ...transport.protocol.session import Cancel, Hello, Metadata
from ...transport.protocol.topics import WatchCatalogReply
from ...transport.protocol.transactions import ListTransactions
from .access import Access
from .admission import Admission
from .audit import Audit
from .controller_calls import ControllerCalls
from .greetings import CheckPassword, Greetings, PasswordChecked
from .keys import (
    ActorStart,
    AuditKey,
    CallKey,
    Forwarded,
    KeptCallTimer,
    LaneTimer,
    NodesWatch,
    PollTimer,
    PublishCall,
    QuotaTimer,
    ScheduleCall,
    StopTimer,
    TableQuestion,
    TableWatch,
    TimerKey,
    TransactionsCall,
    WaitTimer,
)
from .lanes import Lanes
from .members import Members
from .metadata import MetadataPolls
from .nodes import Nodes
from .peers import Peers
from .permissions import Permissions
from .publish import Publisher
from .publish_routes import PublishRoutes
from .quotas import Quotas
from .router import Router
from .routes import ROUTES, route_of
from .tickets import GIVEN_UP, TAKEN_BACK, Tickets
from .topic_table import TopicTable, cannot_tell
from .transaction_lists import TransactionLists
from .waiting import Attempt

REQUESTS: tuple[type[Request], ...] = tuple(ROUTES)

EXIT_FLUSH_MS = 2_000
"""The time for writes in flight when the gateway stops."""
EXIT_FLUSH_MARGIN_MS = 200

GatewayEffect: TypeAlias = LoopEffect | CheckPassword

SHUTTING_DOWN = ErrorBody(ErrorCode.SHUTTING_DOWN, "the broker is stopping", True)


class GatewayMachine:
    def __init__(
        self,
        *,
        instance_id: str,
        run_directory: str,
        address: Address,
        incarnation: int,
        pid: int,
        is_clustered: bool = False,
        access: Access | None = None,
        is_audited: bool = False,
        node: str = "",
        limits: Mapping[str, int] | None = None,
    ) -> None:
        """Create the machine. Without `access` everyone may do everything. `limits` are those of `Tickets`, for tests."""
        self._address = address
        self._self = KillReply(pid=pid, incarnation=incarnation)
        self._hosts: dict[bytes, str] = {}
        """The address of the host, by connection."""
        self._tickets = Tickets(self._hosts, **(limits or {}))
        self._lanes = Lanes(self._tickets, self._hosts)
        self._peers = Peers()
        self._controller = ControllerCalls(self._peers)
        self.audit = Audit(
            f"{instance_id}.{incarnation}", self._hosts, self._tickets, access, node, is_on=is_audited
        )
        self._permissions = Permissions(access, self._tickets, self.audit)
        self._table = TopicTable(with_security=access is not None)
        self.quotas = Quotas()
        self._nodes = Nodes(is_clustered=is_clustered)
        self._admission = Admission(self.quotas, self._tickets, self.audit, self._hosts)
        self._held: dict[int, Attempt] = {}
        """Requests delayed by their client's quota, by ticket."""
        self._greetings = Greetings(access, self.audit, self.quotas, self._nodes, instance_id, run_directory)
        sources = (self._tickets, self._table, self._peers, self.quotas, self._nodes)
        self._metadata = MetadataPolls(*sources, access, instance_id, incarnation)
        self._publisher = Publisher(self._tickets, self._peers)
        self._members = Members()
        self._router = Router(self._tickets, self._table, self._peers, self._members)
        gateway = f"{instance_id}.{incarnation}"
        self._publishes = PublishRoutes(self._router, self._table, self._peers, self._publisher, gateway)
        self._transactions = TransactionLists(self._tickets, self._table)
        self._wall_offset_ms = 0
        self._is_stopping = False

    @property
    def open_requests(self) -> int:
        """Return the number of requests without an answer yet."""
        return len(self._tickets)

    def knows(self, key: str, wall_ms: int) -> bool | None:
        """Return True if connections with this key have a principal; None if that is not decided yet."""
        return self._greetings.knows(key, wall_ms)

    def handle(self, event: LoopEvent | PasswordChecked, now: int) -> list[GatewayEffect]:
        self.audit.wall_ms = now + self._wall_offset_ms
        match event:
            case Received():
                effects = self._on_request(event, now)
            case Answered() | Failed() | TimerFired() if isinstance(event.key, AuditKey):
                effects = self.audit.on_event(event, now)
            case Answered():
                effects = self._lanes.on_ended(event.key, now) + self._on_answered(event, now)
            case Failed():
                effects = self._lanes.on_ended(event.key, now) + self._on_failed(event, now)
            case Connected(connection=connection, host=host):
                self._hosts[connection] = host
                effects = []
            case Disconnected(connection=connection):
                effects = self._on_disconnected(connection, now)
            case PeerUp():
                effects = self._on_up(event, now)
            case PeerDown():
                effects = self._on_down(event, now)
            case PeersAsleep():
                self._peers.on_asleep(event)
                effects = [each for address in event.addresses for each in self._release(address, now)]
            case WallClockStepped(offset_ms=offset_ms):
                self._publisher.wall_offset_ms = self._wall_offset_ms = offset_ms
                effects = []
            case TimerFired(key=key):
                effects = self._on_timer(key, now)
            case PasswordChecked():
                effects = self._greetings.on_checked(event, now + self._wall_offset_ms)
            case StopRequested(deadline=deadline):
                effects = self._on_stop(deadline, now)
            case _:
                assert_never(event)
        # In front of an act stands the record of its beginning.
        records = self.audit.flush(now) if self.audit.has_work else None
        if self._is_stopping and not len(self._tickets) and not self.audit.has_unwritten:
            effects.append(Stop("asked to stop"))
        effects = self._controller.keep(self._lanes.admit(effects, now), now)
        return effects if records is None else records + effects

    # Requests

    def _on_request(self, event: Received, now: int) -> list[GatewayEffect]:
        request = event.request
        is_answered = not (isinstance(request, Produce) and request.acks == 0)
        if self._is_stopping:
            return [Reply(event.sender, SHUTTING_DOWN)] if is_answered else []
        if isinstance(request, Cancel):
            return self._forget(self._tickets.withdrawn_by(event), now)
        route = route_of(request)
        try:
            if isinstance(request, Hello):
                return self._greetings.on_hello(event, request, now + self._wall_offset_ms)
            granted = self._permissions.granted(event, now + self._wall_offset_ms)
            if isinstance(request, Kill) and request.address == self._address:
                self.audit.at_once(event, granted)
                order = msgspec.structs.replace(request, id=None)
                return [Reply(event.sender, msgspec.structs.replace(self._self)), Cast(SUPERVISOR, order)]
            admitted = self._admission.admit(event, route, granted, now)
        except ProtocolError as error:
            self.audit.refuse(event, error.body)
            return [Reply(event.sender, error.body)] if is_answered else []
        number, context = admitted.number, admitted.context
        if number is None:
            assert isinstance(request, Produce)
            return self._router.cast_produce(event, request, context)
        attempt = Attempt(number=number, event=event, route=route, context=context)
        effects = self._evict(admitted.evicted, now) if admitted.evicted else []
        if not admitted.throttle_ms:
            return effects + self._route(attempt, now)
        self._held[number] = attempt
        return [*effects, SetTimer(QuotaTimer(number), now + admitted.throttle_ms)]

    def _on_disconnected(self, connection: bytes, now: int) -> list[GatewayEffect]:
        self.quotas.on_disconnected(connection)
        effects = self._forget(self._tickets.of_connection(connection), now)
        self._hosts.pop(connection, None)
        return effects + self._members.on_disconnected(connection, self._peers)

    def _evict(self, numbers: Sequence[int], now: int) -> list[GatewayEffect]:
        """Refuse these admitted requests: clients that use less need the room."""
        replies = [
            Reply(ticket.sender, TAKEN_BACK if ticket.is_poll or self._lanes.is_waiting(number) else GIVEN_UP)
            for number in numbers
            if (ticket := self._tickets.get(number)) is not None
        ]
        return replies + self._forget(numbers, now)

    def _forget(self, numbers: Sequence[int], now: int) -> list[GatewayEffect]:
        """Drop requests whose senders are gone, wherever they wait."""
        effects: list[GatewayEffect] = []
        for number in numbers:
            effects += self._metadata.forget(number)
            effects += self._router.forget(number)
            if self._held.pop(number, None) is not None:
                effects.append(CancelTimer(QuotaTimer(number)))
        effects += self._tickets.drop(numbers)
        following, unsent = self._lanes.withdraw(numbers, now)
        return effects + self._refuse(unsent, now) + following

    def _route(self, attempt: Attempt, now: int) -> list[GatewayEffect]:
        if self._tickets.sender(attempt.number) is None:
            return []
        try:
            return self._try_to_route(attempt, now)
        except ProtocolError as error:
            self.audit.refuse(attempt.event, error.body)
            return self._tickets.answer(attempt.number, error.body)

    def _try_to_route(self, attempt: Attempt, now: int) -> list[GatewayEffect]:
        if attempt.route.to is not None:
            return self._router.route(attempt, now)
        match attempt.event.request:
            case Publish() as request:
                return self._publishes.route(attempt, request, now)
            case Metadata() as request:
                return self._route_metadata(attempt, request, now)
            case ListTransactions():
                return self._transactions.route(attempt)
        raise AssertionError(f"no route leads to {attempt.event.request!r}")

    def _route_metadata(self, attempt: Attempt, request: Metadata, now: int) -> list[GatewayEffect]:
        if self._metadata.needs_table(request) and not attempt.has_asked:
            return self._table.ask(attempt)
        return self._metadata.on_metadata(attempt.number, request, now)

    # Answers

    def _on_answered(self, event: Answered, now: int) -> list[GatewayEffect]:
        key: CallKey = event.key
        match key:
            case Forwarded():
                reply = self._permissions.visible(key.ticket, event.reply)
                return self._tickets.answer(key.ticket, reply, event.payload)
            case PublishCall():
                return self._publisher.on_answered(key, event.reply)
            case ScheduleCall():
                return self._publisher.on_scheduled(key, event.reply)
            case ActorStart():
                return self._router.on_started(key)
            case TransactionsCall():
                return self._transactions.on_answered(key, event.reply)
            case TableWatch():
                return self._update(event.reply, now) + self._table.watch_again()
            case NodesWatch():
                return [*self._nodes.on_reply(event.reply)]
            case TableQuestion():
                attempts, effects = self._table.on_asked()
                effects = self._update(event.reply, now) + effects
                return effects + self._route_all((attempt.after_asking() for attempt in attempts), now)
            case _:
                assert_never(key)

    def _on_failed(self, event: Failed, now: int) -> list[GatewayEffect]:
        key: CallKey = event.key
        match key:
            case Forwarded():
                return self._tickets.answer(key.ticket, event.error)
            case PublishCall():
                return self._publisher.on_failed(key, event.error)
            case ScheduleCall():
                return self._publisher.on_not_scheduled(key, event.error)
            case ActorStart():
                return self._router.on_not_started(key, event.error)
            case TransactionsCall():
                return self._transactions.on_failed(key, event.error)
            case TableWatch() | NodesWatch():
                raise AssertionError(f"the controller refuses the watch: {event.error.message}")
            case TableQuestion():
                return self._on_not_asked(event.error)
            case _:
                assert_never(key)

    def _on_not_asked(self, error: ErrorBody) -> list[GatewayEffect]:
        attempts, effects = self._table.on_asked()
        refused = [(each.number, cannot_tell(each.event.request, error)) for each in attempts]
        return effects + [each for number, body in refused for each in self._tickets.answer(number, body)]

    def _update(self, reply: WatchCatalogReply, now: int) -> list[GatewayEffect]:
        change = self._table.update(reply)
        changed = change.came | change.changed
        if self.quotas.configure(reply.quotas):
            changed = changed.union(self._table.names)
        for topic in change.went:
            self._peers.forget_down(topic)
            self._publisher.forget_topic(topic)
        if self._permissions.configure(reply.security):
            changed = changed.union(self._table.names)
        refusals = self._permissions.revoked(now + self._wall_offset_ms)
        ended = [*refusals.values(), *self._forget(list(refusals), now)]
        return ended + self._metadata.on_changed(changed, gone=change.went)

    def _route_all(self, attempts: Iterable[Attempt], now: int) -> list[GatewayEffect]:
        return [effect for attempt in attempts for effect in self._route(attempt, now)]

    def _refuse(self, failures: list[Failed], now: int) -> list[GatewayEffect]:
        return [effect for failed in failures for effect in self._on_failed(failed, now)]

    # The directory

    def _on_up(self, event: PeerUp, now: int) -> list[GatewayEffect]:
        self._peers.on_up(event)
        effects: list[GatewayEffect] = []
        if event.address == CONTROLLER:
            effects += self._table.watch() + self._nodes.watch() + self._controller.on_up()
            effects += self.audit.on_controller_up()
        topic = event.address.topic
        if topic is not None:
            effects += self._metadata.on_changed([topic])
        return effects + self._release(event.address, now)

    def _release(self, address: Address, now: int) -> list[GatewayEffect]:
        """Route the requests again that waited for an actor."""
        attempts, cancelled = self._router.release(address)
        return cancelled + self._route_all(attempts, now)

    def _on_down(self, event: PeerDown, now: int) -> list[GatewayEffect]:
        if not self._peers.on_down(event):
            return []
        if event.address == CONTROLLER:
            return self._refuse(self._controller.on_down(), now)
        topic = event.address.topic
        if topic is not None:
            if self._table.is_loaded and self._table.get(topic) is None:
                self._peers.forget_down(topic)
            return self._metadata.on_changed([topic]) + self._release(event.address, now)
        # Others are expected back, unless they are given up.
        return self._release(event.address, now) if event.asleep or event.quarantined else []

    # Time

    def _on_timer(self, key: TimerKey, now: int) -> list[GatewayEffect]:
        match key:
            case WaitTimer():
                attempt = self._router.take_overdue(key.ticket)
                return [] if attempt is None else self._route(attempt, now)
            case PollTimer():
                return self._metadata.on_timer(key.ticket)
            case QuotaTimer():
                return self._route(self._held.pop(key.ticket), now)
            case LaneTimer():
                return self._lanes.on_timer(key.address, now)
            case KeptCallTimer():
                return self._refuse(self._controller.on_timeout(key.number), now)
            case StopTimer():
                self.audit.give_up()
                return self._tickets.answer_all(SHUTTING_DOWN)
            case _:
                assert_never(key)

    def _on_stop(self, deadline: int, now: int) -> list[GatewayEffect]:
        if self._is_stopping:
            return []
        self._is_stopping = True
        self.audit.end_window()
        until = SetTimer(StopTimer(), max(now, min(now + EXIT_FLUSH_MS, deadline - EXIT_FLUSH_MARGIN_MS)))
        return [*self._tickets.cut(SHUTTING_DOWN), *self._router.stop(SHUTTING_DOWN), until]
