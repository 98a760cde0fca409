"""The client's way to a gateway: tries the nodes' endpoints in turn, looks names up, says hello. Pure.

    state        meaning                                       left by
    resolving    a host's name is being looked up              addresses -> greeting; none -> the next endpoint
    pausing      no endpoint led to a broker                   time -> the first endpoint again
    greeting     `hello` is sent, nothing else                 its reply -> open; refused or silent -> greeting at the
                                                               next address, then the next endpoint; pausing after the
                                                               last one
    open         requests go to the gateway                    connection lost, or the gateway stops (it refuses a
                                                               `metadata` poll) -> the next endpoint, at once;
                                                               a topic follows another site -> an endpoint of that
                                                               site (`OtherSite`)

The endpoints are those of the program, and those of the nodes that the broker has named. They are tried in this order,
beginning after the one that was lost, which is the last of its round. A name is looked up again for each attempt, so a
broker that has moved is found. A host given as an address is not looked up; if it is the only endpoint, ZeroMQ itself
dials it again while nothing listens there. Called by the broker's directory alone.

A broker whose mechanism (NULL or CURVE) is another than ours closes the connection as soon as it has read our greeting,
often before its own is sent: the side that reads first knows the reason, the other only that the connection was closed.
So after such an end the broker's greeting is read on a connection that waits for it, which decides.
"""

from collections import deque
from itertools import count

from ..addresses import GATEWAY
from ..calls.connections import Connection, Connections
from ..calls.directory import Ask, Lost, Refused
from ..calls.events import Connect, HandshakeFault, ReadGreeting, Resolve, Resolved
from ..calls.retry import Jitter, RetryPolicy
from ..endpoints import is_tls, numeric_endpoint
from ..machine import Call, CancelTimer, Effect, SetTimer
from ..protocol.errors import ErrorBody, ErrorCode
from ..protocol.session import Hello, HelloReply, Node
from ..security.keys import CURVE, NULL

HELLO_TIMEOUT_MS = 5_000
"""A connection that does not reply to a greeting within this time is replaced."""

SILENCE_MS = 4_000
"""A connection is silent when it has carried no byte for this long, although it pings."""
SILENT_LOOKS = 3
"""Number of consecutive silent checks after which a connection is replaced. One is not enough: after the
process itself was suspended, its pings have paused as well."""

STAY_MS = 2_000
"""A site that does not answer at all costs as long as a greeting: so a promotion that has begun is waited for."""
LONGEST_STAY_MS = 30_000

HELLO = "hello"
DIAL = "dial"


class OtherSite:
    """When a client leaves a broker whose topics follow those of another site.

    A client with the endpoints of two sites may be connected to the one that has a copy: before its promotion, or after
    the other one was promoted in its place. Its producers are refused there, retriable. They may have to wait for the
    promotion here; or the other site takes them. So the client looks there, from time to time, and stays where it is not
    refused.

        refused    nothing for STAY_MS, then a look at another site; the next one after twice the time, up to
                   LONGEST_STAY_MS
        forgotten  once there was no refusal for LONGEST_STAY_MS
    """

    def __init__(self) -> None:
        self._look_at: int | None = None
        self._stay_ms = STAY_MS
        self._refused_at = 0

    def is_due(self, now: int) -> bool:
        """Return True if a refusal because of a mirror is a reason to look at another site now."""
        if self._look_at is None or now - self._refused_at > LONGEST_STAY_MS:
            self._look_at, self._stay_ms = now + STAY_MS, STAY_MS
        self._refused_at = now
        if now < self._look_at:
            return False
        self._stay_ms = min(LONGEST_STAY_MS, 2 * self._stay_ms)
        self._look_at = now + self._stay_ms
        return True


