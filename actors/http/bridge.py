"""The HTTP bridge: topics and groups for programs that speak HTTP and JSON. Pure.

Each operation of `operations.py` becomes one request to the gateway, like that of any client: the gateway decides about
rights, quotas and limits, and this module about nothing. A request carries the session of its credentials: the first
request with a credential says `hello` with it.

    request   --no session--> hello --> call --> answer
              --HELLO_REQUIRED or UNAUTHENTICATED, with a session--> hello, once more
    stream    a fetch, its records, the next fetch once the system has taken them; until the client goes
    client gone, answer outstanding        the call is withdrawn
    many at once                           window.py: some wait for the answers of others

Owns the requests in progress and the credentials that have a session. Called by machine.py.
"""

import base64
import binascii
import ipaddress
from hashlib import sha256
from itertools import count

import msgspec
from msgspec import Struct, structs

from ...transport.addresses import Address, Kind
from ...transport.codec import check_numbers
from ...transport.machine import Answered, Call, CancelCall, Failed
from ...transport.protocol.data import Fetch, FetchReply, PublishReply
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.message import Reply, Request
from ...transport.protocol.session import Hello, HelloReply
from ...transport.request_context import KEY_PREFIX, RequestContext, refusal_of_client
from .connections import Connections, HttpRequest, HttpResponse
from .effects import Effect
from .operations import Operation, match
from .problems import problem, problem_of, shown
from .window import Window

CLIENT_ID = "http"
MAX_SESSIONS = 1_000
"""Credentials with a session; beyond this the oldest says `hello` again."""
MAX_STREAMS = 64
MARGIN_MS = 10_000
"""Time of a call beyond the wait that its client asked for."""
STREAM_WAIT_MS = 15_000
"""Time after which a stream without records has a comment, by which both ends know that the other lives."""
STREAM_BYTES = 256 * 1024
"""Records of a stream that are read at once: all streams together must not hold much."""
MAX_EVENT_ID = 2**53
EVENT_STREAM = "text/event-stream"


class BridgeCall(Struct, frozen=True):
    """The call of a client's request."""

    number: int


class HelloCall(Struct, frozen=True):
    """The greeting that precedes it."""

    number: int


class _Exchange(Struct):
    """A request of a client without an answer."""

    connection: int
    host: str
    request: Request
    reply_type: type[Reply]
    session: str
    hello: Hello | None
    """None without authentication."""
    is_stream: bool = False
    is_open: bool = False
    """The head of a stream's answer has been sent."""
    has_greeted_again: bool = False


