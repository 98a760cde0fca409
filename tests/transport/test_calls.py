"""The table of calls: its bounds, and that each call ends once. Its use by a loop is in test_loop.py."""

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from planaria.transport import calls as calls_module
from planaria.transport import sockets
from planaria.transport.calls import Calls
from planaria.transport.endpoints import control_endpoint, endpoint_for
from planaria.transport.machine import Answered, Call, Cast, Failed
from planaria.transport.protocol.control import PeerDown, PeerUp, Wake
from planaria.transport.protocol.data import InitProducer, InitProducerReply
from planaria.transport.protocol.errors import ErrorCode
from planaria.transport.untaken import MAX_UNTAKEN_BYTES_PER_CONNECTION

TIMEOUT_MS = 10_000
GROUP = "coordinator/g"


class Table:
    """A Calls, and a peer of it."""

    def __init__(self, run_directory: str, exits: ExitStack) -> None:
        self._run_directory = run_directory
        self._zmq = exits.enter_context(zmq.Context())
        self._exits = exits
        link = exits.enter_context(
            sockets.control_link(self._zmq, control_endpoint(run_directory), "gateway/0", 1)
        )
        self.calls = Calls(self._zmq, link)
        exits.callback(self.calls.close)
        self.woken: list[str] = []

        def tell(request: object) -> None:
            assert isinstance(request, Wake)
            self.woken.append(request.address)

        self.calls.tell_supervisor = tell  # type: ignore[method-assign]

    def peer(self, address: str, incarnation: int, binds: bool = True) -> "zmq.Socket[bytes]":
        endpoint = endpoint_for(self._run_directory, address, incarnation)
        peer = self._exits.enter_context(self._zmq.socket(zmq.ROUTER))
        peer.linger = 0
        if binds:
            peer.bind(endpoint)
        self.calls.peer_up(PeerUp(address=address, incarnation=incarnation, endpoint=endpoint))
        return peer


@pytest.fixture
def table(run_dir: Path) -> Iterator[Table]:
    with ExitStack() as exits:
        yield Table(str(run_dir), exits)


def call(key: object, address: str = "controller", timeout_ms: int = 1_000) -> Call:
    return Call(key, address, InitProducer(), InitProducerReply, timeout_ms=timeout_ms)


def test_casts_to_one_who_does_not_read_are_lost_before_they_pile_up(table: Table) -> None:
    peer = table.peer("partition/T/0", 1)
    peer.rcvhwm = 1
    size = 1024 * 1024
    sent = 5 * MAX_UNTAKEN_BYTES_PER_CONNECTION // size
    for _ in range(sent):
        table.calls.cast(Cast("partition/T/0", InitProducer(), [bytes(size)]))
    received = 0
    while peer.poll(500):
        assert len(peer.recv_multipart()[-1]) == size
        received += 1
    # Frames taken by the peer's own end do not count any more.
    assert 0 < received < sent
    table.calls.cast(Cast("partition/T/0", InitProducer(), [bytes(size)]))
    assert peer.poll(TIMEOUT_MS), "what was taken makes room"


def code_of(failed: object) -> str:
    assert isinstance(failed, Failed)
    return failed.error.code


def answer(peer: "zmq.Socket[bytes]", header: bytes = b'{"producer_id":1,"producer_epoch":0}') -> None:
    assert peer.poll(TIMEOUT_MS)
    peer.send_multipart([*peer.recv_multipart()[:-1], header])


def outcome(table: Table) -> Answered | Failed | None:
    assert table.calls.socket.poll(TIMEOUT_MS)
    return table.calls.receive(table.calls.socket.recv_multipart()[1:])


def test_a_peer_is_connected_to_by_the_first_call_and_not_before(table: Table, run_dir: Path) -> None:
    endpoint = endpoint_for(str(run_dir), "partition/T/0", 1)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(endpoint.removeprefix("ipc://"))
        door.listen()
        door.settimeout(TIMEOUT_MS / 1000)
        table.calls.peer_up(PeerUp(address="partition/T/0", incarnation=1, endpoint=endpoint))
        controller = table.peer("controller", 1)
        table.calls.call(call("other"), now=0)
        answer(controller)
        assert isinstance(outcome(table), Answered)
        assert not select.select([door], [], [], 0)[0]
        assert table.calls.call(call("key", "partition/T/0"), now=0) is None
        door.accept()[0].close()


