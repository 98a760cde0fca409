"""Routes a client's request to its actor, which may be unknown, missing or not up yet. Pure.

    address unknown          created if the request creates it (`ensure_internal_actors`); otherwise the controller is
                             asked once for the table, and then the request is refused
    up, or asleep            forwarded unchanged; a sleeping actor is woken by it
    starting, restarting     the request waits, as its kind of actor says (`actor_kinds.py`); a coordinator is started
    otherwise, or overdue    refused with the reason; also while the gateway stops, instead of a wait

Owns the requests that wait. They are routed again when their actor comes up, falls asleep or is given up, when the
controller has answered, and when their time is over. Called by machine.py and publish_routes.py.
"""

from typing import Any

from msgspec.structs import replace

from ...transport.addresses import CONTROLLER, Address, is_internal, partition_address
from ...transport.machine import Call, Cast, Effect, Received
from ...transport.protocol.control import EnsureGroup, EnsureInternalActors
from ...transport.protocol.data import Produce, ProduceReply
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.message import Done
from ...transport.protocol.shares import ConfigureShareGroup
from ...transport.request_context import RequestContext
from .actor_kinds import ActorKind
from .keys import NO_TICKET, ActorStart, Forwarded
from .members import Members
from .peers import Peers
from .routes import max_wait_ms_of
from .tickets import Tickets
from .topic_table import TopicTable
from .waiting import Attempt, WaitingRoom

START_TIMEOUT_MS = 10_000
"""The time for the controller to start an actor."""


