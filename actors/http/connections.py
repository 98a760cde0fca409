"""The connections of HTTP clients: requests out of bytes, bytes out of answers, and limits for both. Pure.

h11 is the protocol (RFC 9112) without IO; this module adds the limits of a server that anyone may connect to:

    state      means                                   closed after, unless it moves on
    reading    a request is awaited, or arrives        HEAD_MS, or IDLE_MS once it has sent one
    asked      its answer is awaited                   (the machine answers within its own time)
    sending    the answer, or a part of it, leaves     SEND_MS

    connections   MAX_CONNECTIONS; a newcomer displaces the one that has been reading for longest; if none is,
                  the newcomer is closed
    work          WORK_PER_SECOND: 1 for a new connection, 1 for a piece of a request, REQUEST_WORK for a request that
                  is answered here. Beyond it nothing is accepted and read for REST_MS, so the system gathers data
                  that arrives in small pieces. A request that was passed on to the broker is work of the broker, which
                  has limits of its own.
    a request     MAX_HEAD_BYTES, MAX_BODY_BYTES; while it is asked, MAX_AHEAD_BYTES of later ones
    answers       MAX_UNSENT_BYTES of all together; beyond it 503

Owns no socket. Called by machine.py.
"""

from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
from msgspec import Struct

from ...transport.machine import CancelTimer, SetTimer
from ...transport.token_bucket import TokenBucket
from .effects import Close, Effect, Rest, Send

MAX_CONNECTIONS = 256
WORK_PER_SECOND = 1000
"""Some 10 % of a processor. A newcomer waits for BACKLOG (process.py) others at most, so for half a second."""
REQUEST_WORK = 4
USUAL_PIECES = 3
"""Those of a request without a large body: its connection, its head and its body."""
USUAL_PIECE_BYTES = 16 * 1024
REST_MS = 20
MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 1024 * 1024
MAX_AHEAD_BYTES = 64 * 1024
MAX_UNSENT_BYTES = 64 * 1024 * 1024
HEAD_MS = 5_000
IDLE_MS = 75_000
"""Longer than the interval of most scrapes, which then use one connection."""
SEND_MS = 30_000
TICK_MS = 500
_SERVER = b"planaria"


class HttpRequest(Struct, frozen=True):
    connection: int
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """By name in lower case."""
    body: bytes = b""


class HttpResponse(Struct, frozen=True):
    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class TickTimer(Struct, frozen=True):
    """The next check of deadlines."""


class RestTimer(Struct, frozen=True):
    """The end of a rest."""


class _Connection(Struct):
    protocol: h11.Connection
    host: str
    deadline: int
    state: Literal["reading", "asked", "sending"] = "reading"
    request: HttpRequest | None = None
    """The request whose head has arrived."""
    body: bytearray = bytearray()
    ahead_bytes: int = 0
    unsent_bytes: int = 0
    is_stream: bool = False
    """Its answer is made of parts, between which it is asked."""
    charged: int = 1
    """Work since the last request that was passed on; the first is the connection itself."""
    has_ended: bool = False
    """No further request is read: it is closed when the answer has left."""


