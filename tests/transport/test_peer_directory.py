"""Actors outside the directory: they are watched from the first call on, and it waits for their state."""

import pytest

from planaria.transport.addresses import Address
from planaria.transport.calls.connections import Owner
from planaria.transport.calls.events import Arrived, Connect, Deliver, Send
from planaria.transport.calls.exchange import Exchange
from planaria.transport.calls.peers import SUPERVISOR_ROUTE, PeerDirectory
from planaria.transport.calls.retry import RetryPolicy
from planaria.transport.codec import encode_header
from planaria.transport.machine import Call, Effect, Event, Failed
from planaria.transport.protocol.control import PeerDown, PeersAsleep, PeerUp, Wake, Watch
from planaria.transport.protocol.data import InitProducer, InitProducerReply
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from planaria.transport.protocol.message import ErrorReply, Reply
from planaria.transport.protocol.session import Cancel

PEER = Address.parse("partition/T/0")


class Machine:
    def handle(self, event: Event, now: int) -> list[Effect]:
        raise AssertionError(event)


OWNER: Owner = Machine()


@pytest.fixture
def exchange() -> Exchange:
    directory = PeerDirectory(Address.parse("coordinator/g"), 3, ("controller",))
    return Exchange(directory, retry=RetryPolicy(), jitter=lambda: 0.0)


def submit(exchange: Exchange, key: str, address: str = PEER) -> list[Effect]:
    return exchange.submit(OWNER, Call(key, Address.parse(address), InitProducer(), InitProducerReply), 0)


def submit_endless(exchange: Exchange, address: str = PEER) -> list[Effect]:
    call = Call("endless", address, InitProducer(), InitProducerReply, timeout_ms=5_000, is_endless=True)
    return exchange.submit(OWNER, call, 0)


def attempts(effects: list[Effect]) -> list[int]:
    return [each.attempt for each in effects if isinstance(each, Send) and each.route != SUPERVISOR_ROUTE]


def up(incarnation: int) -> PeerUp:
    return PeerUp(address=PEER, incarnation=incarnation, endpoint=f"ipc://p{incarnation}")


def replied(sent: Effect, attempt: int, reply: Reply | ErrorCode) -> Arrived:
    if isinstance(reply, ErrorCode):
        reply = ErrorReply(error=ProtocolError(reply, "no").body)
    return Arrived(sent.route, (attempt.to_bytes(8, "big"),), encode_header(reply))


def to_supervisor(effects: list[Effect]) -> list[object]:
    return [each.request for each in effects if isinstance(each, Send) and each.route == SUPERVISOR_ROUTE]


def failures(effects: list[Effect]) -> list[str]:
    return [each.event.key for each in effects if isinstance(each, Deliver) and type(each.event) is Failed]


def test_a_peer_is_watched_once_and_calls_wait_for_its_state(exchange: Exchange) -> None:
    effects = submit(exchange, "a")
    assert to_supervisor(effects) == [Watch(address=Address.parse("coordinator/g"), incarnation=3, peer=PEER)]
    assert submit(exchange, "b") == []
    connect, *sends = exchange.handle(PeerUp(address=PEER, incarnation=4, endpoint="ipc://p"), 0)
    assert isinstance(connect, Connect)
    assert [type(send) for send in sends] == [Send, Send]
    # Its changes are reported from now on.
    assert failures(exchange.handle(PeerDown(address=PEER, incarnation=4, reason="killed"), 0)) == ["a", "b"]
    assert failures(submit(exchange, "c")) == ["c"]


def test_a_peer_that_is_down_fails_the_waiting_calls(exchange: Exchange) -> None:
    submit(exchange, "a")
    down = PeerDown(address=PEER, incarnation=0, reason="there is no such actor")
    [delivered] = exchange.handle(down, 0)
    assert isinstance(delivered, Deliver)
    assert "there is no such actor" in delivered.event.error.message
    assert failures(submit(exchange, "b")) == ["b"]


