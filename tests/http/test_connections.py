"""HTTP connections: requests in any pieces, limits, deadlines, and displaced clients."""

import pytest

from planaria.actors.http.connections import (
    HEAD_MS,
    IDLE_MS,
    MAX_AHEAD_BYTES,
    MAX_BODY_BYTES,
    MAX_CONNECTIONS,
    MAX_HEAD_BYTES,
    MAX_UNSENT_BYTES,
    REQUEST_WORK,
    SEND_MS,
    WORK_PER_SECOND,
    Connections,
    HttpRequest,
    HttpResponse,
)
from planaria.actors.http.effects import Close, Rest, Send
from planaria.transport.token_bucket import BURST_S

GET = b"GET /metrics?a=1 HTTP/1.1\r\nHost: x\r\n\r\n"
OK = HttpResponse(200, b"fine", "text/plain")


class Table:
    def __init__(self) -> None:
        self.connections = Connections()
        self.now = 0

    def sent(self, number: int) -> bytes:
        effects, self.connections.effects = self.connections.effects, []
        return b"".join(each.data for each in effects if isinstance(each, Send) and each.connection == number)

    def closed(self) -> list[int]:
        effects, self.connections.effects = self.connections.effects, []
        return [each.connection for each in effects if isinstance(each, Close)]

    def open(self, number: int = 1) -> None:
        self.connections.on_opened(number, "10.0.0.1", self.now)

    def send(self, data: bytes, number: int = 1) -> HttpRequest | None:
        return self.connections.on_arrived(number, data, self.now)

    def tick(self, by_ms: int) -> list[int]:
        self.now += by_ms
        self.connections.on_tick(self.now)
        return self.closed()


@pytest.fixture
def table() -> Table:
    table = Table()
    table.open()
    return table


def test_a_request_arrives_in_any_pieces_and_another_follows_on_the_connection(table: Table) -> None:
    found = [table.send(GET[at : at + 1]) for at in range(len(GET))]
    assert found[:-1] == [None] * (len(GET) - 1)
    assert found[-1] is not None
    assert (found[-1].method, found[-1].path, found[-1].query) == ("GET", "/metrics", {"a": "1"})
    assert table.send(GET) is None, "the answer comes first"
    table.connections.respond(1, OK, table.now)
    answer = table.sent(1)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\nfine")
    assert table.connections.on_drained(1, table.now) is not None


def test_an_answer_to_head_has_the_length_and_no_body(table: Table) -> None:
    assert table.send(GET.replace(b"GET", b"HEAD")) is not None
    table.connections.respond(1, OK, table.now)
    answer = table.sent(1)
    assert b"content-length: 4\r\n" in answer.lower()
    assert answer.endswith(b"\r\n\r\n")
    assert table.connections.on_drained(1, table.now) is None
    assert table.closed() == []


def test_a_client_of_http_1_0_is_answered_and_closed(table: Table) -> None:
    assert table.send(b"GET / HTTP/1.0\r\n\r\n") is not None
    table.connections.respond(1, OK, table.now)
    table.connections.on_drained(1, table.now)
    assert table.closed() == [1]


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"x" * MAX_HEAD_BYTES,
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: nine\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + b"x" * (MAX_BODY_BYTES + 1),
    ],
    ids=["tls", "endless head", "wrong length", "wrong chunk", "large body"],
)
def test_bytes_that_are_no_request_are_refused_and_closed(table: Table, data: bytes) -> None:
    assert table.send(data) is None
    assert table.sent(1).startswith(b"HTTP/1.1 4")
    table.connections.on_drained(1, table.now)
    assert table.closed() == [1]
    assert len(table.connections) == 0


def test_no_client_keeps_a_connection_by_being_slow(table: Table) -> None:
    table.send(GET[:10])
    assert table.tick(HEAD_MS - 1) == []
    table.send(GET[10:12])
    assert table.tick(1) == [1], "bytes do not extend the time for a request"
    table.open(2)
    table.send(GET, 2)
    table.connections.respond(2, OK, table.now)
    assert table.tick(SEND_MS) == [2]
    table.open(3)
    table.send(GET, 3)
    table.connections.respond(3, OK, table.now)
    table.connections.on_drained(3, table.now)
    assert table.tick(IDLE_MS - 1) == []
    assert table.tick(1) == [3]


def test_a_newcomer_displaces_the_slowest_reader_and_never_one_that_waits_for_its_answer() -> None:
    table = Table()
    for number in range(MAX_CONNECTIONS):
        table.open(number)
        table.now += 10
    assert table.closed() == []
    table.send(GET, 0)
    table.open(1_000)
    assert table.closed() == [1]
    for number in [*range(2, MAX_CONNECTIONS), 1_000]:
        table.send(GET, number)
    table.open(1_001)
    assert table.closed() == [1_001]
    assert len(table.connections) == MAX_CONNECTIONS


def test_work_is_done_at_a_limited_rate() -> None:
    table = Table()
    for number in range(WORK_PER_SECOND):
        table.open(number)
    assert table.connections.effects.count(Rest(True)) == 1
    table.connections.on_rest_timer()
    assert table.connections.effects[-1] == Rest(False)
    table.now += 1_000
    for _ in range(WORK_PER_SECOND):
        table.send(b"G", WORK_PER_SECOND - 1)
    assert table.connections.effects[-2] == Rest(True)


def test_requests_that_the_broker_answers_are_no_work_of_the_bridge() -> None:
    table = Table()
    table.open()
    for _ in range(2 * WORK_PER_SECOND):
        assert table.send(GET) is not None
        table.connections.pass_on(1)
        table.connections.respond(1, OK, table.now)
        table.connections.on_drained(1, table.now)
    assert Rest(True) not in table.connections.effects


def test_each_of_many_requests_in_one_piece_is_work() -> None:
    table = Table()
    table.open()
    answered = 0
    found = table.send(100 * GET)
    while found is not None and Rest(True) not in table.connections.effects:
        answered += 1
        table.connections.respond(1, OK, table.now)
        found = table.connections.on_drained(1, table.now)
    assert answered <= WORK_PER_SECOND * BURST_S / REQUEST_WORK + 1


def test_small_pieces_of_a_request_that_the_broker_answers_stay_work() -> None:
    table = Table()
    table.open()
    for each in 20 * GET:
        table.send(bytes([each]))
        if table.connections.is_waiting(1):
            table.connections.pass_on(1)
            table.connections.respond(1, OK, table.now)
            table.connections.on_drained(1, table.now)
    assert Rest(True) in table.connections.effects


def test_memory_is_bounded_whatever_clients_send_and_do_not_read(table: Table) -> None:
    table.send(GET)
    for _ in range(MAX_AHEAD_BYTES // len(GET) + 2):
        table.send(GET)
    assert table.closed() == [1]
    large = HttpResponse(200, b"x" * (MAX_UNSENT_BYTES // 2), "text/plain")
    answers = []
    for number in (2, 3, 4):
        table.open(number)
        table.send(GET, number)
        table.connections.respond(number, large, table.now)
        answers.append(table.sent(number)[:12])
    assert answers[0] == b"HTTP/1.1 200"
    assert answers[2] == b"HTTP/1.1 503"
    table.connections.on_ended(2)
    table.open(5)
    table.send(GET, 5)
    table.connections.respond(5, large, table.now)
    assert table.sent(5)[:12] == b"HTTP/1.1 200"
