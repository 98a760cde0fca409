"""The loop with real sockets: its reports to the supervisor, the order of a turn, its end."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from loop_actor import ADDRESS, SECRET, TIMEOUT_MS, Echo, LoopRun
from planaria.transport.addresses import Address
from planaria.transport.clock import REHEARSAL, new_origin
from planaria.transport.codec import encode_header
from planaria.transport.endpoints import endpoint_for
from planaria.transport.loop import MAX_MESSAGES_PER_TURN, Loop
from planaria.transport.machine import WallClockStepped
from planaria.transport.protocol.control import Heartbeat, PeerDown, PeerUp, Ready, Stop
from planaria.transport.protocol.errors import DependencyUnavailable, ErrorCode
from planaria.transport.request_context import ContextFrames, RequestContext
from planaria.transport.untaken import MAX_UNTAKEN_BYTES_PER_CONNECTION


@pytest.fixture
def run(run_dir: Path) -> Iterator[LoopRun]:
    started = LoopRun(str(run_dir))
    yield started
    started.close()


def send(client: "zmq.Socket[bytes]", op: str, **fields: Any) -> None:
    client.send(json.dumps({"op": op, **fields}).encode())


def receive(client: "zmq.Socket[bytes]") -> Any:
    assert client.poll(TIMEOUT_MS), "no reply"
    return json.loads(client.recv_multipart()[-1])


def received(peer: "zmq.Socket[bytes]") -> list[bytes]:
    """Receive a message as an actor does: without its context."""
    frames = peer.recv_multipart()
    assert ContextFrames(SECRET).take(frames) is not None
    return frames


def ask(client: "zmq.Socket[bytes]", op: str, **fields: Any) -> Any:
    send(client, op, **fields)
    return receive(client)


# Reports to the supervisor.


def test_ready_says_where(run: LoopRun) -> None:
    ready = run.start()
    assert ready == Ready(
        address=ADDRESS, incarnation=3, endpoint=endpoint_for(run.run_directory, ADDRESS, 3)
    )


def test_life_is_told_in_order(run: LoopRun) -> None:
    run.actor.steps_of_recovery = 2
    run._thread.start()
    words = [run.next_word()[1] for _ in range(6)]
    assert [word.phase if isinstance(word, Heartbeat) else "is ready" for word in words] == [
        *("starting", "recovering", "recovering"),
        *("is ready", "ready", "ready"),
    ]
    turns = [word.turns for word in words if isinstance(word, Heartbeat)]
    assert turns[:3] == [1, 2, 3]
    assert turns == sorted(turns)
    assert {word.incarnation for word in words} == {3}


def test_an_idle_actor_beats_and_its_turns_advance(run: LoopRun) -> None:
    run.start()
    first, second = (run.hear(lambda word: isinstance(word, Heartbeat)) for _ in range(2))
    assert second.turns > first.turns or run.hear(lambda word: word.turns > first.turns)


# Requests.


@pytest.mark.parametrize("envelope", [[], [b""], [b"name"], [b"name", b""]])
def test_replies_echo_envelope_and_id(run: LoopRun, envelope: list[bytes]) -> None:
    run.start()
    client = run.client()
    client.send_multipart([*envelope, b'{"op":"echo","id":"x","text":"hi"}'])
    assert client.poll(TIMEOUT_MS)
    *echoed, reply = client.recv_multipart()
    assert (echoed, json.loads(reply)) == (envelope, {"id": "x", "text": "hi"})


@pytest.mark.parametrize(
    ("frames", "code", "id_"),
    [
        ([b"\xff\x00"], ErrorCode.INVALID_REQUEST, None),
        ([b""], ErrorCode.INVALID_REQUEST, None),
        ([b"{"], ErrorCode.INVALID_REQUEST, None),
        ([b'{"op":"nonsense","id":7}'], ErrorCode.UNKNOWN_OP, 7),
        ([b'{"op":"peer_up","id":7}'], ErrorCode.UNKNOWN_OP, 7),
        ([b'{"op":"echo","id":7,"text":1}'], ErrorCode.INVALID_REQUEST, 7),
        ([b'{"op":"echo","id":[7]}'], ErrorCode.INVALID_REQUEST, None),
        ([b'{"op":"echo"}', *[b""] * 256], ErrorCode.MESSAGE_TOO_LARGE, None),
    ],
)
def test_what_cannot_be_read_is_refused(run: LoopRun, frames: list[bytes], code: str, id_: Any) -> None:
    run.start()
    client = run.client()
    client.send_multipart(frames)
    assert client.poll(TIMEOUT_MS)
    header = client.recv_multipart()[-1]
    reply = json.loads(header) if header[:1] == b"{" else msgspec.msgpack.decode(header)
    assert (reply["error"]["code"], reply["id"]) == (code, id_)
    assert ask(client, "echo", text="still here")["text"] == "still here"


@pytest.mark.parametrize("secret", [SECRET, b"guess"])
def test_only_the_broker_itself_makes_a_context(run: LoopRun, secret: bytes) -> None:
    run.start()
    client = run.client(zmq.DEALER)
    context = ContextFrames(secret).frame(RequestContext(client_id="billing", is_admitted=True))
    header = msgspec.msgpack.encode({"op": "whose"})
    client.send_multipart([b"\0\0\0\0\0\0\0\7", b"", context, header])
    assert client.poll(TIMEOUT_MS), "no reply"
    reply = msgspec.msgpack.decode(client.recv_multipart()[-1])
    if secret == SECRET:
        assert reply["text"] == "billing True"
    else:
        assert reply["error"]["code"] == ErrorCode.INVALID_REQUEST


def test_only_actors_may_make_internal_requests(run: LoopRun) -> None:
    run.start()
    client = run.client(zmq.DEALER)
    assert ask(client, "secretly", id=1)["error"]["code"] == ErrorCode.FORBIDDEN
    header = b'{"op":"secretly","id":2}'
    client.send_multipart([b"\0\0\0\0\0\0\0\7", b"", ContextFrames(SECRET).own, header])
    assert receive(client) == {"id": 2, "text": "done"}


def test_nothing_is_answered_before_it_is_durable(run: LoopRun) -> None:
    run.start()
    client, other = run.client(), run.client()
    run.actor.may_sync.clear()
    send(client, "store", id=1, eager=True)
    assert run.actor.in_sync.wait(TIMEOUT_MS / 1000)
    # Requests that arrive during the sync wait for the next turn, and share one sync there.
    for number in range(10):
        send(other, "store", id=number)
    assert not client.poll(30)
    run.actor.may_sync.set()
    assert [receive(client)["text"] for _ in range(2)] == ["eager", "durable"]
    assert [receive(other)["id"] for _ in range(10)] == list(range(10))
    assert run.actor.syncs[0] == 1
    assert sum(run.actor.syncs) == 11


def test_a_turn_takes_a_bounded_part_of_the_mailbox(run: LoopRun) -> None:
    run.start()
    client, last = run.client(), run.client()
    run.actor.may_sync.clear()
    send(last, "store")
    assert run.actor.in_sync.wait(TIMEOUT_MS / 1000)
    for _ in range(3 * MAX_MESSAGES_PER_TURN):
        send(client, "store")
    run.actor.may_sync.set()
    for _ in range(3 * MAX_MESSAGES_PER_TURN):
        receive(client)
    assert max(run.actor.syncs) <= MAX_MESSAGES_PER_TURN
    assert sum(run.actor.syncs) == 3 * MAX_MESSAGES_PER_TURN + 1


def test_a_reply_to_a_connection_that_has_gone_is_no_trouble(
    run: LoopRun, caplog: pytest.LogCaptureFixture
) -> None:
    run.start()
    client = run.client()
    ask(client, "misdirect")
    assert ask(client, "echo", text="unharmed")["text"] == "unharmed"
    assert run.loop._replies.dropped == 0
    assert "replies dropped" not in caplog.text


def test_replies_to_one_who_does_not_read_are_dropped_and_counted(
    run: LoopRun, caplog: pytest.LogCaptureFixture
) -> None:
    run.start()
    client, reader = run.client(receive_high_water_mark=1), run.client()
    send(client, "flood", replies=5_000, text="x" * 10_000)
    assert client.poll(TIMEOUT_MS)
    assert ask(reader, "echo", text="unharmed")["text"] == "unharmed"
    assert run.loop._replies.dropped > 0
    told = [record.fields["total"] for record in caplog.records if record.message == "replies dropped"]  # type: ignore[attr-defined]
    assert told == [2**power for power in range(run.loop._replies.dropped.bit_length())]


def test_large_replies_to_one_who_does_not_read_are_refused_before_they_pile_up(run: LoopRun) -> None:
    run.start()
    client = run.client()
    size = 4 * 1024 * 1024
    send(client, "flood", replies=100, text="x" * size)
    replies = [receive(client) for _ in range(100)]
    refusals = [reply["error"] for reply in replies if "error" in reply]
    assert 0 < len(replies) - len(refusals) <= MAX_UNTAKEN_BYTES_PER_CONNECTION // size
    assert {(error["code"], error["retriable"]) for error in refusals} == {("OVERLOADED", True)}
    assert len(ask(client, "echo", text="x" * size)["text"]) == size, "what was taken makes room"


def test_timers_fire_and_cancelled_ones_do_not(run: LoopRun) -> None:
    run.start()
    client = run.client()
    assert ask(client, "later", id=1, ms=20)["text"] == "late"
    assert ask(client, "echo", id=2)["id"] == 2
    assert len(run.loop._timers) == 0


def test_watched_files_are_seen(run: LoopRun) -> None:
    reader, writer = os.pipe()
    seen: list[bytes] = []

    def take() -> None:
        seen.append(os.read(reader, 1))

    def start() -> None:
        run.loop.watch(reader, take)

    run.actor.start = start  # type: ignore[method-assign]
    run.start()
    client = run.client()
    for written in (b"a", b"b"):
        os.write(writer, written)
        while written not in seen:
            ask(client, "echo")
    assert seen == [b"a", b"b"]
    run.supervisor_dies()
    run.join()  # a descriptor that is watched must not be closed
    os.close(reader)
    os.close(writer)


# Calls.


def test_a_call_is_answered(run: LoopRun) -> None:
    run.start()
    peer, client = run.peer("controller", 1), run.client()
    send(client, "ask", id=9, address="controller")
    assert peer.poll(TIMEOUT_MS)
    *route, header = received(peer)
    assert msgspec.msgpack.decode(header)["text"] == "asked"
    peer.send_multipart([*route, b'{"id":null,"text":"answer"}'])
    assert receive(client) == {"id": 9, "text": "answer"}


def test_a_refused_call_fails_with_the_peers_words(run: LoopRun) -> None:
    run.start()
    peer, client = run.peer("controller", 1), run.client()
    for answer, code in (
        (b'{"id":1,"error":{"code":"OVERLOADED","message":"busy","retriable":true}}', "OVERLOADED"),
        (b'{"id":1,"text":7}', "INVALID_REQUEST"),
    ):
        send(client, "ask", address="controller")
        assert peer.poll(TIMEOUT_MS)
        peer.send_multipart([*received(peer)[:-1], answer])
        assert receive(client)["error"]["code"] == code


@pytest.mark.parametrize(
    ("address", "code"),
    [("controller", "ACTOR_UNAVAILABLE"), ("partition/ORDERS/0", "PARTITION_OFFLINE")],
)
def test_a_call_to_nobody_fails_at_once(run: LoopRun, address: str, code: str) -> None:
    run.start()
    error = ask(run.client(), "ask", address=address)["error"]
    assert (error["code"], error["retriable"]) == (code, True)


def test_calls_fail_when_their_incarnation_dies(run: LoopRun) -> None:
    run.start()
    peer, client = run.peer("partition/ORDERS/0", 2), run.client()
    for number in range(3):
        send(client, "ask", id=number, address="partition/ORDERS/0")
        assert peer.poll(TIMEOUT_MS)
        peer.recv_multipart()
    run.peer_down("partition/ORDERS/0", 1)  # an older one's death is ignored
    run.wait_heard(PeerDown, 1)
    assert not client.poll(0)
    run.peer_down("partition/ORDERS/0", 2, "killed by SIGKILL")
    lost = [receive(client) for _ in range(3)]
    assert [reply["id"] for reply in lost] == [0, 1, 2]
    assert {reply["error"]["code"] for reply in lost} == {"PARTITION_OFFLINE"}
    assert "killed by SIGKILL" in lost[0]["error"]["message"]
    assert ask(client, "ask", address="partition/ORDERS/0")["error"]["code"] == "PARTITION_OFFLINE"


def test_a_newer_incarnation_takes_over_and_an_older_never_comes_back(run: LoopRun) -> None:
    run.start()
    old, client = run.peer("controller", 1), run.client()
    send(client, "ask", id=1, address="controller")
    assert old.poll(TIMEOUT_MS)
    new = run.peer("controller", 2)
    assert receive(client)["error"]["code"] == "ACTOR_UNAVAILABLE"
    # Repeated, or late: a name used twice would make ZeroMQ abort the process.
    for incarnation in (2, 1):
        endpoint = endpoint_for(run.run_directory, "controller", incarnation)
        run.order(PeerUp(address=Address.parse("controller"), incarnation=incarnation, endpoint=endpoint))
    run.peer_down("nobody", 1)
    run.wait_heard(PeerDown, 1)
    send(client, "ask", id=2, address="controller")
    assert new.poll(TIMEOUT_MS)
    *route, _ = received(new)
    new.send_multipart([*route, b'{"text":"new"}'])
    assert receive(client) == {"id": 2, "text": "new"}


def test_a_call_has_a_deadline_and_a_late_answer_goes_nowhere(run: LoopRun) -> None:
    run.start()
    peer, client = run.peer("controller", 1), run.client()
    error = ask(client, "ask", address="controller", timeout_ms=20)["error"]
    assert (error["code"], error["retriable"]) == ("TIMED_OUT", True)
    assert peer.poll(TIMEOUT_MS)
    peer.send_multipart([*received(peer)[:-1], b'{"text":"late"}'])
    assert ask(client, "echo", text="next") == {"id": None, "text": "next"}
    assert run.loop._calls.next_at() is None


def test_the_supervisor_is_asked_over_the_control_link(run: LoopRun) -> None:
    run.start()
    client = run.client()
    send(client, "ask", id=5, address="supervisor")
    envelope, request = run.next_word()
    while not isinstance(request, Echo):
        envelope, request = run.next_word()
    run.tell(*envelope, b'{"text":"from above"}')
    assert receive(client) == {"id": 5, "text": "from above"}


def test_a_cast_arrives_without_an_envelope_or_is_lost(run: LoopRun) -> None:
    run.start()
    client = run.client()
    assert ask(client, "tell", address="controller")["text"] == "told"
    peer = run.peer("controller", 1)
    ask(client, "tell", address="controller")
    assert peer.poll(TIMEOUT_MS)
    assert received(peer)[1:] == [encode_header(Echo(text="told"))]
    assert not peer.poll(0)


# The end.


def test_stop_answers_what_is_open_and_closes(run: LoopRun) -> None:
    run.start()
    client = run.client()
    run.actor.may_sync.clear()
    send(client, "store", id=1)
    assert run.actor.in_sync.wait(TIMEOUT_MS / 1000)
    run.order(Stop(deadline_ms=2**50))
    run.actor.may_sync.set()
    assert receive(client)["text"] == "durable"
    run.join()
    assert run.actor.closed
    assert run.failure is None


def test_the_supervisors_death_ends_the_actor(run: LoopRun) -> None:
    run.start()
    run.supervisor_dies()
    run.join()
    assert run.actor.closed


def test_a_start_ends_at_its_next_step_when_the_supervisor_has_died(run: LoopRun) -> None:
    run.actor.steps_of_recovery = 1
    run.supervisor_dies()
    loop = Loop(run.actor, run.context)
    try:
        with pytest.raises(DependencyUnavailable, match="the supervisor has died"):
            loop.run()
    finally:
        loop._zmq.destroy(linger=0)


def test_an_effect_nobody_knows_is_a_bug_and_crashes(run: LoopRun) -> None:
    run.start()
    send(run.client(), "break")
    run.join()
    assert "does not know" in str(run.failure)


@pytest.mark.parametrize("step_ms", [7_200_000, -7_200_000])
def test_a_step_of_the_wall_clock_is_told_with_the_next_heartbeat(
    run: LoopRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step_ms: int
) -> None:
    monkeypatch.setenv(REHEARSAL, str(tmp_path))
    run.start()
    run.next_word()
    assert not run.actor.machine.heard
    (tmp_path / "all").write_text(str(step_ms))
    steps = steps_heard(run)
    assert abs(steps[0].offset_ms - step_ms) < 60_000
    assert abs(run.loop.wall - run.loop.now - step_ms) < 60_000


def test_a_step_before_the_start_is_told_before_anything_else(
    run: LoopRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process that starts after a step has the steady clock of the earlier ones."""
    run.actor.context.clock = new_origin()
    monkeypatch.setenv(REHEARSAL, str(tmp_path))
    (tmp_path / ADDRESS.replace("/", "-")).write_text("-7200000")
    run.start()
    assert abs(steps_heard(run)[0].offset_ms + 7_200_000) < 60_000
    assert isinstance(run.actor.machine.heard[0], WallClockStepped)


def steps_heard(run: LoopRun) -> list[WallClockStepped]:
    """Return the steps received; turns go by with the heartbeats."""
    while not (steps := [event for event in run.actor.machine.heard if isinstance(event, WallClockStepped)]):
        run.next_word()
    return steps