def test_a_peer_that_was_never_called_may_go_and_come_back(table: Table) -> None:
    table.peer("controller", 1)
    assert table.calls.peer_down(PeerDown(address="controller", incarnation=1, reason="")) == []
    peer = table.peer("controller", 2)
    assert table.calls.call(call("key"), now=0) is None
    answer(peer)
    assert isinstance(outcome(table), Answered)


def test_an_answer_is_given_to_its_own_call_whatever_the_order(table: Table) -> None:
    peers = [table.peer(f"partition/T/{n}", 1) for n in range(3)]
    for n in range(3):
        assert table.calls.call(call(n, f"partition/T/{n}"), now=0) is None
    for n in (2, 0, 1):
        answer(peers[n], b'{"producer_id":%d,"producer_epoch":0}' % n)
        found = outcome(table)
        assert isinstance(found, Answered)
        assert (found.key, found.reply.producer_id) == (n, n)
    assert table.calls.next_deadline() is None


def test_a_second_answer_is_nobodys(table: Table) -> None:
    peer = table.peer("controller", 1)
    table.calls.call(call("key"), now=0)
    assert peer.poll(TIMEOUT_MS)
    envelope = peer.recv_multipart()[:-1]
    for _ in range(2):
        peer.send_multipart([*envelope, b'{"producer_id":1,"producer_epoch":0}'])
    assert isinstance(outcome(table), Answered)
    assert outcome(table) is None


def test_calls_expire_at_their_deadline_in_order(table: Table) -> None:
    table.peer("controller", 1)
    for timeout_ms in (30, 10, 20):
        table.calls.call(call(timeout_ms, timeout_ms=timeout_ms), now=100)
    assert table.calls.next_deadline() == 110
    assert table.calls.expire(109) == []
    assert [failed.key for failed in table.calls.expire(120)] == [10, 20]
    assert table.calls.next_deadline() == 130
    assert {code_of(failed) for failed in table.calls.expire(1_000)} == {ErrorCode.TIMED_OUT}


def test_a_death_ends_calls_once(table: Table) -> None:
    table.peer("partition/T/0", 1)
    table.peer("controller", 1)
    for key in ("a", "b"):
        table.calls.call(call(key, "partition/T/0"), now=0)
    table.calls.call(call("other"), now=0)
    down = PeerDown(address="partition/T/0", incarnation=1, reason="killed")
    lost = table.calls.peer_down(down)
    assert [(failed.key, failed.error.code) for failed in lost] == [
        ("a", ErrorCode.PARTITION_OFFLINE),
        ("b", ErrorCode.PARTITION_OFFLINE),
    ]
    assert table.calls.peer_down(down) == []
    assert [failed.key for failed in table.calls.expire(10_000)] == ["other"]


def test_an_older_death_is_no_news_and_a_newer_one_is(table: Table) -> None:
    table.peer("controller", 2)
    table.calls.call(call("key"), now=0)
    assert table.calls.peer_down(PeerDown(address="controller", incarnation=1, reason="")) == []
    assert len(table.calls.peer_down(PeerDown(address="controller", incarnation=3, reason=""))) == 1
    assert code_of(table.calls.call(call("key"), now=0)) == ErrorCode.ACTOR_UNAVAILABLE


def test_an_actor_without_an_endpoint_cannot_be_called(table: Table) -> None:
    table.calls.peer_up(PeerUp(address="subscriber/g/0", incarnation=1, endpoint=None))
    assert code_of(table.calls.call(call("key", "subscriber/g/0"), now=0)) == ErrorCode.ACTOR_UNAVAILABLE
    assert table.calls.peer_down(PeerDown(address="subscriber/g/0", incarnation=1, reason="")) == []