class Connections:
    def __init__(self) -> None:
        self._all: dict[int, _Connection] = {}
        """In the order in which they began to read."""
        self._unsent_bytes = 0
        self._work: TokenBucket | None = None
        self._is_resting = False
        self._is_ticking = False
        self.effects: list[Effect] = []
        """Effects of the event that is being handled; taken by the machine."""
        self.gone: list[int] = []
        """Connections that were forgotten in it, for whatever reason."""

    def __len__(self) -> int:
        return len(self._all)

    def host_of(self, number: int) -> str:
        """Return the address of the client of a connection that is open."""
        return self._all[number].host

    # Events

    def on_opened(self, number: int, host: str, now: int) -> None:
        self._charge(now)
        if len(self._all) >= MAX_CONNECTIONS and not self._displace():
            self.effects.append(Close(number))
            return
        protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._all[number] = _Connection(protocol, host, now + HEAD_MS, body=bytearray())
        if not self._is_ticking:
            self._is_ticking = True
            self.effects.append(SetTimer(TickTimer(), now + TICK_MS))

    def on_rest_timer(self) -> None:
        self._is_resting = False
        self.effects.append(Rest(False))

    def on_arrived(self, number: int, data: bytes, now: int) -> HttpRequest | None:
        """Return the request that is complete now."""
        link = self._all.get(number)
        self._charge(now, link)
        if link is None:
            return None
        if link.state != "reading":
            link.ahead_bytes += len(data)
            if link.ahead_bytes > MAX_AHEAD_BYTES:
                self._close(number)
                return None
        try:
            link.protocol.receive_data(data)
        except h11.RemoteProtocolError:
            self._close(number)
            return None
        return self._next(number, link, now) if link.state == "reading" else None

    def on_ended(self, number: int) -> None:
        self._forget(number)

    def on_drained(self, number: int, now: int) -> HttpRequest | None:
        """Continue after an answer: close, or return a request that had arrived meanwhile."""
        link = self._all.get(number)
        if link is None or link.state != "sending":
            return None
        self._unsent_bytes -= link.unsent_bytes
        link.unsent_bytes = 0
        if link.has_ended:
            self._close(number)
            return None
        if link.is_stream:
            link.state = "asked"
            return None
        link.protocol.start_next_cycle()
        link.state, link.request, link.ahead_bytes, link.body = "reading", None, 0, bytearray()
        link.deadline = now + IDLE_MS
        del self._all[number]
        self._all[number] = link
        return self._next(number, link, now)

    def on_tick(self, now: int) -> None:
        for number in [number for number, link in self._all.items() if self._is_late(link, now)]:
            self._close(number)
        self._is_ticking = bool(self._all)
        if self._is_ticking:
            self.effects.append(SetTimer(TickTimer(), now + TICK_MS))

    def stop(self) -> None:
        self.effects += [CancelTimer(TickTimer()), *(Close(number) for number in self._all)]
        self._all = {}

    # Answers

    def is_waiting(self, number: int) -> bool:
        """Return True if the client still waits for an answer."""
        link = self._all.get(number)
        return link is not None and link.state == "asked"

    def respond(self, number: int, response: HttpResponse, now: int) -> None:
        """Answer the request of a connection; nothing happens if it is gone."""
        link = self._all.get(number)
        if link is None or link.state == "sending":
            return
        if self._unsent_bytes + len(response.body) > MAX_UNSENT_BYTES:
            response = HttpResponse(503, b"too many answers have not been read\n", "text/plain")
        data = self._encoded(link, response)
        link.state, link.deadline = "sending", now + SEND_MS
        link.unsent_bytes = len(data)
        self._unsent_bytes += len(data)
        self.effects.append(Send(number, data))

    def begin_stream(self, number: int, content_type: str, now: int) -> None:
        """Begin an answer of parts."""
        link = self._all.get(number)
        if link is None:
            return
        link.is_stream = True
        headers = [
            (b"server", _SERVER),
            (b"content-type", content_type.encode()),
            (b"cache-control", b"no-store"),
        ]
        self._send_part(number, link, h11.Response(status_code=200, headers=headers), now)

    def stream(self, number: int, data: bytes, now: int) -> None:
        """Send a part; the system has taken it when the connection is drained."""
        link = self._all.get(number)
        if link is not None:
            self._send_part(number, link, h11.Data(data=data), now)

    def end_stream(self, number: int, now: int) -> None:
        """End the answer, and close."""
        link = self._all.get(number)
        if link is not None:
            link.has_ended = True
            self._send_part(number, link, h11.EndOfMessage(), now)

    def _send_part(self, number: int, link: _Connection, event: h11.Event, now: int) -> None:
        data = link.protocol.send(event) or b""
        link.state, link.deadline = "sending", now + SEND_MS
        link.unsent_bytes += len(data)
        self._unsent_bytes += len(data)
        self.effects.append(Send(number, data))

    def _encoded(self, link: _Connection, response: HttpResponse) -> bytes:
        protocol = link.protocol
        headers = [
            (b"server", _SERVER),
            (b"content-type", response.content_type.encode()),
            (b"content-length", str(len(response.body)).encode()),
            *((name.encode(), value.encode("latin-1", "replace")) for name, value in response.headers),
        ]
        if link.has_ended:
            headers.append((b"connection", b"close"))
        head = protocol.send(h11.Response(status_code=response.status, headers=headers)) or b""
        is_head = link.request is not None and link.request.method == "HEAD"
        body = b"" if is_head else protocol.send(h11.Data(data=response.body)) or b""
        tail = b"" if is_head else protocol.send(h11.EndOfMessage()) or b""
        if is_head:
            protocol.send(h11.EndOfMessage())
        link.has_ended = link.has_ended or protocol.our_state is h11.MUST_CLOSE
        return head + body + tail

    # Parts

    def pass_on(self, number: int) -> None:
        """Take back the charges for a request that the broker answers, unless its pieces are unusually small."""
        link = self._all[number]
        assert self._work is not None
        self._work.charge(
            -min(link.charged, REQUEST_WORK + USUAL_PIECES + len(link.body) // USUAL_PIECE_BYTES)
        )
        link.charged = 0

    def _charge(self, now: int, link: _Connection | None = None, work: int = 1) -> None:
        """Charge work, and rest if it was too much."""
        if self._work is None:
            self._work = TokenBucket(WORK_PER_SECOND, now)
        self._work.charge(work)
        if link is not None:
            link.charged += work
        wait_ms = self._work.wait_ms(now)
        if wait_ms and not self._is_resting:
            self._is_resting = True
            self.effects += [Rest(True), SetTimer(RestTimer(), now + max(wait_ms, REST_MS))]

    def _next(self, number: int, link: _Connection, now: int) -> HttpRequest | None:
        while True:
            try:
                event = link.protocol.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(number, link, error.error_status_hint, str(error), now)
                return None
            if event is h11.NEED_DATA:
                if link.protocol.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    self.effects.append(Send(number, link.protocol.send(go_on) or b""))
                return None
            if isinstance(event, h11.Request):
                link.deadline = now + HEAD_MS
                try:
                    link.request = _request(number, event)
                except ValueError as error:
                    self._refuse(number, link, 400, f"the target is not a URL: {error}", now)
                    return None
            elif isinstance(event, h11.Data):
                link.body += event.data
                if len(link.body) > MAX_BODY_BYTES:
                    self._refuse(number, link, 413, f"a body has at most {MAX_BODY_BYTES} bytes", now)
                    return None
            elif isinstance(event, h11.EndOfMessage):
                assert link.request is not None
                found = link.request
                link.state = "asked"
                self._charge(now, link, REQUEST_WORK)
                return HttpRequest(
                    number, found.method, found.path, found.query, found.headers, bytes(link.body)
                )
            else:
                self._close(number)
                return None

    def _refuse(self, number: int, link: _Connection, status: int, reason: str, now: int) -> None:
        """Answer a request that cannot be read, and close."""
        link.has_ended = True
        if link.protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self._close(number)
            return
        self.respond(number, HttpResponse(status, f"{reason}\n".encode(), "text/plain"), now)

    def _displace(self) -> bool:
        """Close the connection that has been reading for longest; return False if none is."""
        for number, link in self._all.items():
            if link.state == "reading":
                self._close(number)
                return True
        return False

    @staticmethod
    def _is_late(link: _Connection, now: int) -> bool:
        return link.state != "asked" and now >= link.deadline

    def _close(self, number: int) -> None:
        self._forget(number)
        self.effects.append(Close(number))

    def _forget(self, number: int) -> None:
        link = self._all.pop(number, None)
        if link is not None:
            self._unsent_bytes -= link.unsent_bytes
            self.gone.append(number)


def _request(number: int, event: h11.Request) -> HttpRequest:
    target = urlsplit(event.target.decode("ascii", "replace"))
    return HttpRequest(
        number,
        event.method.decode("ascii", "replace"),
        unquote(target.path),
        dict(parse_qsl(target.query, keep_blank_values=True)),
        {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers},
    )
