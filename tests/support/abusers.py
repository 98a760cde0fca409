"""Programs that misuse a broker, each a process of its own: `python abusers.py NAME ENDPOINT SECONDS`.

Each function takes the public endpoint and the time at which to end (`time.monotonic`). Raw sockets throughout: our own
client would not behave like this.
"""

import json
import struct
import sys
import time
from collections.abc import Callable, Iterator

import msgspec
import zmq

from planaria.transport.batch import HEADER_BYTES, build, checksum
from planaria.transport.compression import CODEC_ZSTD

TOPIC = "ABUSED"
OUTSTANDING = 30_000
OTHER_HOST = "127.0.0.2"
BURST = 200
"""Requests sent between two polls for replies."""

Header = dict[str, object]
CONTEXT: "zmq.Context[zmq.Socket[bytes]]" = zmq.Context()
ABUSERS: dict[str, Callable[[str, float], None]] = {}


def abuser(function: Callable[[str, float], None]) -> Callable[[str, float], None]:
    ABUSERS[function.__name__] = function
    return function


def dealer(endpoint: str, host: str = "") -> "zmq.Socket[bytes]":
    socket = CONTEXT.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    if host:
        endpoint = endpoint.replace("tcp://", f"tcp://{host}:0;")
    socket.connect(endpoint)
    return socket


def flood(
    endpoint: str, until: float, requests: Iterator[list[bytes]], outstanding: int = OUTSTANDING
) -> None:
    """Send as many requests as the broker takes, from one connection, with a limited number unanswered."""
    socket = dealer(endpoint)
    waiting = 0
    while time.monotonic() < until:
        for _ in range(min(BURST, outstanding - waiting)):
            socket.send_multipart(next(requests), copy=False)
            waiting += 1
        if waiting >= outstanding:
            socket.poll(20)
        while socket.poll(0):
            socket.recv_multipart()
            waiting -= 1


def numbered(header: Header, *payload: bytes, as_json: bool = False) -> Iterator[list[bytes]]:
    encode = msgspec.json.encode if as_json else msgspec.msgpack.encode
    number = 0
    while True:
        number += 1
        yield [encode(header | {"id": number}), *payload]


def costly_batch(count: int = 50_000) -> bytes:
    """Return a batch of few bytes on the wire with many small records inside."""
    import zstandard

    record = b"\x94\xc0\xc0\x00\xc0"
    body = zstandard.compress(b"\xdd" + struct.pack(">I", count) + record * count)
    frame = build([(None, b"", 0, None)], first_timestamp_ms=1, max_timestamp_ms=1)
    described = frame[24:25] + bytes([CODEC_ZSTD]) + count.to_bytes(4, "big") + frame[30:HEADER_BYTES] + body
    head = frame[:12] + len(described).to_bytes(4, "big") + checksum(described).to_bytes(4, "big")
    return head + frame[20:24] + described


def plain_batch(size_bytes: int) -> bytes:
    return build([(None, b"x" * size_bytes, 0, None)], first_timestamp_ms=1, max_timestamp_ms=1)


def produce() -> Header:
    return {"op": "produce", "topic": TOPIC, "partition": 0, "acks": 1}


def fetch(offset: int, max_wait_ms: int = 0) -> Header:
    return {"op": "fetch", "topic": TOPIC, "partition": 0, "offset": offset, "max_wait_ms": max_wait_ms}


@abuser
def parked_fetches(endpoint: str, until: float) -> None:
    """Open many idle connections, each with the maximum of waiting fetches."""
    sockets = [dealer(endpoint) for _ in range(40)]
    parked = fetch(0, 30_000) | {"topic": "EMPTY"}
    requests = numbered(parked)
    for socket in sockets:
        for _ in range(1_500):
            socket.send_multipart(next(requests))
    while time.monotonic() < until:
        time.sleep(0.05)
        for socket in sockets:
            while socket.poll(0):
                socket.recv_multipart()


@abuser
def tiny_publishes(endpoint: str, until: float) -> None:
    request = {"op": "publish", "topic": TOPIC, "records": [{"value_text": "x"}]}
    flood(endpoint, until, numbered(request, as_json=True))


@abuser
def heartbeats(endpoint: str, until: float) -> None:
    request = {
        "op": "group_heartbeat", "group": "abused", "member_id": "m", "topics": [TOPIC], "max_wait_ms": 0,
    }  # fmt: skip
    flood(endpoint, until, numbered(request))


