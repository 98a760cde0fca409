"""No client input stops an actor: an error reply or a closed connection, and no other client notices.

Every test ends the same way: the tree is unchanged, incarnation by incarnation, and an honest client was served
all along.
"""

import json
import random
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
import zmq

from hostile_input import GREETING, GROUP, HUGE, PLAUSIBLE, TOPIC, hostile_message, long_frame, ready_command
from patience import TIMEOUT_MS
from planaria.actors.controller.process import ControllerActor
from planaria.actors.coordinator.process import CoordinatorActor
from planaria.actors.gateway.process import GatewayActor
from planaria.actors.partition.process import PartitionProcess
from planaria.supervisor.launch import SupervisorHandle
from planaria.transport.protocol.message import MAX_FRAME_BYTES, MAX_FRAMES, MAX_HEADER_BYTES

pytestmark = pytest.mark.processes

FUZZ_SECONDS = 1.5
BURST = 100
CONNECTIONS = 10_000
DEADLINE_MS = 15_000
UNACCEPTED = 1_000
"""Far less than the kernel queues for a listener: beyond that it drops packets, and clients wait for seconds."""
UNKNOWN_LAST = b'{"op":"nonsense","id":"last of a burst"}'


class Honest:
    """A client that publishes and reads back in a thread of its own, and keeps the errors."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._done = threading.Event()
        self._progress = threading.Condition()
        self.published = 0
        self.fault: str | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with zmq.Context() as context, context.socket(zmq.REQ) as sock:
                sock.linger = 0
                sock.connect(self._endpoint)
                while not self._done.is_set():
                    self._publish(sock)
        except AssertionError as error:
            with self._progress:
                self.fault = str(error)
                self._progress.notify_all()

    def wait_for_more(self, messages: int) -> bool:
        """Return True once `messages` more messages have been published and read back in time."""
        with self._progress:
            enough = self.published + messages
            return self._progress.wait_for(
                lambda: self.published >= enough or self.fault is not None, TIMEOUT_MS / 1000
            )

    def _publish(self, sock: "zmq.Socket[bytes]") -> None:
        value = f"honest {self.published}"
        tp = ask(sock, op="publish", topic="HONEST", records=[{"value_text": value}])["records"][0]
        assert tp["offset"] == self.published, tp
        read = ask(sock, op="fetch", topic="HONEST", partition=0, offset=tp["offset"])["records"]
        assert [record["value_text"] for record in read] == [value], read
        with self._progress:
            self.published += 1
            self._progress.notify_all()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


def ask(sock: "zmq.Socket[bytes]", **request: Any) -> Any:
    sock.send(json.dumps(request).encode())
    assert sock.poll(TIMEOUT_MS), f"no reply to {request['op']}"
    reply = json.loads(sock.recv())
    assert "error" not in reply, reply
    return reply


class Attack:
    """The endpoints of a broker under attack, and sockets to it."""

    def __init__(self, endpoint: str, exits: ExitStack) -> None:
        self.endpoint = endpoint
        self._exits = exits
        self._context = exits.enter_context(zmq.Context())
        self._admin = self.socket(zmq.REQ, endpoint)
        for topic in ("HONEST", TOPIC):
            ask(self._admin, op="create_topic", topic=topic)
        ask(self._admin, op="group_heartbeat", group=GROUP, topics=[TOPIC], owned={})

    def socket(self, kind: int, endpoint: str) -> "zmq.Socket[bytes]":
        sock = self._exits.enter_context(self._context.socket(kind))
        sock.linger = 0
        sock.sndhwm = 100_000
        sock.connect(endpoint)
        return sock

    def actors(self) -> dict[str, dict[str, Any]]:
        return {actor["address"]: actor for actor in ask(self._admin, op="status")["actors"]}

    def port(self) -> tuple[str, int]:
        host, _, port = self.endpoint.removeprefix("tcp://").rpartition(":")
        return host, int(port)


@pytest.fixture
def attack(running_broker: SupervisorHandle) -> Iterator[Attack]:
    """The fixture checks at its end that the attack had no forbidden effects."""
    with ExitStack() as exits:
        under_attack = Attack(running_broker.started.endpoint, exits)
        honest = Honest(under_attack.endpoint)
        exits.callback(honest.stop)
        before = under_attack.actors()
        yield under_attack
        is_served = honest.wait_for_more(3)
        after = under_attack.actors()
        assert honest.fault is None
        assert is_served
        assert {address: actor["reason"] for address, actor in after.items() if actor["restarts"]} == {}
        assert {address: after[address]["incarnation"] for address in before} == {
            address: actor["incarnation"] for address, actor in before.items()
        }


ACTORS = {
    "gateway/0": GatewayActor,
    f"partition/{TOPIC}/0": PartitionProcess,
    f"coordinator/{GROUP}": CoordinatorActor,
    "controller": ControllerActor,
}


@pytest.mark.parametrize("address", ACTORS)
def test_random_requests(attack: Attack, address: str, seed: int) -> None:
    random_ = random.Random(seed)
    # Honoured, these two would remove the targets of the others.
    kinds = tuple(
        kind
        for kind in ACTORS[address].requests
        if kind.__struct_config__.tag not in ("delete_topic", "delete_group")
    )
    attacker = attack.socket(zmq.DEALER, attack.actors()[address]["endpoint"])
    deadline = time.monotonic() + FUZZ_SECONDS
    answers = refusals = 0
    while time.monotonic() < deadline or answers <= BURST:
        for _ in range(BURST):
            attacker.send_multipart(hostile_message(random_, kinds))
        attacker.send(UNKNOWN_LAST)
        for reply in replies(attacker):
            answers += 1
            refusals += "error" in reply
    assert refusals > answers / 10


def replies(sock: "zmq.Socket[bytes]") -> Iterator[dict[str, Any]]:
    """Yield the headers of all replies until the one to the burst's last message."""
    while True:
        assert sock.poll(TIMEOUT_MS), "a burst was not answered to its end"
        reply = reply_in(sock.recv_multipart())
        if reply["id"] == "last of a burst":
            return
        yield reply


