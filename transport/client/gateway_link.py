"""The client's way to the public endpoint: looks the host's name up, tries its addresses in turn, says hello. Pure.

    state        meaning                                       left by
    resolving    the host's name is being looked up            addresses -> greeting; none -> pausing
    pausing      no address led to a broker                    time -> resolving
    greeting     `hello` is sent, nothing else                its reply -> open; refused or silent -> greeting at the
                                                               next address, pausing after the last one
    open         requests go to the gateway                    connection lost -> resolving

A name is looked up again for each reconnection, so a broker that has moved is found. A host given as an address is not
looked up, and while nothing listens there ZeroMQ itself dials it again. Called by the broker's directory alone.
"""

from itertools import count

from ..addresses import GATEWAY
from ..calls.connections import Connection, Connections
from ..calls.directory import Ask
from ..calls.events import Connect, Resolve, Resolved
from ..calls.retry import Jitter, RetryPolicy
from ..endpoints import numeric_endpoint
from ..machine import Call, CancelTimer, Effect, SetTimer
from ..protocol.session import Hello, HelloReply

HELLO_TIMEOUT_MS = 5_000
"""A connection that does not reply to a greeting within this time is replaced."""

SILENCE_MS = 4_000
"""A connection is silent when it has carried no byte for this long, although it pings."""
SILENT_LOOKS = 3
"""Number of consecutive silent checks after which a connection is replaced. One is not enough: after the
process itself was suspended, its pings have paused as well."""

HELLO = "hello"
DIAL = "dial"


class GatewayLink:
    def __init__(
        self,
        endpoint: str,
        connections: Connections,
        *,
        client_id: str,
        retry: RetryPolicy,
        jitter: Jitter,
    ) -> None:
        self.connection: Connection | None = None
        """None during the lookup of the name, and between two rounds of attempts."""
        self.session: HelloReply | None = None
        """None while only the greeting may be sent."""
        self.greeting = 0
        """Number of the greeting in flight, 0 if there is none."""
        self._endpoint = endpoint
        self._client_id = client_id
        self._connections = connections
        self._retry = retry
        self._jitter = jitter
        self._fixed = numeric_endpoint(endpoint)
        self._addresses: list[str] = []
        """Addresses not yet tried."""
        self._rounds = count(1)
        self._greetings = count(1)
        self._detail = ""
        self._silent_looks = 0

    @property
    def is_dialled_by_zeromq(self) -> bool:
        """Return True if ZeroMQ retries a refused connection itself, because there is no other address."""
        return self._fixed is not None

    @property
    def absence(self) -> str:
        """The reason why no request can be sent, as a phrase for messages."""
        return f"no broker answers at {self._endpoint}{self._detail}"

    def dial(self, now: int) -> list[Effect]:
        """Begin, or begin again after a lost connection or after every address failed."""
        if self._fixed is not None:
            return self._greet(self._fixed, now)
        if self._addresses and self.session is None:
            return self._greet(self._addresses.pop(0), now)
        is_first = self.connection is None or self.session is not None
        self._forget()
        return [Resolve(self._endpoint)] if is_first else self._pause(now)

    def on_time_to_dial(self) -> list[Effect]:
        return [Resolve(self._endpoint)]

    def on_resolved(self, event: Resolved, now: int) -> list[Effect]:
        if not event.endpoints:
            self._detail = f": {event.fault}"
            return self._pause(now)
        self._detail = f" ({', '.join(event.endpoints)})"
        self._addresses = list(event.endpoints)
        return self._greet(self._addresses.pop(0), now)

    def is_dead(self, silence_ms: int) -> bool:
        """Return True if the connection, checked about every second, no longer carries any bytes."""
        self._silent_looks = self._silent_looks + 1 if silence_ms >= SILENCE_MS else 0
        return self._silent_looks >= SILENT_LOOKS

    def greet_again(self) -> list[Effect]:
        """Send the greeting again, unless it is in flight: the gateway does not know this connection."""
        if self.connection is None or self.greeting:
            return []
        return [self._hello(self.connection)]

    def on_hello(self, reply: HelloReply) -> list[Effect]:
        self.session = reply
        self.greeting = 0
        self._rounds = count(1)
        self._addresses.clear()
        return [CancelTimer(HELLO)]

    def _pause(self, now: int) -> list[Effect]:
        return [SetTimer(DIAL, now + self._retry.delay_ms(next(self._rounds), self._jitter))]

    def _forget(self) -> None:
        self.connection = self.session = None
        self.greeting = self._silent_looks = 0

    def _greet(self, endpoint: str, now: int) -> list[Effect]:
        self._forget()
        self.connection = connection = self._connections.new(endpoint)
        return [
            Connect(connection.route, connection.endpoint),
            self._hello(connection),
            SetTimer(HELLO, now + HELLO_TIMEOUT_MS),
        ]

    def _hello(self, connection: Connection) -> Ask:
        self.greeting = next(self._greetings)
        hello = Hello(client_id=self._client_id)
        key = (HELLO, self.greeting)
        return Ask(connection, Call(key, GATEWAY, hello, HelloReply, timeout_ms=2 * HELLO_TIMEOUT_MS))
