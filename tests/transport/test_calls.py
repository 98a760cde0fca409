"""The calls of an actor: their bounds, and that each call ends once. Their use by a loop is in test_loop.py."""

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from msgspec import structs

from patience import TIMEOUT_MS
from planaria.transport import sockets
from planaria.transport.addresses import Address
from planaria.transport.calls.exchange import Exchange
from planaria.transport.calls.peers import SUPERVISOR_ROUTE, PeerDirectory
from planaria.transport.calls.performer import Performer
from planaria.transport.calls.retry import RetryPolicy
from planaria.transport.codec import encode_header
from planaria.transport.endpoints import control_endpoint, endpoint_for
from planaria.transport.machine import Answered, Call, CancelCall, Cast, Effect, Event, Failed
from planaria.transport.protocol.control import PeerDown, PeersAsleep, PeerUp
from planaria.transport.protocol.data import InitProducer, InitProducerReply
from planaria.transport.protocol.errors import ErrorCode
from planaria.transport.request_context import ContextFrames, RequestContext
from planaria.transport.untaken import MAX_UNTAKEN_BYTES_PER_CONNECTION

GROUP = Address.parse("coordinator/g")
MAX_IN_FLIGHT = 20
CONTEXTS = ContextFrames(b"secret")


def received(peer: "zmq.Socket[bytes]") -> list[bytes]:
    """Receive a message as an actor does: without its context."""
    frames = peer.recv_multipart()
    assert CONTEXTS.take(frames) is not None
    return frames


class Owner:
    """The machine that makes the calls. Outcomes are taken on their way to it."""

    def handle(self, event: Event, now: int) -> list[Effect]:
        raise AssertionError(event)


OWNER = Owner()


class Table:
    """The calls of an actor, and a peer of it."""

    def __init__(self, run_directory: str, exits: ExitStack) -> None:
        self._run_directory = run_directory
        self._zmq = exits.enter_context(zmq.Context())
        self._exits = exits
        self._supervisor = exits.enter_context(self._zmq.socket(zmq.ROUTER))
        self._supervisor.bind(control_endpoint(run_directory))
        link = exits.enter_context(
            sockets.control_link(self._zmq, control_endpoint(run_directory), "gateway/0", 1)
        )
        exchange = Exchange(
            PeerDirectory(), retry=RetryPolicy(), jitter=lambda: 0.0, max_in_flight=MAX_IN_FLIGHT
        )
        self.calls = Performer(
            exchange,
            sockets.calls_socket(self._zmq),
            lambda _, outcome: self.outcomes.append(outcome),
            lambda effect: pytest.fail(f"not performed: {effect}"),
            {SUPERVISOR_ROUTE: link},
            CONTEXTS,
        )
        self.outcomes: list[Any] = []
        exits.callback(self.calls.close)

    def call(self, call: Call, now: int = 0) -> list[Any]:
        """Make a call, and return the outcomes so far."""
        self.calls.submit(OWNER, call, now)
        return self.take()

    def cast(self, cast: Cast) -> None:
        self.calls.cast(cast, 0)

    def handle(self, event: object, now: int = 0) -> list[Any]:
        self.calls.handle(event, now)
        return self.take()

    def expire(self, now: int) -> list[Any]:
        self.calls.expire(now)
        return self.take()

    def take(self) -> list[Any]:
        outcomes, self.outcomes[:] = list(self.outcomes), []
        return outcomes

    def woken(self, count: int = 0) -> list[str]:
        """Return the actors that the supervisor was asked to wake since the last look, at least `count`."""
        found: list[str] = []
        while self._supervisor.poll(TIMEOUT_MS if len(found) < count else 100):
            found.append(msgspec.msgpack.decode(self._supervisor.recv_multipart()[-1])["address"])
        return found

    def peer(self, address: str, incarnation: int, binds: bool = True) -> "zmq.Socket[bytes]":
        endpoint = endpoint_for(self._run_directory, address, incarnation)
        peer = self._exits.enter_context(self._zmq.socket(zmq.ROUTER))
        peer.linger = 0
        if binds:
            peer.bind(endpoint)
        self.handle(PeerUp(address=Address.parse(address), incarnation=incarnation, endpoint=endpoint))
        return peer