class Router:
    def __init__(self, tickets: Tickets, table: TopicTable, peers: Peers, members: Members) -> None:
        self._tickets = tickets
        self._table = table
        self._peers = peers
        self._members = members
        self._waiting_room = WaitingRoom()
        self._starting: dict[ActorStart, list[Attempt]] = {}
        """Requests whose actors the controller is starting."""
        self._stopping: ErrorBody | None = None
        """The refusal of requests that would wait while the gateway stops."""

    def route(self, attempt: Attempt, now: int) -> list[Effect]:
        """Raises ProtocolError for a request that is refused."""
        request: Any = attempt.event.request
        kind = attempt.route.to
        assert kind is not None, "others are answered in the gateway"
        if attempt.route.names_member and request.member_id is not None:
            self._members.note(attempt.event.sender.route[0], request.group, request.member_id)
        address = kind.address_of(request, self._table.topics)
        if isinstance(address, ProtocolError):
            return self._on_unknown(attempt, kind, address)
        if kind.is_fixed or self._peers.takes_calls(address):
            return [_call(attempt, address)]
        effects = self.wait(attempt, kind, address, now)
        if kind.has_groups:
            effects += self._start(_group_start(request, attempt.route.creates), attempt)
        return effects

    def cast_produce(self, event: Received, request: Produce, context: RequestContext) -> list[Effect]:
        """Forward a produce with acks = 0 if the partition is up or sleeps; otherwise it is lost, as the mode allows."""
        entry = self._table.get(request.topic)
        is_there = entry is not None and 0 <= request.partition < entry.partitions
        if not is_there or is_internal(request.topic):
            return []
        address = partition_address(request.topic, request.partition)
        if self._peers.next_of_sleeper(address) is not None:
            # A cast does not wake a sleeping actor, so it is called; the answer belongs to no ticket.
            awaited = replace(request, id=None, acks=1)
            return [
                Call(
                    Forwarded(NO_TICKET),
                    address,
                    awaited,
                    ProduceReply,
                    payload=event.payload,
                    context=context,
                )
            ]
        return [Cast(address, replace(request, id=None), event.payload, context)]

    # Waiting

    def ask(self, attempt: Attempt, refusal: ProtocolError) -> list[Effect]:
        """Let the controller decide about a request that the table refuses; once, then it is refused."""
        if attempt.has_asked:
            raise refusal
        return self._table.ask(attempt)

    def wait(self, attempt: Attempt, kind: ActorKind, address: Address, now: int) -> list[Effect]:
        """Park a request until its actor comes up. Raises ProtocolError if that cannot be expected."""
        if self._stopping is not None:
            raise ProtocolError.from_body(self._stopping)
        down = self._peers.down(address)
        is_coming = down is None or (kind.awaits_restart and not down.quarantined)
        if not is_coming or attempt.is_overdue(now):
            raise ProtocolError(kind.unavailable, self._peers.why_down(address))
        return self._waiting_room.park(address, attempt, kind.start_timeout_ms, now)

    def stop(self, refusal: ErrorBody) -> list[Effect]:
        """Refuse the requests that wait for an actor, and from now on those that would: this node starts none for
        them, and another node may take them at once."""
        self._stopping = refusal
        numbers, effects = self._waiting_room.empty()
        return effects + [each for number in numbers for each in self._tickets.answer(number, refusal)]

    def create(self, attempt: Attempt, topic: str) -> list[Effect]:
        """Have the actors of an internal topic created; the request is routed again with the new table."""
        return self._start(EnsureInternalActors(topic=topic), attempt)

    def on_started(self, key: ActorStart) -> list[Effect]:
        """Continue: a coordinator's PeerUp releases its requests; for internal actors the table is requested again."""
        attempts = self._starting.pop(key)
        if isinstance(key.request, EnsureGroup):
            return []
        return [effect for attempt in attempts for effect in self._table.ask(attempt)]

    def on_not_started(self, key: ActorStart, error: ErrorBody) -> list[Effect]:
        effects: list[Effect] = []
        for attempt in self._starting.pop(key):
            withdrawn = self._waiting_room.withdraw(attempt.number)
            # A request of a group that no longer waits was forwarded meanwhile, or is gone.
            if withdrawn or isinstance(key.request, EnsureInternalActors):
                effects += withdrawn + self._refuse(attempt, error)
        return effects

    def release(self, address: Address) -> tuple[list[Attempt], list[Effect]]:
        """Take out the requests that wait for an actor, to be routed again; and the effects that end their timers."""
        return self._waiting_room.release_all(address)

    def take_overdue(self, number: int) -> Attempt | None:
        """Take out the request whose timer has fired, to be routed a last time."""
        return self._waiting_room.release(number)

    def forget(self, number: int) -> list[Effect]:
        """Drop a request whose sender is gone."""
        return self._waiting_room.withdraw(number)

    def _on_unknown(self, attempt: Attempt, kind: ActorKind, refusal: ProtocolError) -> list[Effect]:
        if attempt.route.creates and kind.topic is not None:
            return self.create(attempt, kind.topic)
        if attempt.has_asked and attempt.route.if_none_exists is not None:
            return self._tickets.answer(attempt.number, attempt.route.if_none_exists())
        return self.ask(attempt, refusal)

    def _start(self, request: EnsureGroup | EnsureInternalActors, attempt: Attempt) -> list[Effect]:
        key = ActorStart(request)
        attempts = self._starting.setdefault(key, [])
        attempts.append(attempt)
        if len(attempts) > 1:
            return []
        return [Call(key, CONTROLLER, request, Done, timeout_ms=START_TIMEOUT_MS)]

    def _refuse(self, attempt: Attempt, error: ErrorBody) -> list[Effect]:
        empty = attempt.route.if_none_exists
        if error.code == ErrorCode.UNKNOWN_GROUP and empty is not None:
            return self._tickets.answer(attempt.number, empty())
        return self._tickets.answer(attempt.number, error)


def _group_start(request: Any, create: bool) -> EnsureGroup:
    """Return the request by which the controller starts the coordinator of this request's group."""
    dead_letter = request.dead_letter if isinstance(request, ConfigureShareGroup) else None
    return EnsureGroup(group=request.group, create=create, dead_letter=dead_letter or "")


def _call(attempt: Attempt, address: Address) -> Call:
    """Return the call that forwards a request. Header and payload are not decoded again, and neither is the answer:
    it has the requester's encoding and id. A route with a `reply_type` is encoded again instead.
    """
    route, event = attempt.route, attempt.event
    request: Any = event.request
    timeout_ms = route.timeout_ms + max_wait_ms_of(request, route)
    if route.reply_type is not None:
        anonymous = replace(request, id=None)
        return Call(Forwarded(attempt.number), address, anonymous, route.reply_type, timeout_ms=timeout_ms)
    return Call(
        Forwarded(attempt.number),
        address,
        event.raw,
        payload=event.payload,
        timeout_ms=timeout_ms,
        token=attempt.number if route.is_poll else None,
        context=attempt.context,
    )