class Bridge:
    def __init__(self, connections: Connections, salt: bytes, *, is_secured: bool) -> None:
        """`salt` makes the names of sessions, which are no credentials."""
        self._connections = connections
        self._salt = salt
        self._is_secured = is_secured
        self._numbers = count(1)
        self._exchanges: dict[int, _Exchange] = {}
        self._of_connection: dict[int, int] = {}
        self._sessions: dict[str, None] = {}
        self._resting: dict[int, int] = {}
        """Streams whose records are leaving, by connection."""
        self._window = Window()

    def on_request(self, request: HttpRequest, now: int) -> list[Effect]:
        found = match(request.method, request.path)
        refusal = self._of_a_browser(request)
        if refusal is not None:
            return self._respond(request.connection, refusal, now)
        assert found is not None, "the machine asks first"
        operation, names = found
        try:
            exchange = self._exchange_of(request, operation, names)
        except (msgspec.ValidationError, msgspec.DecodeError, ValueError, RecursionError) as error:
            return self._respond(request.connection, problem(400, str(error)), now)
        except ProtocolError as error:
            return self._respond(request.connection, problem_of(error.body), now)
        number = next(self._numbers)
        self._exchanges[number] = exchange
        self._of_connection[request.connection] = number
        if _waits(exchange.request) or self._window.enter(number, exchange.host, now):
            return self._begin(number, exchange)
        return []

    def _exchange_of(self, request: HttpRequest, operation: Operation, names: dict[str, str]) -> _Exchange:
        is_stream = operation.kind is Fetch and EVENT_STREAM in request.headers.get("accept", "")
        made = operation.request_of(request, names)
        resumed_offset = _resumed(request)
        refusal = refusal_of_client(made) or operation.refusal_of(made)
        if refusal is not None:
            raise ProtocolError(ErrorCode(refusal.code), refusal.message)
        if is_stream:
            assert isinstance(made, Fetch)
            if sum(each.is_stream for each in self._exchanges.values()) >= MAX_STREAMS:
                raise ProtocolError(ErrorCode.OVERLOADED, f"there are {MAX_STREAMS} streams already")
            made = structs.replace(
                made,
                offset=made.offset if resumed_offset is None else resumed_offset,
                max_wait_ms=STREAM_WAIT_MS,
                max_bytes=min(made.max_bytes, STREAM_BYTES),
            )
        check_numbers(made)
        hello = self._hello_of(request.headers.get("authorization", ""))
        session = ""
        if hello is not None:
            text = f"{hello.token}\0{hello.user}\0{hello.password}".encode("utf-8", "surrogatepass")
            session = f"http:{sha256(self._salt + text).hexdigest()}"
        host = self._connections.host_of(request.connection)
        return _Exchange(request.connection, host, made, operation.reply_type, session, hello, is_stream)

    def _of_a_browser(self, request: HttpRequest) -> HttpResponse | None:
        """Return the refusal of a request that a page of any web site could have a browser send here.

        A page may send other types without asking first; and it reaches an address of this machine under a name of its
        own, which it lets point here (DNS rebinding). Credentials stop both.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.method == "POST" and kind != "application/json":
            return problem(415, "content-type: must be application/json")
        host = request.headers.get("host", "")
        if not self._is_secured and not _is_address(host):
            return problem(421, "host: must be an address or localhost at a broker without authentication")
        return None

    def _hello_of(self, authorization: str) -> Hello | None:
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if not self._is_secured:
            if given:
                message = "authorization: this broker has no authentication and accepts no credentials"
                raise ProtocolError(ErrorCode.INVALID_REQUEST, message)
            return None
        if scheme.lower() == "bearer" and given:
            return msgspec.convert({"client_id": CLIENT_ID, "token": given}, Hello)
        if scheme.lower() == "basic" and given:
            user, is_there, password = _basic(given)
            if is_there and user:
                fields = {"client_id": CLIENT_ID, "user": user, "password": password}
                return msgspec.convert(fields, Hello)
        raise ProtocolError(
            ErrorCode.UNAUTHENTICATED,
            "a bearer token, or user and password by basic authentication, is required",
        )

    # Calls

    def _begin(self, number: int, exchange: _Exchange) -> list[Effect]:
        if exchange.hello is not None and exchange.session not in self._sessions:
            return [self._call(HelloCall(number), exchange.hello, HelloReply, exchange)]
        return [self._call(BridgeCall(number), exchange.request, exchange.reply_type, exchange, number)]

    @staticmethod
    def _call(
        key: BridgeCall | HelloCall,
        request: Request,
        reply_type: type[Reply],
        exchange: _Exchange,
        token: int | None = None,
    ) -> Call:
        wait_ms = getattr(request, "max_wait_ms", 0)
        principal = f"{KEY_PREFIX}{exchange.session}" if exchange.session else ""
        context = RequestContext(principal=principal, client_id=CLIENT_ID, address=exchange.host)
        if exchange.session:
            request = structs.replace(request, greeted=True)
        return Call(
            key,
            _GATEWAY,
            request,
            reply_type,
            timeout_ms=wait_ms + MARGIN_MS,
            token=token,
            context=context,
        )

    def handle(self, event: Answered | Failed, now: int) -> list[Effect]:
        key = event.key
        exchange = self._exchanges.get(key.number)
        if exchange is None:
            return []
        if isinstance(event, Failed):
            return self._on_failed(key, exchange, event.error, now)
        if isinstance(key, HelloCall):
            self._sessions[exchange.session] = None
            while len(self._sessions) > MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            return self._begin(key.number, exchange)
        if exchange.is_stream:
            return self._on_records(key.number, exchange, event.reply, now)
        begun = self._forget(key.number)
        return [*begun, *self._respond(exchange.connection, _answer(event.reply), now)]

    def _on_failed(
        self, key: BridgeCall | HelloCall, exchange: _Exchange, error: ErrorBody, now: int
    ) -> list[Effect]:
        is_lost = error.code in (ErrorCode.HELLO_REQUIRED, ErrorCode.UNAUTHENTICATED)
        if is_lost and exchange.session in self._sessions and not exchange.has_greeted_again:
            del self._sessions[exchange.session]
            exchange.has_greeted_again = True
            return self._begin(key.number, exchange)
        if exchange.is_open:
            if error.retriable:
                # The client connects again, and says where to go on.
                return self._end_stream(key.number, exchange, now)
            event = b"event: error\ndata: " + msgspec.json.encode(error) + b"\n\n"
            self._connections.stream(exchange.connection, event, now)
            return self._end_stream(key.number, exchange, now)
        begun = self._forget(key.number)
        return [*begun, *self._respond(exchange.connection, problem_of(error), now)]

    # Streams

    def _on_records(self, number: int, exchange: _Exchange, reply: FetchReply, now: int) -> list[Effect]:
        if not exchange.is_open:
            exchange.is_open = True
            self._connections.begin_stream(exchange.connection, EVENT_STREAM, now)
        request = exchange.request
        assert isinstance(request, Fetch)
        exchange.request = structs.replace(request, offset=reply.next_offset)
        events = b"".join(
            b"id: %d\ndata: %s\n\n" % (record.offset, msgspec.json.encode(record))
            for record in reply.records or ()
        )
        self._resting[exchange.connection] = number
        self._connections.stream(exchange.connection, events or b": no records\n\n", now)
        return self._taken()

    def on_drained(self, connection: int) -> list[Effect]:
        """Fetch further records: the system has taken the last ones."""
        number = self._resting.pop(connection, None)
        if number is None:
            return []
        return self._begin(number, self._exchanges[number])

    def _end_stream(self, number: int, exchange: _Exchange, now: int) -> list[Effect]:
        begun = self._forget(number)
        self._connections.end_stream(exchange.connection, now)
        return [*begun, *self._taken()]

    # Ends

    def on_gone(self, connection: int) -> list[Effect]:
        """Withdraw the call of a client that has gone."""
        number = self._of_connection.pop(connection, None)
        if number is None:
            return []
        return [CancelCall(number), *self._forget(number)]

    def on_tick(self, now: int) -> list[Effect]:
        """Begin requests that have waited for too long."""
        overdue = self._window.overdue(now)
        return [effect for number in overdue for effect in self._begin(number, self._exchanges[number])]

    def _forget(self, number: int) -> list[Effect]:
        """Forget a request, and begin the one that has waited for its place."""
        exchange = self._exchanges.pop(number)
        self._of_connection.pop(exchange.connection, None)
        self._resting.pop(exchange.connection, None)
        self._window.leave(number, exchange.host)
        following = self._window.next()
        return [] if following is None else self._begin(following, self._exchanges[following])

    def _respond(self, connection: int, response: HttpResponse, now: int) -> list[Effect]:
        self._connections.respond(connection, response, now)
        return self._taken()

    def _taken(self) -> list[Effect]:
        gathered, self._connections.effects = self._connections.effects, []
        return gathered


_GATEWAY = Address(Kind.GATEWAY, number=0)


def _waits(request: Request) -> bool:
    """Return True if the answer may wait for records or for members."""
    return bool(getattr(request, "max_wait_ms", 0))


def _answer(reply: Reply) -> HttpResponse:
    if isinstance(reply, PublishReply):
        errors = [record.error for record in reply.records if record.error is not None]
        if errors and len(errors) == len(reply.records) == 1:
            return problem_of(errors[0])
        if errors:
            return HttpResponse(207, shown(reply))
    return HttpResponse(200, shown(reply))


def _is_address(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name.lower() == "localhost"
    return True


def _basic(given: str) -> tuple[str, str, str]:
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("authorization: is not the base64 of USER:PASSWORD") from error


def _resumed(request: HttpRequest) -> int | None:
    """Return the offset after that of the last event that the client has seen; None if it has named none."""
    last = request.headers.get("last-event-id", "")
    if not last:
        return None
    if not (last.isascii() and last.isdigit() and len(last) < 19 and int(last) <= MAX_EVENT_ID):
        raise ValueError("Last-Event-ID: is not an offset")
    return int(last) + 1