def reply_in(frames: list[bytes]) -> dict[str, Any]:
    """Return the map among the first frames that has an id: a hostile message's envelope may look like anything."""
    for frame in frames[:3]:
        try:
            found = json.loads(frame) if frame[:1] == b"{" else msgspec.msgpack.decode(frame)
        except (ValueError, msgspec.DecodeError):
            continue
        if isinstance(found, dict) and "id" in found:
            return found
    raise AssertionError(f"not a reply: {frames!r}")


def refusal(attack: Attack, *frames: bytes) -> str:
    """Return the error code of the reply to a message."""
    sock = attack.socket(zmq.DEALER, attack.endpoint)
    sock.send_multipart(frames)
    assert sock.poll(TIMEOUT_MS), "no reply"
    code: str = reply_in(sock.recv_multipart())["error"]["code"]
    return code


def test_too_large_and_too_many(attack: Attack) -> None:
    big_header = b'{"op":"hello","client_id":"' + b"x" * MAX_HEADER_BYTES + b'"}'
    assert refusal(attack, big_header) == "MESSAGE_TOO_LARGE"
    produce = msgspec.msgpack.encode({"op": "produce", "topic": TOPIC, "partition": 0})
    assert refusal(attack, produce, *[b""] * MAX_FRAMES) == "MESSAGE_TOO_LARGE"
    assert refusal(attack, produce, *[b""] * 20_000) == "MESSAGE_TOO_LARGE"
    sock = attack.socket(zmq.DEALER, attack.endpoint)
    sock.send_multipart([b' {"op":"produce","id":"in words"}', *[b""] * MAX_FRAMES])
    assert sock.poll(TIMEOUT_MS), "no reply"
    answer = json.loads(sock.recv())
    assert (answer["id"], answer["error"]["code"]) == ("in words", "MESSAGE_TOO_LARGE")
    assert refusal(attack, b'{"op":"hello","id":' + b"[" * 100_000) == "INVALID_REQUEST"
    assert refusal(attack, b"\x81\xa2id" + b"\x91" * 100_000) == "INVALID_REQUEST"
    # Announced by the header of an array, never sent: no memory may be reserved for it.
    assert refusal(attack, b"\x82\xa2op\xa8metadata\xa6topics\xdd\xff\xff\xff\xff") == "INVALID_REQUEST"


def test_numbers_beyond_64_bits_reach_nobody(attack: Attack) -> None:
    sock = attack.socket(zmq.REQ, attack.endpoint)
    for kind in GatewayActor.requests:
        for name in kind.__struct_fields__:
            for value in HUGE if name != "id" else ():
                header = {
                    field: known[0] for field, known in PLAUSIBLE.items() if field in kind.__struct_fields__
                }
                sock.send(json.dumps({**header, "op": kind.__struct_config__.tag, name: value}).encode())
                assert sock.poll(TIMEOUT_MS), "no reply"
                assert json.loads(sock.recv())["error"]["code"] == "INVALID_REQUEST"