@pytest.fixture
def table(run_dir: Path) -> Iterator[Table]:
    with ExitStack() as exits:
        yield Table(str(run_dir), exits)


def call(key: object, address: str = "controller", timeout_ms: int = 1_000) -> Call:
    return Call(key, Address.parse(address), InitProducer(), InitProducerReply, timeout_ms=timeout_ms)


def test_casts_to_one_who_does_not_read_are_lost_before_they_pile_up(table: Table) -> None:
    peer = table.peer("partition/T/0", 1)
    peer.rcvhwm = 1
    size = 1024 * 1024
    sent = 5 * MAX_UNTAKEN_BYTES_PER_CONNECTION // size
    for _ in range(sent):
        table.cast(Cast(Address.parse("partition/T/0"), InitProducer(), [bytes(size)]))
    received = 0
    while peer.poll(500):
        assert len(peer.recv_multipart()[-1]) == size
        received += 1
    # Frames taken by the peer's own end do not count any more.
    assert 0 < received < sent
    table.cast(Cast(Address.parse("partition/T/0"), InitProducer(), [bytes(size)]))
    assert peer.poll(TIMEOUT_MS), "what was taken makes room"


def code_of(outcomes: list[Any]) -> str:
    (failed,) = outcomes
    assert isinstance(failed, Failed)
    return failed.error.code


def answer(peer: "zmq.Socket[bytes]", header: bytes = b'{"producer_id":1,"producer_epoch":0}') -> None:
    assert peer.poll(TIMEOUT_MS)
    peer.send_multipart([*received(peer)[:-1], header])


def outcome(table: Table) -> Answered | Failed | None:
    """Process the next reply, and return its outcome, None if no call waits for it."""
    assert table.calls.socket.poll(TIMEOUT_MS)
    route, *frames = table.calls.socket.recv_multipart()
    table.calls.arrive(route, frames, 0)
    found = table.take()
    return found[0] if found else None


@pytest.mark.parametrize("is_cast", [False, True])
def test_the_context_of_a_request_precedes_its_header(table: Table, is_cast: bool) -> None:
    peer = table.peer("controller", 1)
    context = RequestContext(client_id="billing", is_admitted=True)
    if is_cast:
        table.cast(Cast(Address.parse("controller"), InitProducer(), context=context))
    else:
        table.call(structs.replace(call("a"), context=context))
    assert peer.poll(TIMEOUT_MS)
    frames = peer.recv_multipart()
    assert CONTEXTS.take(frames) == context
    assert frames[-1] == encode_header(InitProducer())


def test_a_peer_is_connected_to_by_the_first_call_and_not_before(table: Table, run_dir: Path) -> None:
    endpoint = endpoint_for(str(run_dir), "partition/T/0", 1)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(endpoint.removeprefix("ipc://"))
        door.listen()
        door.settimeout(TIMEOUT_MS / 1000)
        table.handle(PeerUp(address=Address.parse("partition/T/0"), incarnation=1, endpoint=endpoint))
        controller = table.peer("controller", 1)
        table.call(call("other"), now=0)
        answer(controller)
        assert isinstance(outcome(table), Answered)
        assert not select.select([door], [], [], 0)[0]
        assert table.call(call("key", "partition/T/0"), now=0) == []
        door.accept()[0].close()


def test_a_peer_that_was_never_called_may_go_and_come_back(table: Table) -> None:
    table.peer("controller", 1)
    assert table.handle(PeerDown(address=Address.parse("controller"), incarnation=1, reason="")) == []
    peer = table.peer("controller", 2)
    assert table.call(call("key"), now=0) == []
    answer(peer)
    assert isinstance(outcome(table), Answered)


def test_an_answer_is_given_to_its_own_call_whatever_the_order(table: Table) -> None:
    peers = [table.peer(f"partition/T/{n}", 1) for n in range(3)]
    for n in range(3):
        assert table.call(call(n, f"partition/T/{n}"), now=0) == []
    for n in (2, 0, 1):
        answer(peers[n], b'{"producer_id":%d,"producer_epoch":0}' % n)
        found = outcome(table)
        assert isinstance(found, Answered)
        assert (found.key, found.reply.producer_id) == (n, n)
    assert table.calls.next_at() is None