@pytest.mark.parametrize(
    "state",
    [
        PeersAsleep(addresses=[PEER]),
        PeerDown(address=PEER, incarnation=2, reason="idle", asleep=True),
    ],
)
def test_a_peer_that_sleeps_is_woken_by_the_waiting_call(exchange: Exchange, state: Event) -> None:
    submit(exchange, "a")
    assert to_supervisor(exchange.handle(state, 0)) == [Wake(address=PEER)]
    assert len(exchange.handle(PeerUp(address=PEER, incarnation=3, endpoint="ipc://p"), 0)) == 2


def test_a_peer_without_an_endpoint_fails_the_waiting_calls(exchange: Exchange) -> None:
    submit(exchange, "a")
    assert failures(exchange.handle(PeerUp(address=PEER, incarnation=1, endpoint=None), 0)) == ["a"]


def test_a_peer_of_the_directory_is_not_watched(exchange: Exchange) -> None:
    effects = submit(exchange, "a", "controller")
    assert to_supervisor(effects) == []
    assert failures(effects) == ["a"]


@pytest.mark.parametrize(
    "down",
    [
        PeerDown(address=PEER, incarnation=0, reason="there is no such actor"),
        PeerDown(address=PEER, incarnation=0, reason="it failed too often", quarantined=True),
    ],
)
def test_an_endless_call_waits_for_a_peer_that_is_down_and_leaves_as_soon_as_it_is_up(
    exchange: Exchange, down: PeerDown
) -> None:
    submit_endless(exchange)
    assert exchange.handle(down, 0) == []
    assert exchange.handle(down, 0) == []
    assert exchange.expire(60_000) == []
    assert attempts(exchange.handle(up(1), 60_000)) == [1]


def test_an_endless_call_survives_the_death_of_its_receiver(exchange: Exchange) -> None:
    submit_endless(exchange)
    exchange.handle(up(1), 0)
    effects = exchange.handle(PeerDown(address=PEER, incarnation=1, reason="killed"), 0)
    assert (failures(effects), attempts(effects)) == ([], [])
    assert attempts(exchange.handle(up(2), 0)) == [2]


def test_an_endless_call_wakes_a_peer_that_fell_asleep_while_it_was_down(exchange: Exchange) -> None:
    submit_endless(exchange)
    exchange.handle(PeerDown(address=PEER, incarnation=0, reason="down"), 0)
    asleep = PeerDown(address=PEER, incarnation=0, reason="idle", asleep=True)
    assert to_supervisor(exchange.handle(asleep, 0)) == [Wake(address=PEER)]
    assert exchange.handle(asleep, 0) == []


def test_an_endless_call_without_a_reply_is_attempted_again(exchange: Exchange) -> None:
    submit_endless(exchange)
    [_, first] = exchange.handle(up(1), 0)
    assert exchange.expire(4_999) == []
    cancelled, again = exchange.expire(5_000)
    assert isinstance(cancelled, Send)
    assert isinstance(cancelled.request, Cancel)
    assert attempts([again]) == [2]
    reply = InitProducerReply(producer_id=7, producer_epoch=0)
    assert exchange.handle(replied(first, 1, reply), 5_001) == []
    [delivered] = exchange.handle(replied(first, 2, reply), 5_001)
    assert isinstance(delivered, Deliver)
    assert delivered.event.key == "endless"
    assert len(exchange) == 0
    assert exchange.expire(99_999) == []


@pytest.mark.parametrize("code", [ErrorCode.BACKPRESSURE, ErrorCode.OVERLOADED, ErrorCode.SHUTTING_DOWN])
def test_an_endless_call_is_attempted_again_after_a_retriable_refusal(
    exchange: Exchange, code: ErrorCode
) -> None:
    submit_endless(exchange)
    [_, first] = exchange.handle(up(1), 0)
    assert exchange.handle(replied(first, 1, code), 0) == []
    assert attempts(exchange.expire(RetryPolicy().delay_ms(1, lambda: 0.0))) == [2]


def test_an_endless_call_fails_by_a_refusal_for_good(exchange: Exchange) -> None:
    submit_endless(exchange)
    [_, first] = exchange.handle(up(1), 0)
    assert failures(exchange.handle(replied(first, 1, ErrorCode.INVALID_REQUEST), 0)) == ["endless"]
