"""The connections of the TLS door: their limits, and their end with the gateway, the door, or their time."""

import random

from planaria.actors.door.effects import (
    Arrived,
    Begin,
    CheckCertificate,
    Drop,
    Effect,
    Ended,
    Join,
    Opened,
    Secured,
    Started,
    StopListening,
)
from planaria.actors.door.machine import (
    CHECK,
    CHECK_MS,
    HANDSHAKE_MS,
    MAX_HOST_PENDING,
    MAX_PENDING,
    Deadline,
    DoorMachine,
)
from planaria.transport.addresses import Address, Kind
from planaria.transport.machine import CancelTimer, SetTimer, Stop, StopRequested, TimerFired
from planaria.transport.protocol.control import PeerDown, PeerUp

GATEWAY = Address(Kind.GATEWAY, number=0)
NUMBER = bytes(8)


def door(max_connections: int = 1_000) -> DoorMachine:
    machine = DoorMachine(max_connections)
    assert machine.handle(Arrived(0, "a"), 0) == [Drop(0)], "there is no gateway yet"
    machine.handle(PeerUp(address=GATEWAY, incarnation=1, endpoint=None), 0)
    return machine


def dropped(effects: list[Effect]) -> list[int]:
    return [effect.guest for effect in effects if isinstance(effect, Drop)]


def opened(machine: DoorMachine, guest: int, host: str = "a", now: int = 0) -> None:
    assert Begin(guest) in machine.handle(Arrived(guest, host), now)
    (join,) = machine.handle(Secured(guest, "shop", 5, NUMBER), now)
    assert isinstance(join, Join)
    assert (join.gateway, join.voucher.host, join.voucher.principal) == (1, host, "shop")
    assert machine.handle(Opened(guest), now) == [CancelTimer(Deadline(guest))]


def test_a_connection_that_does_not_open_is_dropped_in_time_and_one_that_does_stays() -> None:
    machine = door()
    assert machine.handle(Arrived(1, "a"), 7) == [SetTimer(Deadline(1), 7 + HANDSHAKE_MS), Begin(1)]
    machine.handle(Secured(1, "", 0, NUMBER), 7)
    assert machine.handle(TimerFired(Deadline(1)), 7 + HANDSHAKE_MS) == [CancelTimer(Deadline(1)), Drop(1)]
    opened(machine, 2)
    assert machine.handle(Ended(2), 9) == []
    assert (machine.connections, machine.pending) == (0, 0)


def test_half_open_connections_make_room_for_new_ones_the_oldest_first() -> None:
    machine = door(max_connections=100_000)
    gone = []
    for guest in range(1, 2 * MAX_HOST_PENDING):
        gone += dropped(machine.handle(Arrived(guest, "flood"), guest * 10))
    assert gone == list(range(1, MAX_HOST_PENDING))
    for guest in range(10_000, 10_000 + 2 * MAX_PENDING):
        machine.handle(Arrived(guest, f"host-{guest}"), 0)
    assert machine.pending == MAX_PENDING
    opened(machine, 99_999, "late")


def test_one_host_has_half_of_the_connections_and_another_one_the_rest() -> None:
    machine = door(max_connections=10)
    for guest in range(1, 6):
        opened(machine, guest, "a", now=guest * 1_000)
    assert dropped(machine.handle(Arrived(6, "a"), 9_000)) == [6]
    for guest in range(7, 12):
        opened(machine, guest, "b", now=guest * 1_000)
    assert dropped(machine.handle(Arrived(12, "c"), 20_000)) == [12]
    machine.handle(Ended(1), 20_000)
    opened(machine, 13, "c", now=20_000)


def test_connections_end_with_their_gateway_and_none_begins_without_one() -> None:
    machine = door()
    opened(machine, 1)
    machine.handle(Arrived(2, "a"), 0)
    down = PeerDown(address=GATEWAY, incarnation=1, reason="killed")
    assert dropped(machine.handle(down, 0)) == [1]
    assert dropped(machine.handle(Secured(2, "", 0, NUMBER), 0)) == [2]
    assert dropped(machine.handle(Arrived(3, "a"), 0)) == [3]
    machine.handle(PeerUp(address=GATEWAY, incarnation=3, endpoint=None), 0)
    machine.handle(Arrived(4, "a"), 0)
    assert machine.handle(PeerDown(address=GATEWAY, incarnation=2, reason="late"), 0) == []
    (join,) = machine.handle(Secured(4, "", 0, NUMBER), 0)
    assert isinstance(join, Join)
    assert join.gateway == 3


def test_the_door_stops_with_its_connections() -> None:
    machine = door()
    opened(machine, 1)
    machine.handle(Arrived(2, "a"), 0)
    effects = machine.handle(StopRequested(0), 0)
    assert (effects[0], effects[-1]) == (StopListening(), Stop("asked to stop"))
    assert dropped(effects) == [1, 2]
    assert dropped(machine.handle(Arrived(3, "a"), 0)) == [3]


def test_in_any_order_of_events_the_counts_are_those_of_the_connections() -> None:
    chance = random.Random(7)
    machine = door(max_connections=40)
    states: dict[int, str] = {}
    for guest in range(1, 3_000):
        event = chance.random()
        live = list(states)
        if event < 0.5 or not live:
            effects = machine.handle(Arrived(guest, chance.choice("abc")), guest * 5)
            states[guest] = "pending"
        else:
            other = chance.choice(live)
            if event < 0.7 and states[other] == "pending":
                effects = machine.handle(Secured(other, "", 0, NUMBER), guest * 5)
                states[other] = "joined"
            elif event < 0.85 and states[other] == "joined":
                effects = machine.handle(Opened(other), guest * 5)
                states[other] = "open"
            elif event < 0.97:
                effects = machine.handle(Ended(other), guest * 5)
                del states[other]
            else:
                effects = machine.handle(PeerDown(address=GATEWAY, incarnation=1, reason=""), guest * 5)
                machine.handle(PeerUp(address=GATEWAY, incarnation=1, endpoint=None), guest * 5)
        for number in dropped(effects):
            del states[number]
        assert machine.connections == len(states) <= 40
        assert machine.pending == sum(state != "open" for state in states.values())


def test_the_files_of_the_certificate_are_looked_at_again_and_again() -> None:
    machine = DoorMachine(10)
    assert machine.handle(Started(), 5) == [SetTimer(CHECK, 5 + CHECK_MS)]
    again = [CheckCertificate(), SetTimer(CHECK, 2_000 + CHECK_MS)]
    assert machine.handle(TimerFired(CHECK), 2_000) == again
