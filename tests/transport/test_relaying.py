"""Calls to an actor of another node go through this node's link, and fail one peer at a time."""

import pytest

from planaria.transport.addresses import Address
from planaria.transport.calls.connections import Owner
from planaria.transport.calls.events import Arrived, Connect, Deliver, Disconnect, Send
from planaria.transport.calls.exchange import Exchange
from planaria.transport.calls.peers import PeerDirectory
from planaria.transport.calls.retry import RetryPolicy
from planaria.transport.codec import encode_header
from planaria.transport.machine import Answered, Call, Cast, Effect, Event, Failed
from planaria.transport.protocol.control import PeerDown, PeerUp
from planaria.transport.protocol.data import InitProducer, InitProducerReply
from planaria.transport.protocol.links import AdmitCatchUp, Relay
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.session import Cancel
from planaria.transport.request_context import RequestContext

LEADER = Address.parse("partition/T/0")
LINK_ENDPOINT = "tcp://127.0.0.1:5571"
CONTEXT = RequestContext(principal="ann")


class Machine:
    def handle(self, event: Event, now: int) -> list[Effect]:
        raise AssertionError(event)


OWNER: Owner = Machine()


@pytest.fixture
def exchange() -> Exchange:
    return Exchange(PeerDirectory(Address.parse("gateway/0"), 1), retry=RetryPolicy(), jitter=lambda: 0.0)


def remote(number: int, node: str = "b", incarnation: int = 1) -> PeerUp:
    return PeerUp(
        address=Address.parse(f"partition/T/{number}"),
        incarnation=incarnation,
        endpoint=LINK_ENDPOINT,
        node=node,
        target=Address.parse(f"replica/T/{number}"),
    )


def call(exchange: Exchange, number: int) -> list[Effect]:
    request = InitProducer()
    made = Call(
        number,
        Address.parse(f"partition/T/{number}"),
        request,
        InitProducerReply,
        (b"batch",),
        7_000,
        context=CONTEXT,
    )
    return exchange.submit(OWNER, made, 0)


def outcomes(effects: list[Effect]) -> list[Event]:
    return [effect.event for effect in effects if isinstance(effect, Deliver)]


def test_a_request_is_wrapped_with_its_header_and_payload(exchange: Exchange) -> None:
    exchange.handle(remote(0), 0)
    connect, send = call(exchange, 0)
    assert isinstance(connect, Connect)
    assert connect.endpoint == LINK_ENDPOINT
    assert isinstance(send, Send)
    assert send.request == Relay(node="b", address=Address.parse("replica/T/0"), timeout_ms=7_000)
    assert list(send.payload) == [encode_header(InitProducer()), b"batch"]
    assert send.context == CONTEXT
    reply = Arrived(
        send.route,
        (send.attempt.to_bytes(8, "big"),),
        encode_header(InitProducerReply(producer_id=5, producer_epoch=0)),
    )
    [answered] = outcomes(exchange.handle(reply, 0))
    assert isinstance(answered, Answered)
    assert answered.reply.producer_id == 5


def test_a_cast_is_wrapped_as_one(exchange: Exchange) -> None:
    exchange.handle(remote(0), 0)
    sends = [each for each in exchange.cast(Cast(LEADER, Cancel()), 0) if isinstance(each, Send)]
    assert [send.request for send in sends] == [
        Relay(node="b", address=Address.parse("replica/T/0"), is_cast=True)
    ]


def test_requests_to_the_link_itself_are_not_wrapped(exchange: Exchange) -> None:
    exchange.handle(remote(0), 0)
    call(exchange, 0)
    link = Address.parse("link/a")
    exchange.handle(PeerUp(address=link, incarnation=1, endpoint=LINK_ENDPOINT), 0)
    [send] = exchange.submit(OWNER, Call("admitted", link, AdmitCatchUp(size_bytes=1), Done), 0)
    [cast] = exchange.cast(Cast(link, Cancel()), 0)
    assert isinstance(send, Send)
    assert isinstance(cast, Send)
    assert (send.request, cast.request) == (AdmitCatchUp(size_bytes=1), Cancel())