def test_a_second_answer_is_nobodys(table: Table) -> None:
    peer = table.peer("controller", 1)
    table.call(call("key"), now=0)
    assert peer.poll(TIMEOUT_MS)
    envelope = received(peer)[:-1]
    for _ in range(2):
        peer.send_multipart([*envelope, b'{"producer_id":1,"producer_epoch":0}'])
    assert isinstance(outcome(table), Answered)
    assert outcome(table) is None


def test_calls_expire_at_their_deadline_in_order(table: Table) -> None:
    table.peer("controller", 1)
    for timeout_ms in (30, 10, 20):
        table.call(call(timeout_ms, timeout_ms=timeout_ms), now=100)
    assert table.calls.next_at() == 110
    assert table.expire(109) == []
    assert [failed.key for failed in table.expire(120)] == [10, 20]
    assert table.calls.next_at() == 130
    assert {code_of([failed]) for failed in table.expire(1_000)} == {ErrorCode.TIMED_OUT}


def test_a_death_ends_calls_once(table: Table) -> None:
    table.peer("partition/T/0", 1)
    table.peer("controller", 1)
    for key in ("a", "b"):
        table.call(call(key, "partition/T/0"), now=0)
    table.call(call("other"), now=0)
    down = PeerDown(address=Address.parse("partition/T/0"), incarnation=1, reason="killed")
    lost = table.handle(down)
    assert [(failed.key, failed.error.code) for failed in lost] == [
        ("a", ErrorCode.PARTITION_OFFLINE),
        ("b", ErrorCode.PARTITION_OFFLINE),
    ]
    assert table.handle(down) == []
    assert [failed.key for failed in table.expire(10_000)] == ["other"]


def test_an_older_death_is_no_news_and_a_newer_one_is(table: Table) -> None:
    table.peer("controller", 2)
    table.call(call("key"), now=0)
    assert table.handle(PeerDown(address=Address.parse("controller"), incarnation=1, reason="")) == []
    assert len(table.handle(PeerDown(address=Address.parse("controller"), incarnation=3, reason=""))) == 1
    assert code_of(table.call(call("key"), now=0)) == ErrorCode.ACTOR_UNAVAILABLE


def test_an_actor_without_an_endpoint_cannot_be_called(table: Table) -> None:
    table.handle(PeerUp(address=Address.parse("subscriber/g/0"), incarnation=1, endpoint=None))
    assert code_of(table.call(call("key", "subscriber/g/0"), now=0)) == ErrorCode.ACTOR_UNAVAILABLE
    assert table.handle(PeerDown(address=Address.parse("subscriber/g/0"), incarnation=1, reason="")) == []