def test_a_peer_whose_queue_is_full_fails_calls_at_once(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.calls.socket.setsockopt(zmq.SNDHWM, 5)
    table.peer("controller", 1, binds=False)
    outcomes = [table.calls.call(call(n), now=0) for n in range(10)]
    refused = [failed for failed in outcomes if failed is not None]
    assert 1 <= len(refused) <= 5
    assert {code_of(failed) for failed in refused} == {ErrorCode.ACTOR_UNAVAILABLE}
    assert len(table.calls.expire(10_000)) == 10 - len(refused)
    table.calls.cast(Cast("controller", InitProducer()))  # lost, as casts are


def test_calls_in_flight_are_bounded(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "MAX_IN_FLIGHT", 3)
    peer = table.peer("controller", 1)
    assert [table.calls.call(call(n), now=0) for n in range(3)] == [None] * 3
    refused = table.calls.call(call("one too many"), now=0)
    assert isinstance(refused, Failed)
    assert (refused.error.code, refused.error.retriable) == (ErrorCode.OVERLOADED, True)
    answer(peer)
    outcome(table)
    assert table.calls.call(call("room again"), now=0) is None


def test_a_raw_request_gets_a_raw_reply(table: Table) -> None:
    peer = table.peer("controller", 1)
    table.calls.call(Call("key", "controller", b'{"op":"init_producer","id":"theirs"}'), now=0)
    answer(peer, b'{"id":"theirs","whatever":1}')
    assert outcome(table) == Answered("key", b'{"id":"theirs","whatever":1}', [])


def fall_asleep(table: Table, incarnation: int) -> list[Failed]:
    return table.calls.peer_down(PeerDown(address=GROUP, incarnation=incarnation, reason="", asleep=True))


def test_a_call_wakes_and_waits_for_one_who_sleeps(table: Table) -> None:
    table.calls.peers_asleep([GROUP])
    for key in ("first", "second"):
        assert table.calls.call(call(key, GROUP), now=0) is None
    assert table.woken == [GROUP], "once is enough"
    peer = table.peer(GROUP, 1)
    answer(peer)
    answer(peer)
    keys = [found.key for found in (outcome(table), outcome(table)) if found is not None]
    assert keys == ["first", "second"]


def test_what_was_not_answered_before_the_sleep_is_asked_again(table: Table) -> None:
    table.peer(GROUP, 1)
    assert table.calls.call(call("key", GROUP), now=0) is None
    assert fall_asleep(table, 1) == []
    assert table.woken == [GROUP]
    answer(table.peer(GROUP, 2))
    found = outcome(table)
    assert isinstance(found, Answered)
    assert found.key == "key"


def test_an_answer_from_before_the_sleep_counts_and_nothing_is_asked_again(table: Table) -> None:
    peer = table.peer(GROUP, 1)
    table.calls.call(call("key", GROUP), now=0)
    answer(peer)
    assert table.calls.socket.poll(TIMEOUT_MS)
    fall_asleep(table, 1)
    (arrived,) = table.calls.arrived
    assert isinstance(table.calls.receive(arrived[1:]), Answered)
    assert not table.peer(GROUP, 2).poll(100)


def test_who_never_called_wakes_nobody(table: Table) -> None:
    table.peer(GROUP, 1)
    fall_asleep(table, 1)
    assert table.woken == []
    table.calls.cast(Cast(GROUP, InitProducer()))
    assert table.woken == []


def test_calls_wait_for_a_waking_one_that_is_killed_on_its_way(table: Table) -> None:
    table.calls.peers_asleep([GROUP])
    table.calls.call(call("key", GROUP), now=0)
    assert table.calls.peer_down(PeerDown(address=GROUP, incarnation=1, reason="killed")) == []
    answer(table.peer(GROUP, 2))
    assert isinstance(outcome(table), Answered)


def test_calls_to_a_waking_one_fail_when_it_is_given_up(table: Table) -> None:
    table.calls.peers_asleep([GROUP])
    table.calls.call(call("key", GROUP), now=0)
    (failed,) = table.calls.peer_down(
        PeerDown(address=GROUP, incarnation=1, reason="no room", quarantined=True)
    )
    assert failed.key == "key"
    assert "no room" in failed.error.message
    assert code_of(table.calls.call(call("next", GROUP), now=0)) == "ACTOR_UNAVAILABLE"


def test_the_time_of_a_call_that_waits_is_bounded_and_it_can_be_cancelled(table: Table) -> None:
    table.calls.peers_asleep([GROUP])
    table.calls.call(call("late", GROUP, timeout_ms=10), now=0)
    table.calls.call(Call("gone", GROUP, InitProducer(), InitProducerReply, token=1), now=0)
    table.calls.cancel(1)
    assert [failed.error.code for failed in table.calls.expire(10)] == ["TIMED_OUT"]
    assert not table.peer(GROUP, 1).poll(100), "nobody waits"
    # The next request wakes it again.
    fall_asleep(table, 1)
    table.calls.call(call("key", GROUP), now=20)
    assert table.woken == [GROUP, GROUP]


def test_one_who_slept_and_was_stopped_is_not_running(table: Table) -> None:
    table.calls.peers_asleep([GROUP])
    table.calls.peer_down(PeerDown(address=GROUP, incarnation=0, reason="stopped"))
    assert code_of(table.calls.call(call("key", GROUP), now=0)) == "ACTOR_UNAVAILABLE"