def test_all_peers_behind_the_link_share_one_connection(exchange: Exchange) -> None:
    exchange.handle(remote(0), 0)
    exchange.handle(remote(1, node="c"), 0)
    effects = call(exchange, 0) + call(exchange, 1)
    assert [type(effect) for effect in effects] == [Connect, Send, Send]
    assert [effect.request.node for effect in effects if isinstance(effect, Send)] == ["b", "c"]


def test_one_peer_that_is_down_fails_its_own_calls_alone(exchange: Exchange) -> None:
    exchange.handle(remote(0), 0)
    exchange.handle(remote(1), 0)
    call(exchange, 0)
    _, send = [None, *call(exchange, 1)]
    effects = exchange.handle(PeerDown(address=LEADER, incarnation=1, reason="moved"), 0)
    assert not [effect for effect in effects if isinstance(effect, Disconnect)]
    [failed] = outcomes(effects)
    assert isinstance(failed, Failed)
    assert failed.key == 0
    assert isinstance(send, Send)
    reply = Arrived(
        send.route,
        (send.attempt.to_bytes(8, "big"),),
        encode_header(InitProducerReply(producer_id=5, producer_epoch=0)),
    )
    assert len(outcomes(exchange.handle(reply, 0))) == 1


def test_a_leader_that_moves_to_another_node_is_reached_there(exchange: Exchange) -> None:
    exchange.handle(remote(0), 0)
    call(exchange, 0)
    exchange.handle(PeerDown(address=LEADER, incarnation=1, reason="moved"), 0)
    exchange.handle(remote(0, node="c", incarnation=2), 0)
    connect, send = call(exchange, 0)
    assert isinstance(connect, Connect)
    assert isinstance(send, Send)
    assert isinstance(send.request, Relay)
    assert send.request.node == "c"


def test_a_leader_that_moves_to_this_node_is_reached_directly(exchange: Exchange) -> None:
    exchange.handle(remote(0), 0)
    call(exchange, 0)
    exchange.handle(PeerDown(address=LEADER, incarnation=1, reason="moved"), 0)
    here = PeerUp(
        address=LEADER,
        incarnation=2,
        endpoint="ipc://r0",
        target=Address.parse("replica/T/0"),
    )
    exchange.handle(here, 0)
    connect, send = call(exchange, 0)
    assert isinstance(connect, Connect)
    assert isinstance(send, Send)
    assert send.request == InitProducer()


def test_a_link_knows_no_actors_of_other_nodes() -> None:
    """Two links with different views must not pass a request back and forth."""
    exchange = Exchange(PeerDirectory(Address.parse("link/a"), 1), retry=RetryPolicy(), jitter=lambda: 0.0)
    exchange.handle(remote(0), 0)
    [failed] = outcomes(call(exchange, 0))
    assert isinstance(failed, Failed)
    assert failed.error.retriable


def disconnected(effects: list[Effect]) -> list[str]:
    return [effect.endpoint for effect in effects if isinstance(effect, Disconnect)]


def test_a_connection_ends_with_the_last_address_behind_it(exchange: Exchange) -> None:
    """This actor hears of two addresses that are located at the link, and never of the link itself."""
    for number in (0, 1):
        exchange.handle(remote(number), 0)
        call(exchange, number)
    down = PeerDown(address=LEADER, incarnation=1, reason="its node has failed")
    effects = exchange.handle(down, 0)
    assert (outcomes_of(effects), disconnected(effects)) == ([0], [])
    moved = PeerUp(address=Address.parse("partition/T/1"), incarnation=2, endpoint="ipc://replica-T-1")
    effects = exchange.handle(moved, 0)
    assert (outcomes_of(effects), disconnected(effects)) == ([1], [LINK_ENDPOINT])
    assert [type(effect) for effect in call(exchange, 1)] == [Connect, Send]


def test_a_connection_stays_while_an_address_moves_to_another_node_behind_it(exchange: Exchange) -> None:
    exchange.handle(remote(0), 0)
    call(exchange, 0)
    effects = exchange.handle(remote(0, node="c", incarnation=2), 0)
    assert (outcomes_of(effects), disconnected(effects)) == ([0], [])
    assert [type(effect) for effect in call(exchange, 0)] == [Send]


def outcomes_of(effects: list[Effect]) -> list[int]:
    return [event.key for event in outcomes(effects)]
