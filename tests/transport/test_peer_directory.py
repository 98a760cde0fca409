"""Actors outside the directory: they are watched from the first call on, and it waits for their state."""

import pytest

from planaria.transport.calls.connections import Owner
from planaria.transport.calls.events import Connect, Deliver, Send
from planaria.transport.calls.exchange import Exchange
from planaria.transport.calls.peers import SUPERVISOR_ROUTE, PeerDirectory
from planaria.transport.calls.retry import RetryPolicy
from planaria.transport.machine import Call, Effect, Event, Failed
from planaria.transport.protocol.control import PeerDown, PeersAsleep, PeerUp, Wake, Watch
from planaria.transport.protocol.data import InitProducer, InitProducerReply

PEER = "partition/T/0"


class Machine:
    def handle(self, event: Event, now: int) -> list[Effect]:
        raise AssertionError(event)


OWNER: Owner = Machine()


@pytest.fixture
def exchange() -> Exchange:
    directory = PeerDirectory("coordinator/g", 3, ("controller",))
    return Exchange(directory, retry=RetryPolicy(), jitter=lambda: 0.0)


def submit(exchange: Exchange, key: str, address: str = PEER) -> list[Effect]:
    return exchange.submit(OWNER, Call(key, address, InitProducer(), InitProducerReply), 0)


def to_supervisor(effects: list[Effect]) -> list[object]:
    return [each.request for each in effects if isinstance(each, Send) and each.route == SUPERVISOR_ROUTE]


def failures(effects: list[Effect]) -> list[str]:
    return [each.event.key for each in effects if isinstance(each, Deliver) and type(each.event) is Failed]


def test_a_peer_is_watched_once_and_calls_wait_for_its_state(exchange: Exchange) -> None:
    effects = submit(exchange, "a")
    assert to_supervisor(effects) == [Watch(address="coordinator/g", incarnation=3, peer=PEER)]
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
    [PeersAsleep(addresses=[PEER]), PeerDown(address=PEER, incarnation=2, reason="idle", asleep=True)],
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