@abuser
def metadata_requests(endpoint: str, until: float) -> None:
    flood(endpoint, until, numbered({"op": "metadata"}))


@abuser
def big_batches(endpoint: str, until: float) -> None:
    flood(endpoint, until, numbered(produce(), plain_batch(900_000)), outstanding=60)


@abuser
def costly_batches(endpoint: str, until: float) -> None:
    flood(endpoint, until, numbered(produce(), costly_batch()), outstanding=1_000)


@abuser
def json_fetches(endpoint: str, until: float) -> None:
    filler = dealer(endpoint)
    many = build([(None, b"x" * 100, 0, None)] * 5_000, first_timestamp_ms=1, max_timestamp_ms=1)
    for message in (many, costly_batch()):
        filler.send_multipart([msgspec.msgpack.encode(produce() | {"id": 1}), message])
        filler.poll(5_000)
    flood(endpoint, until, numbered(fetch(0), as_json=True), outstanding=2_000)


@abuser
def slow_reader(endpoint: str, until: float) -> None:
    """Request much and read nothing."""
    filler = dealer(endpoint)
    filler.send_multipart([msgspec.msgpack.encode(produce() | {"id": 1}), plain_batch(900_000)])
    filler.poll(5_000)
    socket = dealer(endpoint)
    socket.setsockopt(zmq.RCVHWM, 1)
    requests = numbered(fetch(0))
    while time.monotonic() < until:
        for _ in range(20):
            socket.send_multipart(next(requests))
        time.sleep(0.01)


