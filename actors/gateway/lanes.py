"""Fair queueing of clients at each actor: the order in which requests reach an actor that is busy. Pure.

Owns one lane for each actor with client requests: the calls in progress, and the waiting ones.

    call                  sent at once while its connection and the lane have room; otherwise it waits behind those of its
                          own connection
    answered, failed,     releases its room; the next is taken in turn among hosts, then among the host's connections
      cancelled
    slow                  releases its room after WORK_MS; a poll, and a request to the controller, after POLL_MS:
                          then it is waiting, not working

A request counts for its `weight` (`weight_of`). One that exceeds the limit is sent when its connection has no other.
So a newcomer's request is behind at most LANE_WEIGHT of others, whatever the queue's length. The tickets bound the
waiting calls.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from ...transport.addresses import CONTROLLER, Address
from ...transport.machine import Call, Effect, Failed, SetTimer
from ...transport.protocol.data import Fetch
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.message import Request
from .keys import ClientCall, Forwarded, LaneTimer
from .tickets import Tickets

CONNECTION_WEIGHT = 64
"""The limit of one connection at one actor."""
LANE_WEIGHT = 256
"""The limit of all connections at one actor."""
BYTES_PER_WEIGHT = 64 * 1024
MAX_FETCH_WEIGHT_BYTES = 1024 * 1024
POLL_MS = 50
WORK_MS = 1_000


class _Turn(Struct):
    """A call in progress, or waiting for its turn."""

    call: Call
    connection: bytes
    host: str
    weight: int
    hold_ms: int
    since: int
    """The time of sending; until then the time of arrival."""


class _Lane:
    __slots__ = ("active", "has_timer", "of_connection", "waiting", "weight")

    def __init__(self) -> None:
        self.active: dict[Any, _Turn] = {}
        self.weight = 0
        self.of_connection: dict[bytes, int] = {}
        self.waiting: OrderedDict[str, OrderedDict[bytes, OrderedDict[Any, _Turn]]] = OrderedDict()
        self.has_timer = False

    def has_room(self, turn: _Turn) -> bool:
        held = self.of_connection.get(turn.connection, 0)
        if held and held + turn.weight > CONNECTION_WEIGHT:
            return False
        return not self.weight or self.weight + turn.weight <= LANE_WEIGHT

    def start(self, turn: _Turn, now: int) -> Call:
        turn.since = now
        self.active[turn.call.key] = turn
        self.weight += turn.weight
        self.of_connection[turn.connection] = self.of_connection.get(turn.connection, 0) + turn.weight
        return turn.call

    def end(self, key: Any) -> bool:
        turn = self.active.pop(key, None)
        if turn is None:
            return False
        self.weight -= turn.weight
        left = self.of_connection[turn.connection] - turn.weight
        if left:
            self.of_connection[turn.connection] = left
        else:
            del self.of_connection[turn.connection]
        return True

    def wait(self, turn: _Turn) -> None:
        connections = self.waiting.setdefault(turn.host, OrderedDict())
        connections.setdefault(turn.connection, OrderedDict())[turn.call.key] = turn

    def is_behind(self, turn: _Turn) -> bool:
        """Return True if calls of its connection are already waiting."""
        return bool(self.waiting) and turn.connection in self.waiting.get(turn.host, ())

    def take_next(self) -> _Turn | None:
        """Take the next call that has room: hosts in turn, connections of the host in turn, each in its own order."""
        for host, connections in self.waiting.items():
            for connection, turns in connections.items():
                turn = next(iter(turns.values()))
                if self.has_room(turn):
                    self._remove(host, connection, turn.call.key)
                    if host in self.waiting:
                        self.waiting.move_to_end(host)
                    if connection in connections:
                        connections.move_to_end(connection)
                    return turn
        return None

    def withdraw(self, host: str, connection: bytes, key: Any) -> None:
        """Take out a waiting call."""
        self._remove(host, connection, key)

    def _remove(self, host: str, connection: bytes, key: Any) -> None:
        connections = self.waiting[host]
        del connections[connection][key]
        if not connections[connection]:
            del connections[connection]
        if not connections:
            del self.waiting[host]


class Lanes:
    def __init__(self, tickets: Tickets, hosts: Mapping[bytes, str]) -> None:
        self._tickets = tickets
        self._hosts = hosts
        self._lanes: dict[Address, _Lane] = {}
        self._addresses: dict[Any, Address] = {}
        """Addresses by key of a call, from its arrival until it has ended."""
        self._waiting: dict[int, dict[Any, _Turn]] = {}
        """Waiting calls by ticket."""

    def admit(self, effects: list[Effect], now: int) -> list[Effect]:
        """Return the effects without the calls that have to wait."""
        admitted = effects
        for index, effect in enumerate(effects):
            is_calls = type(effect) is Call and isinstance(effect.key, ClientCall)
            if is_calls and effect.key not in self._addresses:
                admitted = effects[:index] if admitted is effects else admitted
                admitted += self._admit(effect, now)
            elif admitted is not effects:
                admitted.append(effect)
        return admitted

    def _admit(self, call: Call, now: int) -> list[Effect]:
        ticket = self._tickets.get(call.key.ticket)
        if ticket is None:
            return [call]  # it was kept for the controller; its requester is gone, and so is its place here
        connection = ticket.sender.route[0]
        may_be_slow = ticket.is_poll or call.address == CONTROLLER
        turn = _Turn(
            call,
            connection,
            self._hosts.get(connection, ""),
            ticket.weight,
            POLL_MS if may_be_slow else WORK_MS,
            now,
        )
        lane = self._lanes.get(call.address)
        if lane is None:
            lane = self._lanes[call.address] = _Lane()
        self._addresses[call.key] = call.address
        if lane.has_room(turn) and not lane.is_behind(turn):
            return [lane.start(turn, now)]
        lane.wait(turn)
        self._waiting.setdefault(call.key.ticket, {})[call.key] = turn
        return self._set_timer(call.address, lane, now)

    def is_waiting(self, number: int) -> bool:
        """Return True if the forwarded request has not been sent yet."""
        return Forwarded(number) in self._waiting.get(number, ())

    def on_ended(self, key: Any, now: int) -> list[Effect]:
        """Record the outcome of a call, and return the calls that may now be sent."""
        address = self._addresses.pop(key, None) if isinstance(key, ClientCall) else None
        lane = self._lanes.get(address) if address is not None else None
        if address is None or lane is None:
            return []
        lane.end(key)
        return self._advance(address, lane, now)

    def withdraw(self, numbers: Sequence[int], now: int) -> tuple[list[Effect], list[Failed]]:
        """Withdraw cancelled requests: return the calls that may now be sent, and failures of those that never were."""
        failed: list[Failed] = []
        # Waiting calls first: otherwise they would take the room of the calls in flight.
        for number in numbers:
            for key, turn in self._waiting.pop(number, {}).items():
                self._lanes[self._addresses.pop(key)].withdraw(turn.host, turn.connection, key)
                failed.append(Failed(key, ErrorBody(ErrorCode.TIMED_OUT, "the requester is gone", True)))
        following = [effect for number in numbers for effect in self.on_ended(Forwarded(number), now)]
        return following, failed

    def on_timer(self, address: Address, now: int) -> list[Effect]:
        lane = self._lanes.get(address)
        if lane is None:
            return []
        lane.has_timer = False
        for key in [key for key, turn in lane.active.items() if now - turn.since >= turn.hold_ms]:
            lane.end(key)
        return self._advance(address, lane, now)

    def _advance(self, address: Address, lane: _Lane, now: int) -> list[Effect]:
        effects: list[Effect] = []
        while lane.waiting and (turn := lane.take_next()) is not None:
            number = turn.call.key.ticket
            waiting = self._waiting[number]
            del waiting[turn.call.key]
            if not waiting:
                del self._waiting[number]
            effects.append(lane.start(turn, now))
        if not lane.active and not lane.waiting:
            del self._lanes[address]
        return effects + self._set_timer(address, lane, now)

    def _set_timer(self, address: Address, lane: _Lane, now: int) -> list[Effect]:
        if lane.has_timer or not lane.waiting:
            return []
        lane.has_timer = True
        due = min((turn.since + turn.hold_ms for turn in lane.active.values()), default=now)
        return [SetTimer(LaneTimer(address), max(due, now + 1))]


def weight_of(request: Request, small_weight: int, size_bytes: int) -> int:
    """Return `small_weight` for a small request; more for many bytes, sent or requested."""
    if type(request) is Fetch:
        size_bytes += min(request.max_bytes, MAX_FETCH_WEIGHT_BYTES)
    return small_weight + size_bytes // BYTES_PER_WEIGHT
