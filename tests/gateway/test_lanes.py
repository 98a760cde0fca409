"""Fair scheduling at an actor: no client's request waits behind all requests of another."""

import random
from collections import Counter

import pytest

from gateway_driver import GatewayDriver
from planaria.actors.gateway.lanes import CONNECTION_WEIGHT, LANE_WEIGHT, POLL_MS, WORK_MS
from planaria.transport.machine import Call, Connected, Disconnected
from planaria.transport.protocol.data import Fetch, Produce, Publish, PublishRecord
from planaria.transport.protocol.topics import CreateTopic

WORK = Produce(topic="ORDERS", partition=0)
PUBLISH = Publish(topic="ORDERS", partition=0, records=[PublishRecord(value=b"x")])


@pytest.fixture
def gateway() -> GatewayDriver:
    return GatewayDriver().start(ORDERS=2)


def sender(gateway: GatewayDriver, call: Call) -> bytes:
    ticket = gateway.machine._tickets.get(call.key.ticket)
    assert ticket is not None
    return ticket.sender.route[0]


@pytest.mark.parametrize("request_", [WORK, PUBLISH])
def test_a_flood_waits_here_and_not_at_the_actor(gateway: GatewayDriver, request_: Produce) -> None:
    for _ in range(500):
        gateway.ask(request_, client=b"flood")
    assert len(gateway.calls) == CONNECTION_WEIGHT
    gateway.ask(request_, client=b"victim")
    assert sender(gateway, gateway.calls[-1]) == b"victim"


def test_everything_is_answered_in_each_connections_order(gateway: GatewayDriver) -> None:
    chance = random.Random(3)
    asked = [gateway.ask(WORK, client=b"%d" % chance.randrange(3)) for _ in range(900)]
    order: dict[bytes, list[int]] = {}
    while gateway.calls:
        call = gateway.calls[0]
        order.setdefault(sender(gateway, call), []).append(call.key.ticket)
        gateway.answer(b"{}")
    assert set(gateway.replies) == set(asked)
    assert all(numbers == sorted(numbers) for numbers in order.values())


def test_hosts_take_turns_and_then_their_connections(gateway: GatewayDriver) -> None:
    clients = {b"a%d" % number: "a" for number in range(50)} | {b"b1": "b"}
    for client, host in clients.items():
        gateway.give(Connected(client, host))
        for _ in range(20):
            gateway.ask(WORK, client=client)
    del gateway.calls[LANE_WEIGHT:]
    for call in list(gateway.calls)[:20]:
        gateway.answer(b"{}", call=call)
    started = [sender(gateway, call) for call in gateway.calls[LANE_WEIGHT - 20 :]]
    assert Counter(clients[client] for client in started) == {"a": 10, "b": 10}
    assert max(Counter(client for client in started if clients[client] == "a").values()) == 1


def test_heavy_requests_count_for_more(gateway: GatewayDriver) -> None:
    for _ in range(20):
        gateway.ask(WORK, bytes(1024 * 1024))
    assert len(gateway.calls) == 3
    gateway.ask(WORK, bytes(60 * 1024 * 1024), client=b"other")
    assert len(gateway.calls) == 3, "the lane has enough at hand"
    while gateway.calls:
        gateway.answer(b"{}")
    assert len(gateway.replies) == 21, "one beyond all limits has its turn, too"


def test_one_lane_does_not_wait_for_another(gateway: GatewayDriver) -> None:
    for _ in range(500):
        gateway.ask(WORK)
    gateway.ask(Produce(topic="ORDERS", partition=1))
    assert gateway.calls[-1].address == "partition/ORDERS/1"


def test_polls_give_their_turn_back_while_they_wait(gateway: GatewayDriver) -> None:
    poll = Fetch(topic="ORDERS", partition=0, offset=0, max_bytes=1, max_wait_ms=60_000)
    for _ in range(200):
        gateway.ask(poll)
    assert len(gateway.calls) == CONNECTION_WEIGHT
    gateway.advance(POLL_MS)
    gateway.ask(WORK, client=b"victim")
    assert sender(gateway, gateway.calls[-1]) == b"victim"
    gateway.advance(POLL_MS * 4)
    assert len(gateway.calls) == 201


@pytest.mark.parametrize("request_", [WORK, CreateTopic(topic="NEW", partitions=1)])
def test_an_actor_that_answers_nothing_keeps_nobody_out(gateway: GatewayDriver, request_: Produce) -> None:
    for number in range(600):
        gateway.ask(request_, client=b"%d" % (number % 10))
    assert len(gateway.calls) == LANE_WEIGHT
    gateway.advance(3 * WORK_MS)
    assert len(gateway.calls) == 600


def test_when_the_actor_dies_all_that_waited_is_tried_and_refused(gateway: GatewayDriver) -> None:
    asked = [gateway.ask(WORK) for _ in range(200)]
    while gateway.calls:
        gateway.fail("ACTOR_UNAVAILABLE")
    assert {gateway.replies[number].code for number in asked} == {"ACTOR_UNAVAILABLE"}


@pytest.mark.parametrize("request_", [WORK, PUBLISH])
def test_what_waited_for_a_gone_connection_is_never_sent(gateway: GatewayDriver, request_: Produce) -> None:
    for _ in range(300):
        gateway.ask(request_, client=b"gone")
    sent = len(gateway.calls)
    gateway.give(Disconnected(b"gone"))
    gateway.calls = [call for call in gateway.calls if call.token is None]
    while gateway.calls:
        gateway.answer(b"{}") if request_ is WORK else gateway.fail()
    assert sent == CONNECTION_WEIGHT
    gateway.ask(WORK, client=b"victim")
    assert len(gateway.calls) == 1
    gateway.answer(b"{}")
    assert not gateway.machine._lanes._lanes
    assert not gateway.machine._lanes._waiting


def test_the_controller_is_asked_for_one_who_is_gone_meanwhile(gateway: GatewayDriver) -> None:
    gateway.down("controller")
    gateway.ask(CreateTopic(topic="NEW", partitions=1), client=b"gone")
    gateway.give(Disconnected(b"gone"))
    gateway.up("controller")
    gateway.answer(b"{}")
    assert not gateway.replies
    assert not gateway.machine._lanes._lanes


def test_a_light_request_does_not_overtake_a_heavy_one_of_its_own_connection(gateway: GatewayDriver) -> None:
    sizes = [3 * 1024 * 1024, 2 * 1024 * 1024, 1, 1]
    for size_bytes in sizes:
        gateway.ask(WORK, bytes(size_bytes))
    assert len(gateway.calls) == 1, "the light ones are behind the second"
    sent = []
    while gateway.calls:
        sent.append(gateway.calls[0].key.ticket)
        gateway.answer(b"{}")
    assert sent == sorted(sent)
