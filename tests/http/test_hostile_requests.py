"""No bytes that a client sends end the HTTP process: whole requests, odd ones, and their mutations."""

import random

import pytest

from planaria.actors.http.effects import Arrived, Drained, Ended, Opened, Send
from planaria.actors.http.machine import HttpMachine

_POST = b"POST /topics/T/records HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def post(body: bytes) -> bytes:
    return _POST + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


REQUESTS = {
    "page": b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "target": b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "tunnel": b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "upgrade": b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nxxx",
    "old": b"GET /topics HTTP/1.0\r\nAuthorization: Basic YTpi\r\n\r\n",
    "stream": b"GET /topics/T/partitions/0/records?offset=0&max_bytes=99999999999999999999 HTTP/1.1\r\n"
    b"Host: [::1]:80\r\nAccept: text/event-stream\r\nLast-Event-ID: 5\r\n\r\n",
    "publish": post(b'{"records": [{"json": 1}]}'),
    "chunks": _POST + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"rec\r\n0\r\n\r\n',
    "waiting": _POST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    "nested": post(b"[" * 100_000),
    "nested value": post(b'{"records":[{"json":' + b"[" * 50_000 + b"]" * 50_000 + b"}]}"),
    "numbers": _POST.replace(b"topics/T/records", b"groups/g/heartbeat")
    + b'Content-Length: 60\r\n\r\n{"member_id":"m","owned":{"T":[99999999999999999999999999]}}',
    "resumed": b"GET /topics/T/partitions/0/records?offset=0 HTTP/1.1\r\nHost: localhost\r\n"
    b"Accept: text/event-stream\r\nLast-Event-ID: 99999999999999999999999999\r\n\r\n",
    "surrogates": post(b'{"records": [{"json": "\\ud800"}]}'),
}


def send(data: bytes, *, is_secured: bool = False) -> list[bytes]:
    """Return the answers to a connection that sends these bytes and ends."""
    machine = HttpMachine(
        node="",
        version="0",
        is_first=True,
        with_kafka_names=False,
        bridge_salt=b"salt",
        is_secured=is_secured,
    )
    answers = []
    machine.handle(Opened(1, "10.0.0.1"), 0)
    waiting = machine.handle(Arrived(1, data), 0)
    while waiting:
        sent = [effect.data for effect in waiting if isinstance(effect, Send)]
        answers += sent
        waiting = machine.handle(Drained(1), 0) if sent else []
    machine.handle(Ended(1), 1)
    return answers


@pytest.mark.parametrize("name", ["target", "nested", "nested value", "numbers", "resumed"])
def test_an_odd_request_is_refused(name: str) -> None:
    [answer] = send(REQUESTS[name])
    assert answer.startswith(b"HTTP/1.1 400")


def test_no_mutation_of_a_request_ends_the_process(seed: int) -> None:
    draw = random.Random(seed)
    for data in REQUESTS.values():
        for is_secured in (False, True):
            send(data, is_secured=is_secured)
    for _ in range(1_000):
        data = bytearray(draw.choice([*REQUESTS.values()])[:300])
        for _ in range(draw.randrange(1, 5)):
            at = draw.randrange(len(data))
            data[at : at + draw.choice((0, 1, 4))] = bytes(
                draw.randrange(256) for _ in range(draw.choice((0, 1, 3)))
            )
        send(bytes(data) * draw.randrange(1, 3), is_secured=draw.random() < 0.5)
