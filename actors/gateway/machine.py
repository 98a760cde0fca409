"""The gateway's machine: routes every request to its actor and every answer back. Pure and without state of its own.

Owned by its roles: unanswered requests (`tickets`), the queue of each actor (`lanes`), the directory (`peers`), the
table of topics, parked metadata polls, requests that wait for an actor. Called by `process.py` alone. No client
request may crash it, and no client may take the room that others need (`shares`).

    request            effect
    hello, metadata    answered here (metadata may be parked)
    any of a client    delayed as its quota requires (`quotas`)
      under a quota
    topics, quotas, groups'    forwarded to the controller
      list and end
    data               forwarded to the partition (`partition_routes`), `publish` as batches (`publish`)
    groups             forwarded to the coordinator, which is started if necessary (`group_routes`)
    status, kill,      sent to the supervisor; a kill of the gateway itself is answered first, because afterwards it is
      revive           too late
    scheduled          lists and cancels are forwarded to the scheduler (`schedule_routes`)

Stopping: requests that only wait are answered SHUTTING_DOWN at once; writes in flight may finish until the deadline.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ... import __version__
from ...transport.addresses import CONTROLLER, DELAYED_TOPIC, SUPERVISOR, TRANSACTIONS_TOPIC, topic_of
from ...transport.machine import (
    Answered,
    CancelTimer,
    Cast,
    Connected,
    Disconnected,
    Effect,
    Event,
    Failed,
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
from ...transport.protocol.control import EnsureGroup
from ...transport.protocol.data import Fetch, InitProducer, ListOffsets, Produce, Publish
from ...transport.protocol.delayed import CancelScheduled, ListScheduled
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.groups import (
    CommitOffsets,
    DeleteGroup,
    DescribeGroup,
    FetchOffsets,
    GroupHeartbeat,
    LeaveGroup,
    ListGroups,
    ResetOffsets,
)
from ...transport.protocol.message import PROTOCOL_VERSION, Request
from ...transport.protocol.message import Reply as ReplyBody
from ...transport.protocol.operations import Kill, KillReply, Revive, ReviveReply, Status, StatusReply
from ...transport.protocol.quotas import ListQuotas, RemoveQuota, SetQuota
from ...transport.protocol.session import Cancel, Hello, HelloReply, Metadata
from ...transport.protocol.shares import Acknowledge, Acquire, ConfigureShareGroup
from ...transport.protocol.topics import (
    AlterTopic,
    CreateTopic,
    DeleteRecords,
    DeleteTopic,
    DescribeTopic,
    ListTopics,
    WatchCatalogReply,
)
from ...transport.protocol.transactions import AddToTransaction, EndTransaction, ListTransactions
from .controller_calls import ControllerCalls
from .delays import ScheduledIds
from .forwarding import CALL_TIMEOUT_MS, ask_for, forward
from .group_routes import GroupRoutes
from .lanes import TIMER as LANE_TIMER
from .lanes import Lanes, weight_of
from .metadata import MetadataPolls
from .partition_routes import PartitionRoutes
from .peers import Peers
from .publish import Publisher
from .quotas import Quotas
from .schedule_routes import ScheduleRoutes
from .tickets import Tickets, is_poll
from .topic_table import TopicTable, cannot_tell
from .transaction_routes import TransactionRoutes
from .waiting import Attempt, WaitingRoom

CONTROLLER_REQUESTS = (
    CreateTopic, AlterTopic, DeleteTopic, ListTopics, DescribeTopic, InitProducer, ListGroups, DeleteGroup,
    SetQuota, RemoveQuota, ListQuotas,
)  # fmt: skip
SUPERVISOR_REPLIES: dict[type[Request], type[ReplyBody]] = {
    Status: StatusReply,
    Kill: KillReply,
    Revive: ReviveReply,
}
REQUESTS: tuple[type[Request], ...] = (
    Hello, Metadata, Cancel, Status, Kill, Revive, *CONTROLLER_REQUESTS,
    Produce, Publish, Fetch, ListOffsets, DeleteRecords,
    GroupHeartbeat, CommitOffsets, FetchOffsets, LeaveGroup, DescribeGroup, ResetOffsets,
    ListScheduled, CancelScheduled, AddToTransaction, EndTransaction, ListTransactions,
    Acquire, Acknowledge, ConfigureShareGroup,
)  # fmt: skip
_MAY_BE_CUT = (Metadata, Fetch, GroupHeartbeat, Acquire, Status, ListScheduled)

CONTROLLER_TIMEOUT_MS = 60_000
"""A topic of many partitions takes long to come up."""
EXIT_FLUSH_MS = 2_000
"""The time for writes in flight when the gateway stops."""
EXIT_FLUSH_MARGIN_MS = 200

TAKEN_BACK = ErrorBody(
    ErrorCode.THROTTLED, "this connection had the most open requests when other clients needed room", True
)
GIVEN_UP = ErrorBody(
    ErrorCode.TIMED_OUT, "dropped when other clients needed room: it may have taken effect", True
)
SHUTTING_DOWN = ErrorBody(ErrorCode.SHUTTING_DOWN, "the broker is stopping", True)


class GatewayMachine:
    def __init__(
        self,
        *,
        instance_id: str,
        run_directory: str,
        address: str = "gateway/0",
        incarnation: int = 1,
        pid: int = 0,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        """Create the machine. `limits` are those of `Tickets`, for tests."""
        self._instance_id = instance_id
        self._run_directory = run_directory
        self._address = address
        self._self = KillReply(pid=pid, incarnation=incarnation)
        self._hosts: dict[bytes, str] = {}
        """The address of the host, by connection."""
        self._tickets = Tickets(self._hosts, **(limits or {}))
        self._lanes = Lanes(self._tickets, self._hosts)
        self._peers = Peers()
        self._controller = ControllerCalls(self._peers)
        self._table = TopicTable()
        self._waiting_room = WaitingRoom()
        self._quotas = Quotas()
        self._held: dict[int, Attempt] = {}
        """Requests delayed by their client's quota, by ticket."""
        self._metadata = MetadataPolls(
            self._tickets, self._table, self._peers, self._quotas, instance_id, incarnation
        )
        ids = ScheduledIds(instance_id, incarnation)
        self._publisher = Publisher(self._tickets, self._peers, ids)
        self._schedules = ScheduleRoutes(self._tickets, self._table, self._peers, self._waiting_room, ids)
        self._partitions = PartitionRoutes(
            self._tickets, self._table, self._peers, self._waiting_room, self._publisher, self._schedules
        )
        self._groups = GroupRoutes(self._tickets, self._peers, self._waiting_room)
        self._transactions = TransactionRoutes(self._tickets, self._table, self._peers, self._waiting_room)
        self._internal_actors = {
            DELAYED_TOPIC: self._schedules.internal_actors,
            TRANSACTIONS_TOPIC: self._transactions.coordinators,
        }
        self._is_stopping = False

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Received():
                effects = self._on_request(event, now)
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
                self._publisher.wall_offset_ms = offset_ms
                effects = []
            case TimerFired(key=key):
                effects = self._on_timer(key, now)
            case StopRequested(deadline=deadline):
                effects = self._on_stop(deadline, now)
            case _:
                raise AssertionError(f"unknown event {event!r}")
        if self._is_stopping and not len(self._tickets):
            effects.append(Stop("asked to stop"))
        return self._controller.keep(self._lanes.admit(effects, now), now)

    # Requests

    def _on_request(self, event: Received, now: int) -> list[Effect]:
        request = event.request
        is_answered = not (isinstance(request, Produce) and request.acks == 0)
        if self._is_stopping:
            return [Reply(event.sender, SHUTTING_DOWN)] if is_answered else []
        if isinstance(request, Cancel):
            return self._on_cancel(event, now)
        if isinstance(request, Kill) and request.address == self._address:
            reply = msgspec.structs.replace(self._self)
            return [Reply(event.sender, reply), Cast(SUPERVISOR, msgspec.structs.replace(request, id=None))]
        size_bytes = len(event.raw) + sum(map(len, event.payload))
        try:
            if isinstance(request, Hello):
                return [Reply(event.sender, self._hello(event.sender.route[0], request))]
            self._quotas.require_greeting(event)
            charge = self._quotas.admit(event, size_bytes, now)
            if isinstance(request, Produce) and request.acks == 0:
                return self._partitions.pass_unacknowledged(event, request)
            number, evicted = self._tickets.open(
                event.sender,
                size_bytes,
                may_be_cut=isinstance(request, _MAY_BE_CUT),
                charge=charge,
                is_poll=is_poll(request),
                weight=weight_of(request, size_bytes),
            )
        except ProtocolError as error:
            return [Reply(event.sender, error.body)] if is_answered else []
        attempt = Attempt(number=number, event=event)
        effects = self._evict(evicted, now)
        if charge is None or not charge.throttle_ms:
            return effects + self._route(attempt, now)
        self._held[number] = attempt
        return [*effects, SetTimer(("quota", number), now + charge.throttle_ms)]

    def _on_cancel(self, event: Received, now: int) -> list[Effect]:
        cancelled = [
            number
            for number in self._tickets.of_connection(event.sender.route[0])
            if (sender := self._tickets.sender(number)) is not None and event.cancels(sender)
        ]
        return self._forget(cancelled, now)

    def _on_disconnected(self, connection: bytes, now: int) -> list[Effect]:
        self._quotas.on_disconnected(connection)
        effects = self._forget(self._tickets.of_connection(connection), now)
        self._hosts.pop(connection, None)
        return effects + self._groups.on_disconnected(connection)

    def _evict(self, numbers: Sequence[int], now: int) -> list[Effect]:
        """Refuse these admitted requests: clients that use less need the room."""
        replies = [
            Reply(ticket.sender, TAKEN_BACK if ticket.is_poll or self._lanes.is_waiting(number) else GIVEN_UP)
            for number in numbers
            if (ticket := self._tickets.get(number)) is not None
        ]
        return replies + self._forget(numbers, now) if numbers else []

    def _forget(self, numbers: Sequence[int], now: int) -> list[Effect]:
        """Drop requests whose senders are gone, wherever they wait."""
        effects: list[Effect] = []
        for number in numbers:
            effects += self._metadata.forget(number)
            if self._waiting_room.release(number) is not None:
                effects.append(CancelTimer(("wait", number)))
            if self._held.pop(number, None) is not None:
                effects.append(CancelTimer(("quota", number)))
        effects += self._tickets.drop(numbers)
        following, unsent = self._lanes.withdraw(numbers, now)
        return effects + self._refuse(unsent, now) + following

    def _route(self, attempt: Attempt, now: int) -> list[Effect]:
        if self._tickets.sender(attempt.number) is None:
            return []
        try:
            return self._try_to_route(attempt, now)
        except ProtocolError as error:
            return self._tickets.answer(attempt.number, error.body)

    def _try_to_route(self, attempt: Attempt, now: int) -> list[Effect]:
        request = attempt.event.request
        match request:
            case Produce() | Fetch() | ListOffsets() | DeleteRecords() | Publish():
                return self._partitions.route(attempt, request, now)
            case (
                GroupHeartbeat()
                | CommitOffsets()
                | FetchOffsets()
                | LeaveGroup()
                | DescribeGroup()
                | ResetOffsets()
                | Acquire()
                | Acknowledge()
                | ConfigureShareGroup()
            ):
                return self._groups.route(attempt, request, now)
            case ListScheduled() | CancelScheduled():
                return self._schedules.route(attempt, request, now)
            case InitProducer() if request.transactional_id is not None:
                return self._transactions.route(attempt, request, now)
            case AddToTransaction() | EndTransaction() | ListTransactions():
                return self._transactions.route(attempt, request, now)
            case Metadata():
                return self._route_metadata(attempt, request, now)
        if isinstance(request, CONTROLLER_REQUESTS):
            return [forward(attempt, CONTROLLER, CONTROLLER_TIMEOUT_MS)]
        reply_type = SUPERVISOR_REPLIES[type(request)]
        return [ask_for(attempt, SUPERVISOR, request, reply_type, CALL_TIMEOUT_MS)]

    def _hello(self, connection: bytes, request: Hello) -> HelloReply:
        if request.version != PROTOCOL_VERSION:
            raise ProtocolError(
                ErrorCode.UNSUPPORTED_VERSION,
                f"version: {request.version} is asked for, this broker speaks {PROTOCOL_VERSION}",
            )
        self._quotas.on_hello(connection, request.client_id)
        return HelloReply(
            version=PROTOCOL_VERSION,
            server=f"planaria/{__version__}",
            instance_id=self._instance_id,
            run_directory=self._run_directory,
        )

    def _route_metadata(self, attempt: Attempt, request: Metadata, now: int) -> list[Effect]:
        is_complete = self._table.is_loaded and not self._metadata.unknown_topics(request)
        # A long poll has seen the table before: topics that are unknown then will arrive with the poll itself.
        is_first_look = request.after_version is None or not self._table.is_loaded
        if is_first_look and not is_complete and not attempt.has_asked:
            return self._table.ask(attempt)
        return self._metadata.on_metadata(attempt.number, request, now)

    # Answers

    def _on_answered(self, event: Answered, now: int) -> list[Effect]:
        match event.key:
            case ("forward", number):
                return self._tickets.answer(number, event.reply, event.payload)
            case ("publish", *_):
                return self._publisher.on_answered(event)
            case ("schedule", *_):
                return self._publisher.on_scheduled(event)
            case ("ensure", EnsureGroup() as order):
                return self._groups.on_ensured(order)
            case ("ensure_internal_actors", topic):
                return self._internal_actors[topic].on_ensured()
            case ("transactions", *_):
                return self._transactions.on_listed(event, now)
            case ("watch",):
                self._table.on_watch_ended()
                return self._update(event.reply) + self._table.watch()
            case ("ask",):
                attempts, effects = self._table.on_asked()
                effects = self._update(event.reply) + effects
                return effects + self._route_again(attempts, now, has_asked=True)
        raise AssertionError(f"no call has the key {event.key!r}")

    def _on_failed(self, event: Failed, now: int) -> list[Effect]:
        match event.key:
            case ("forward", number):
                return self._tickets.answer(number, event.error)
            case ("publish", *_):
                return self._publisher.on_failed(event)
            case ("schedule", *_):
                return self._publisher.on_not_scheduled(event)
            case ("ensure", EnsureGroup() as order):
                return self._groups.on_not_ensured(order, event.error)
            case ("ensure_internal_actors", topic):
                return self._internal_actors[topic].on_not_ensured(event.error)
            case ("transactions", attempt, *_):
                return self._tickets.answer(attempt.number, event.error)
            case ("watch",):
                return self._table.on_watch_failed(now)
            case ("ask",):
                return self._on_not_asked(event.error)
        raise AssertionError(f"no call has the key {event.key!r}")

    def _on_not_asked(self, error: ErrorBody) -> list[Effect]:
        attempts, effects = self._table.on_asked()
        for attempt in attempts:
            request = attempt.event.request
            topic = getattr(request, "topic", None) or "asked for"
            effects += self._tickets.answer(attempt.number, cannot_tell(topic, error))
        return effects

    def _update(self, reply: WatchCatalogReply) -> list[Effect]:
        change = self._table.update(reply)
        changed = change.came | change.changed
        if self._quotas.configure(reply.quotas):
            changed = changed.union(self._table.names)
        for topic in change.went:
            self._peers.forget_down(topic)
            self._publisher.forget_topic(topic)
        return self._metadata.on_changed(changed, gone=change.went)

    def _route_again(self, attempts: Iterable[Attempt], now: int, *, has_asked: bool) -> list[Effect]:
        effects: list[Effect] = []
        for attempt in attempts:
            again = Attempt(
                number=attempt.number,
                event=attempt.event,
                has_asked=has_asked or attempt.has_asked,
                deadline=attempt.deadline,
            )
            effects += self._route(again, now)
        return effects

    def _refuse(self, failures: list[Failed], now: int) -> list[Effect]:
        return [effect for failed in failures for effect in self._on_failed(failed, now)]

    # The directory

    def _on_up(self, event: PeerUp, now: int) -> list[Effect]:
        self._peers.on_up(event)
        effects: list[Effect] = []
        if event.address == CONTROLLER:
            effects += self._table.watch() + self._controller.on_up()
        topic = topic_of(event.address)
        if topic is not None:
            effects += self._metadata.on_changed([topic])
        return effects + self._release(event.address, now)

    def _release(self, address: str, now: int) -> list[Effect]:
        """Route the requests again that waited for an actor."""
        attempts, cancelled = self._waiting_room.release_all(address)
        return cancelled + self._route_again(attempts, now, has_asked=False)

    def _on_down(self, event: PeerDown, now: int) -> list[Effect]:
        if not self._peers.on_down(event):
            return []
        if event.address == CONTROLLER:
            return self._refuse(self._controller.on_down(), now)
        topic = topic_of(event.address)
        if topic is not None:
            if self._table.is_loaded and self._table.get(topic) is None:
                self._peers.forget_down(topic)
            return self._metadata.on_changed([topic]) + self._release(event.address, now)
        if event.asleep:
            return self._release(event.address, now)
        if event.quarantined:
            return self._groups.on_coordinator_lost(event.address)
        return []

    # Time

    def _on_timer(self, key: Any, now: int) -> list[Effect]:
        match key:
            case ("wait", number):
                return self._on_timeout(number, now)
            case ("poll", number):
                return self._metadata.on_timer(number)
            case ("quota", number):
                return self._route(self._held.pop(number), now)
            case ("watch",):
                return self._table.watch()
            case (kind, address) if kind == LANE_TIMER:
                return self._lanes.on_timer(address, now)
            case ("controller", number):
                return self._refuse(self._controller.on_timeout(number), now)
            case ("stop",):
                return self._tickets.answer_all(SHUTTING_DOWN)
        raise AssertionError(f"no timer has the key {key!r}")

    def _on_timeout(self, number: int, now: int) -> list[Effect]:
        released = self._waiting_room.release(number)
        if released is None:
            return []
        address, attempt = released
        if topic_of(address) is not None:
            return self._route(attempt, now)
        return self._groups.on_timeout(address, attempt)

    def _on_stop(self, deadline: int, now: int) -> list[Effect]:
        if self._is_stopping:
            return []
        self._is_stopping = True
        until = max(now, min(now + EXIT_FLUSH_MS, deadline - EXIT_FLUSH_MARGIN_MS))
        return [*self._tickets.cut(SHUTTING_DOWN), SetTimer(("stop",), until)]