class GatewayLink:
    def __init__(
        self,
        endpoints: tuple[str, ...],
        connections: Connections,
        *,
        hello: Hello,
        is_encrypted: bool,
        retry: RetryPolicy,
        jitter: Jitter,
    ) -> None:
        self.connection: Connection | None = None
        """None during the lookup of a name, and between two rounds of attempts."""
        self.session: HelloReply | None = None
        """None while only the greeting may be sent."""
        self.greeting = 0
        """Number of the greeting in flight, 0 if there is none."""
        self.lookup: str | None = None
        """The endpoint whose host is being looked up."""
        self.refusal: ErrorBody | None = None
        """The answer to the last greeting on this connection, if it was a refusal: no request would be served."""
        self._given = endpoints
        self._endpoints = endpoints
        """Those given, then those of the nodes that the broker has named."""
        self._hello_request = hello
        self._is_encrypted = is_encrypted
        self._connections = connections
        self._retry = retry
        self._jitter = jitter
        self.endpoint = endpoints[-1]
        """The endpoint tried last."""
        self._round: deque[str] = deque()
        """Endpoints not yet tried in this round."""
        self._named: frozenset[str] = frozenset()
        """Those of the nodes that the broker has named."""
        self._other_site = OtherSite()
        self._is_leaving = False
        """True if the next round begins with endpoints of other brokers."""
        self._addresses: deque[str] = deque()
        """Addresses of the endpoint not yet tried."""
        self._rounds = count(1)
        self._greetings = count(1)
        self._details: dict[str, str] = {}
        """The result of the last lookup or handshake, by endpoint."""
        self._silent_looks = 0
        self._has_failed = False
        """True if the handshake of the present connection failed."""
        self._greeted_at = 0
        self._read: str | None = None
        """The endpoint whose broker's greeting is being read."""

    @property
    def is_dialled_by_zeromq(self) -> bool:
        """Return True if ZeroMQ retries a refused connection itself, because there is no other address."""
        return len(self._endpoints) == 1 and numeric_endpoint(self.endpoint) is not None

    @property
    def absence(self) -> str:
        """The reason why no request can be sent, as a phrase for messages."""
        tried = [f"{endpoint}{self._details.get(endpoint, '')}" for endpoint in self._endpoints]
        return f"no broker answers at {' or '.join(tried)}"

    def dial(self, now: int) -> list[Effect]:
        """Begin, or begin again after a lost connection, or go on after an attempt that failed."""
        has_failed, self._has_failed = self._has_failed, False
        if self.connection is None or self.session is not None or self.is_dialled_by_zeromq:
            if has_failed:  # it would fail again at once
                self._forget()
                return [self._pause(now)]
            self._begin_round()
        return self._try_next(now)

    def on_lost(self, now: int) -> list[Effect]:
        """Dial again after a connection that has ended: with a pause if it ended before a session, as at a peer of
        another protocol."""
        is_silent = now - self._greeted_at >= HELLO_TIMEOUT_MS
        self._has_failed = self._has_failed or (self.session is None and not is_silent)
        return self.dial(now)

    def on_time_to_dial(self, now: int) -> list[Effect]:
        self._begin_round()
        return self._try_next(now)

    def on_resolved(self, event: Resolved, now: int) -> list[Effect]:
        self.lookup = None
        addresses = "" if is_tls(self.endpoint) else f" ({', '.join(event.endpoints)})"
        self._details[self.endpoint] = addresses if event.endpoints else f": {event.fault}"
        self._addresses.extend(event.endpoints)
        return self._try_next(now)

    def on_nodes(self, nodes: list[Node]) -> None:
        """Add the endpoints of the nodes that the broker has named to those of the program."""
        named = [node.endpoint for node in nodes]
        self._named = frozenset(named)
        self._endpoints = tuple(dict.fromkeys((*self._given, *named)))

    def on_handshake_failed(self, fault: HandshakeFault) -> list[Effect]:
        """Refuse all calls, if another attempt would change nothing."""
        self._has_failed = self.session is None
        if fault == "refused":
            return [_refused(self.endpoint, "refuses this key: it is not known, or disabled or expired")]
        if fault == "mechanism":
            return [self._other_mechanism(self.endpoint)]
        # Also a proxy without a broker behind it does this, so it may pass.
        advice = "is server_key the broker's?" if self._is_encrypted else "does it need credentials?"
        self._details[self.endpoint] = f": it closes the connection during the handshake; {advice}"
        if self.connection is None or self.session is not None or self._read is not None:
            return []
        self._read = self.endpoint
        return [ReadGreeting(self.connection.endpoint)]

    def on_greeting_read(self, mechanism: str) -> list[Effect]:
        """Refuse all calls if the broker's mechanism is another than ours; none is known without a greeting."""
        endpoint, self._read = self._read, None
        assert endpoint is not None
        ours = CURVE if self._is_encrypted else NULL
        if self.session is not None or mechanism in ("", ours):
            return []
        return [self._other_mechanism(endpoint)]

    def _other_mechanism(self, endpoint: str) -> Refused:
        if self._is_encrypted:
            return _refused(endpoint, "has no authentication: connect without credentials")
        return _refused(endpoint, "has authentication: a key, a token or a password is needed")

    @property
    def others(self) -> list[str]:
        """The given endpoints that, as far as known, are not of the present broker or cluster."""
        return [each for each in self._given if each != self.endpoint and each not in self._named]

    @property
    def has_alternatives(self) -> bool:
        """Return True if there is another endpoint to try, of whichever broker."""
        return len(self._endpoints) > 1

    def leaves(self, now: int) -> bool:
        """Return True if a refusal, because a topic follows another site, is a reason to try that one now.

        The next round, once the connection is lost, begins with the endpoints of others.
        """
        if self.session is None or not self.others or not self._other_site.is_due(now):
            return False
        self._is_leaving = True
        return True

    def is_dead(self, silence_ms: int) -> bool:
        """Return True if the connection, checked about every second, no longer carries any bytes."""
        self._silent_looks = self._silent_looks + 1 if silence_ms >= SILENCE_MS else 0
        return self._silent_looks >= SILENT_LOOKS

    def greet_again(self) -> list[Effect]:
        """Send the greeting again, unless it is in flight: the gateway does not know this connection."""
        if self.connection is None or self.greeting:
            return []
        return [self._hello(self.connection)]

    def on_hello_failed(self, error: ErrorBody) -> list[Effect]:
        """Refuse all calls, from now on until a greeting is accepted, unless the reason may pass."""
        self.greeting = 0
        if error.retriable:
            return []  # the timer of the greeting is running and makes a new connection
        self.refusal = error
        return [Refused(error)]

    def greet_after_refusal(self) -> list[Effect]:
        """Try again on a connection that was open, now and then: its credentials may be valid again."""
        return [] if self.refusal is None or self.session is None else self.greet_again()

    def on_hello(self, reply: HelloReply) -> list[Effect]:
        self.session = reply
        self.refusal = None
        self._details.pop(self.endpoint, None)
        self.greeting = 0
        self._rounds = count(1)
        self._addresses.clear()
        return [CancelTimer(HELLO)]

    def _begin_round(self) -> None:
        self._addresses.clear()
        self._round = deque(self._endpoints)
        if self.endpoint in self._round:
            self._round.rotate(-1 - self._round.index(self.endpoint))
        if self._is_leaving:
            others = self.others
            self._round = deque(sorted(self._round, key=lambda each: each not in others))
            self._is_leaving = False

    def _try_next(self, now: int) -> list[Effect]:
        self._forget()
        if self._addresses:
            return self._greet(self._addresses.popleft(), now)
        if not self._round:
            return [self._pause(now)]
        self.endpoint = self._round.popleft()
        fixed = numeric_endpoint(self.endpoint)
        if fixed is not None:
            return self._greet(fixed, now)
        self.lookup = self.endpoint
        return [Resolve(self.endpoint)]

    def _pause(self, now: int) -> SetTimer:
        return SetTimer(DIAL, now + self._retry.delay_ms(next(self._rounds), self._jitter))

    def _forget(self) -> None:
        self.connection = self.session = self.refusal = None
        self.greeting = self._silent_looks = 0

    def _greet(self, address: str, now: int) -> list[Effect]:
        before = self._connections.at(address)
        lost = (
            [] if before is None else [Lost(before, ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, "replaced", True))]
        )
        self.connection = connection = self._connections.new(address)
        self._greeted_at = now
        return [
            *lost,
            Connect(connection.route, connection.endpoint),
            self._hello(connection),
            SetTimer(HELLO, now + HELLO_TIMEOUT_MS),
        ]

    def _hello(self, connection: Connection) -> Ask:
        self.greeting = next(self._greetings)
        key, timeout_ms = (HELLO, self.greeting), 2 * HELLO_TIMEOUT_MS
        return Ask(connection, Call(key, GATEWAY, self._hello_request, HelloReply, timeout_ms=timeout_ms))


def _refused(endpoint: str, reason: str) -> Refused:
    return Refused(ErrorBody(ErrorCode.UNAUTHENTICATED, f"the broker at {endpoint} {reason}"))