@abuser
def silent_connections(endpoint: str, until: float) -> None:
    """Open half-open connections: some send nothing at all, some half a greeting."""
    import socket

    host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
    held: list[socket.socket] = []
    while time.monotonic() < until:
        try:
            for _ in range(20):
                held.append(socket.create_connection((host, int(port)), timeout=1))
                if len(held) % 2:
                    held[-1].send(b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03")
        except OSError:
            time.sleep(0.1)
        if len(held) > 400:
            for each in held[:200]:
                each.close()
            del held[:200]
        time.sleep(0.01)


@abuser
def malformed(endpoint: str, until: float) -> None:
    def garbage() -> Iterator[list[bytes]]:
        while True:
            yield [b'{"op":' + b"[" * 2_000]
            yield [b"\x81\xa2op"]
            yield [b"{}"]
            yield [b"\xff" * 100]

    flood(endpoint, until, garbage(), outstanding=5_000)


@abuser
def connect_storm(endpoint: str, until: float) -> None:
    hello = msgspec.msgpack.encode({"op": "hello", "id": 1})
    while time.monotonic() < until:
        sockets = [dealer(endpoint) for _ in range(30)]
        for socket in sockets:
            socket.send(hello)
        sockets[-1].poll(200)
        for socket in sockets:
            socket.close()


@abuser
def endless_rebalances(endpoint: str, until: float) -> None:
    def joins() -> Iterator[list[bytes]]:
        number = 0
        while True:
            number += 1
            request = {
                "op": "group_heartbeat", "id": number, "group": "restless", "member_id": f"m{number % 200}",
                "topics": [TOPIC], "generation": 0,
            }  # fmt: skip
            yield [msgspec.msgpack.encode(request)]
            leave = {"op": "leave_group", "id": -number, "group": "restless", "member_id": f"m{number % 200}"}
            yield [msgspec.msgpack.encode(leave)]

    flood(endpoint, until, joins(), outstanding=2_000)


@abuser
def producer_ids(endpoint: str, until: float) -> None:
    flood(endpoint, until, numbered({"op": "init_producer"}), outstanding=2_000)


@abuser
def refused_names(endpoint: str, until: float) -> None:
    def names() -> Iterator[list[bytes]]:
        number = 0
        while True:
            number += 1
            create = {"op": "create_topic", "id": number, "topic": f"bad name {number}", "partitions": 1}
            yield [msgspec.msgpack.encode(create)]
            yield [json.dumps({"op": "metadata", "id": -number, "topics": [f"NONE{number}"]}).encode()]
            ask = fetch(0) | {"id": number, "topic": f"NEVER{number}"}
            yield [msgspec.msgpack.encode(ask)]

    flood(endpoint, until, names(), outstanding=2_000)


@abuser
def many_connections(endpoint: str, until: float) -> None:
    """Act as another host with many connections, each with a flood that would be modest on its own."""
    sockets = [dealer(endpoint, OTHER_HOST) for _ in range(100)]
    request = {"op": "publish", "topic": TOPIC, "records": [{"value_text": "x"}]}
    requests = numbered(request, as_json=True)
    waiting = [0] * len(sockets)
    while time.monotonic() < until:
        for index, socket in enumerate(sockets):
            while socket.poll(0):
                socket.recv_multipart()
                waiting[index] -= 1
            for _ in range(10):
                if waiting[index] < 100:
                    socket.send_multipart(next(requests))
                    waiting[index] += 1


def own_endpoint(endpoint: str, topic: str) -> str:
    """Return the endpoint of a topic's first partition, open to clients on the broker's machine."""
    socket = dealer(endpoint)
    socket.send(msgspec.msgpack.encode({"op": "hello", "id": 0}))
    socket.send(msgspec.msgpack.encode({"op": "metadata", "id": 1, "topics": [topic]}))
    while (reply := msgspec.msgpack.decode(socket.recv_multipart()[0]))["id"] != 1:
        pass
    return str(reply["topics"][0]["partitions"][0]["endpoint"])


@abuser
def direct_requests(endpoint: str, until: float) -> None:
    """Send requests to the socket of the partition that the victim uses."""
    ask = {"op": "list_offsets", "topic": "QUIET", "partition": 0, "at": "latest"}
    flood(own_endpoint(endpoint, "QUIET"), until, numbered(ask))


@abuser
def direct_parked_fetches(endpoint: str, until: float) -> None:
    parked = fetch(0, 30_000) | {"topic": "EMPTY"}
    flood(own_endpoint(endpoint, "EMPTY"), until, numbered(parked))


LOCAL_ABUSERS: dict[str, tuple[str, Callable[[str, float], None]]] = {}
"""Abusers of an actor's own socket, with the address of the actor."""


def local_abuser(
    address: str,
) -> Callable[[Callable[[str, float], None]], Callable[[str, float], None]]:
    def enter(function: Callable[[str, float], None]) -> Callable[[str, float], None]:
        LOCAL_ABUSERS[function.__name__] = address, function
        return function

    return enter


@local_abuser("coordinator/g")
def local_commits(endpoint: str, until: float) -> None:
    offsets = [{"topic": TOPIC, "partition": 0, "offset": 1}]
    flood(endpoint, until, numbered({"op": "commit_offsets", "group": "g", "offsets": offsets}))


@local_abuser("coordinator/g")
def local_resets(endpoint: str, until: float) -> None:
    """Send resets that wait for a topic."""
    offsets = [{"topic": "NONE", "partition": 0, "offset": 1}]
    flood(endpoint, until, numbered({"op": "reset_offsets", "group": "g", "offsets": offsets}))


@local_abuser("coordinator/g")
def local_descriptions(endpoint: str, until: float) -> None:
    flood(endpoint, until, numbered({"op": "describe_group", "group": "g"}, as_json=True))


@local_abuser("coordinator/s")
def local_acquires(endpoint: str, until: float) -> None:
    """Acquire as ever new members, which wait for records."""

    def acquires() -> Iterator[list[bytes]]:
        number = 0
        while True:
            number += 1
            request = {
                "op": "acquire", "id": number, "group": "s", "topics": ["EMPTY"], "member_id": f"m{number}",
                "max_wait_ms": 30_000,
            }  # fmt: skip
            yield [msgspec.msgpack.encode(request)]

    flood(endpoint, until, acquires())


@local_abuser("transactions/0")
def local_transactional_ids(endpoint: str, until: float) -> None:
    flood(endpoint, until, numbered({"op": "init_producer", "transactional_id": "abuser"}))


@local_abuser("scheduler/0")
def local_lists(endpoint: str, until: float) -> None:
    flood(endpoint, until, numbered({"op": "list_scheduled"}))


@local_abuser("supervisor")
def local_status_requests(endpoint: str, until: float) -> None:
    flood(endpoint, until, numbered({"op": "status"}))


if __name__ == "__main__":
    name, endpoint, seconds = sys.argv[1:]
    function = ABUSERS[name] if name in ABUSERS else LOCAL_ABUSERS[name][1]
    function(endpoint, time.monotonic() + float(seconds))