def test_a_peer_whose_queue_is_full_fails_calls_at_once(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.calls.socket.setsockopt(zmq.SNDHWM, 5)
    table.peer("controller", 1, binds=False)
    refused = [failed for n in range(10) for failed in table.call(call(n), now=0)]
    assert 1 <= len(refused) <= 5
    assert {code_of([failed]) for failed in refused} == {ErrorCode.OVERLOADED}
    assert len(table.expire(10_000)) == 10 - len(refused)
    table.cast(Cast(Address.parse("controller"), InitProducer()))  # lost, as casts are


def test_calls_in_flight_are_bounded(table: Table) -> None:
    peer = table.peer("controller", 1)
    assert [table.call(call(n), now=0) for n in range(MAX_IN_FLIGHT)] == [[]] * MAX_IN_FLIGHT
    (refused,) = table.call(call("one too many"), now=0)
    assert isinstance(refused, Failed)
    assert (refused.error.code, refused.error.retriable) == (ErrorCode.OVERLOADED, True)
    endless = structs.replace(call("endless"), is_endless=True)
    assert table.call(endless, now=0) == [], "it would be made again at once"
    answer(peer)
    outcome(table)
    assert [type(each) for each in table.call(call("still too many"), now=0)] == [Failed]
    answer(peer)
    outcome(table)
    assert table.call(call("room again"), now=0) == []


def test_a_raw_request_gets_a_raw_reply(table: Table) -> None:
    peer = table.peer("controller", 1)
    table.call(Call("key", Address.parse("controller"), b'{"op":"init_producer","id":"theirs"}'), now=0)
    answer(peer, b'{"id":"theirs","whatever":1}')
    assert outcome(table) == Answered("key", b'{"id":"theirs","whatever":1}', [])


def fall_asleep(table: Table, incarnation: int) -> list[Any]:
    return table.handle(PeerDown(address=GROUP, incarnation=incarnation, reason="", asleep=True))


def test_a_call_wakes_and_waits_for_one_who_sleeps(table: Table) -> None:
    table.handle(PeersAsleep(addresses=[GROUP]))
    for key in ("first", "second"):
        assert table.call(call(key, GROUP), now=0) == []
    assert table.woken(1) == [GROUP], "once is enough"
    peer = table.peer(GROUP, 1)
    answer(peer)
    answer(peer)
    keys = [found.key for found in (outcome(table), outcome(table)) if found is not None]
    assert keys == ["first", "second"]


def test_what_was_not_answered_before_the_sleep_is_asked_again(table: Table) -> None:
    table.peer(GROUP, 1)
    assert table.call(call("key", GROUP), now=0) == []
    assert fall_asleep(table, 1) == []
    assert table.woken(1) == [GROUP]
    answer(table.peer(GROUP, 2))
    found = outcome(table)
    assert isinstance(found, Answered)
    assert found.key == "key"


def test_an_answer_from_before_the_sleep_counts_and_nothing_is_asked_again(table: Table) -> None:
    peer = table.peer(GROUP, 1)
    table.call(call("key", GROUP), now=0)
    answer(peer)
    assert table.calls.socket.poll(TIMEOUT_MS)
    (found,) = fall_asleep(table, 1)
    assert isinstance(found, Answered)
    assert not table.peer(GROUP, 2).poll(100)


def test_who_never_called_wakes_nobody(table: Table) -> None:
    table.peer(GROUP, 1)
    fall_asleep(table, 1)
    assert table.woken() == []
    table.cast(Cast(GROUP, InitProducer()))
    assert table.woken() == []


def test_calls_wait_for_a_waking_one_that_is_killed_on_its_way(table: Table) -> None:
    table.handle(PeersAsleep(addresses=[GROUP]))
    table.call(call("key", GROUP), now=0)
    assert table.handle(PeerDown(address=GROUP, incarnation=1, reason="killed")) == []
    answer(table.peer(GROUP, 2))
    assert isinstance(outcome(table), Answered)


def test_calls_to_a_waking_one_fail_when_it_is_given_up(table: Table) -> None:
    table.handle(PeersAsleep(addresses=[GROUP]))
    table.call(call("key", GROUP), now=0)
    (failed,) = table.handle(PeerDown(address=GROUP, incarnation=1, reason="no room", quarantined=True))
    assert failed.key == "key"
    assert "no room" in failed.error.message
    assert code_of(table.call(call("next", GROUP), now=0)) == "ACTOR_UNAVAILABLE"


def test_the_time_of_a_call_that_waits_is_bounded_and_it_can_be_cancelled(table: Table) -> None:
    table.handle(PeersAsleep(addresses=[GROUP]))
    table.call(call("late", GROUP, timeout_ms=10), now=0)
    table.call(Call("gone", GROUP, InitProducer(), InitProducerReply, token=1), now=0)
    table.calls.cancel(CancelCall(1), 0)
    assert [failed.error.code for failed in table.expire(10)] == ["TIMED_OUT"]
    assert not table.peer(GROUP, 1).poll(100), "nobody waits"
    # The next request wakes it again.
    fall_asleep(table, 1)
    table.call(call("key", GROUP), now=20)
    assert table.woken(2) == [GROUP, GROUP]


def test_one_who_slept_and_was_stopped_is_not_running(table: Table) -> None:
    table.handle(PeersAsleep(addresses=[GROUP]))
    table.handle(PeerDown(address=GROUP, incarnation=0, reason="stopped"))
    assert code_of(table.call(call("key", GROUP), now=0)) == "ACTOR_UNAVAILABLE"