def test_as_many_frames_as_are_allowed_pass_the_gateway(attack: Attack) -> None:
    sock = attack.socket(zmq.REQ, attack.endpoint)
    header = msgspec.msgpack.encode({"op": "produce", "id": 1, "topic": TOPIC, "partition": 0})
    sock.send_multipart([header, *[b""] * (MAX_FRAMES - 1)])
    assert sock.poll(TIMEOUT_MS), "no reply"
    results = msgspec.msgpack.decode(sock.recv())["batches"]
    assert [result["error"]["code"] for result in results] == ["INVALID_BATCH"] * (MAX_FRAMES - 1)


def test_the_largest_frame_is_refused_and_a_larger_one_closes_the_connection(attack: Attack) -> None:
    produce = msgspec.msgpack.encode({"op": "produce", "id": 1, "topic": TOPIC, "partition": 0})
    sock = attack.socket(zmq.DEALER, attack.endpoint)
    sock.send_multipart([produce, bytes(MAX_FRAME_BYTES)])
    assert sock.poll(TIMEOUT_MS), "no reply"
    assert msgspec.msgpack.decode(sock.recv())["error"]["code"] == "MESSAGE_TOO_LARGE"
    with sock.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
        sock.send(bytes(MAX_FRAME_BYTES + 1))
        assert monitor.poll(TIMEOUT_MS), "the connection stays open"
        sock.disable_monitor()


BROKEN_STREAMS = {
    "nothing": b"",
    "not zmtp": b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n" * 4,
    "half a greeting": GREETING[:30],
    "another mechanism": GREETING.replace(b"NULL", b"GSSA"),
    "no handshake": GREETING + b"\xff" * 100,
    "a handshake of another kind of socket": GREETING + ready_command(b"PUB"),
    "half a frame": GREETING + ready_command() + long_frame(1_000, b"{"),
    "a frame that never ends": GREETING + ready_command() + long_frame(2**62, b"{"),
    "an impossible length": GREETING + ready_command() + long_frame(2**64 - 1, b""),
    "reserved flags": GREETING + ready_command() + b"\xf8\x01x",
}


def test_broken_streams(attack: Attack, seed: int) -> None:
    random_ = random.Random(seed)
    streams = [*BROKEN_STREAMS.values()]
    streams += [random_.randbytes(random_.randrange(300)) for _ in range(100)]
    streams += [GREETING + ready_command() + random_.randbytes(random_.randrange(300)) for _ in range(200)]
    for stream in streams:
        with socket.create_connection(attack.port(), timeout=TIMEOUT_MS / 1000) as connection:
            connection.sendall(stream)
    with ExitStack() as exits:
        for stream in streams:
            connection = exits.enter_context(
                socket.create_connection(attack.port(), timeout=TIMEOUT_MS / 1000)
            )
            connection.sendall(stream)
        ask(attack.socket(zmq.REQ, attack.endpoint), op="hello")


@pytest.fixture
def file_limit() -> Iterator[int]:
    """Raise the limit of open files to the system's maximum, for the duration of the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def greeted(attack: Attack) -> "zmq.Socket[bytes]":
    """Return a socket that is connected, as docs/protocol.md says: after a deadline a REQ is closed and another opened.

    The broker may end a connection whose handshake waits too long behind ten thousand others, with its request.
    """
    for _ in range(TIMEOUT_MS // DEADLINE_MS):
        sock = attack.socket(zmq.REQ, attack.endpoint)
        sock.send(json.dumps({"op": "hello"}).encode())
        if sock.poll(DEADLINE_MS):
            assert "error" not in json.loads(sock.recv())
            return sock
        sock.close()
    raise AssertionError("no reply to hello")


def test_ten_thousand_idle_connections(file_limit: int, attack: Attack) -> None:
    if file_limit < CONNECTIONS + 1_000:
        pytest.skip(f"only {file_limit} files may be open here")
    with ExitStack() as exits:
        for number in range(CONNECTIONS):
            connection = exits.enter_context(socket.create_connection(attack.port(), timeout=60))
            # Most are silent peers in good standing; some have not even sent hello.
            if number % 10:
                connection.sendall(GREETING + ready_command())
            if number % UNACCEPTED == 1:
                assert connection.recv(1) == GREETING[:1], "those before it have been accepted"
        sock = greeted(attack)
        ask(sock, op="publish", topic=TOPIC, records=[{"value_text": "through the crowd"}])
    greeted(attack)
