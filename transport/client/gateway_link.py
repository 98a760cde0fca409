"""The client's way to the public endpoint: looks the host's name up, tries its addresses in turn, says hello. Pure.

    state        meaning                                       left by
    resolving    the host's name is being looked up            addresses -> greeting; none -> pausing
    pausing      no address led to a broker                    time -> resolving
    greeting     `hello` is sent, nothing else goes out        its reply -> open; refused or silent -> greeting at the
                                                               next address, pausing after the last one
    open         asks go to the gateway                        connection lost -> resolving

A name is looked up anew for each reconnection, so a broker that has moved is found. A host given as an address is not
looked up, and while nothing listens there ZeroMQ itself dials it again. Called by the exchange alone, which knows what
was in flight on a connection that is lost.
"""

from collections.abc import Iterator
from itertools import count

from ..endpoints import numeric_endpoint
from ..protocol.session import Hello, HelloReply
from .asking import CancelTimer, Effect, SetTimer
from .connections import Connection, Connections
from .exchange_events import Connect, Resolve, Resolved, Send
from .retry import Jitter, RetryPolicy

HELLO_TIMEOUT_MS = 5_000
"""A connection that does not answer a greeting for so long is made anew."""

SILENCE_MS = 4_000
"""A connection is silent when it has carried no byte for so long, although it pings."""
SILENT_LOOKS = 3
"""A connection that is found silent so often in a row is made anew. Once is not enough: when the process itself was
suspended, its pings have paused as well."""

HELLO = "hello"
DIAL = "dial"


class GatewayLink:
    def __init__(
        self,
        endpoint: str,
        connections: Connections,
        attempts: Iterator[int],
        *,
        client_id: str,
        retry: RetryPolicy,
        jitter: Jitter,
    ) -> None:
        self.connection: Connection | None = None
        """None while the name is looked up, and between two rounds of attempts."""
        self.session: HelloReply | None = None
        """None while nothing but the greeting may go out."""
        self.hello_attempt = 0
        self._endpoint = endpoint
        self._client_id = client_id
        self._connections = connections
        self._attempts = attempts
        self._retry = retry
        self._jitter = jitter
        self._fixed = numeric_endpoint(endpoint)
        self._addresses: list[str] = []
        """Those that are still to be tried."""
        self._rounds = count(1)
        self._detail = ""
        self._silent_looks = 0

    @property
    def is_dialled_by_zeromq(self) -> bool:
        """Whether a refused connection is tried again without the exchange, since there is no other address."""
        return self._fixed is not None

    @property
    def absence(self) -> str:
        """Why nothing can be asked, in words."""
        return f"no broker answers at {self._endpoint}{self._detail}"

    def dial(self, now: int) -> list[Effect]:
        """Begin, or begin anew: the connection is lost, or none of the addresses was good."""
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
        """Whether the connection, looked at every second or so, carries nothing any more."""
        self._silent_looks = self._silent_looks + 1 if silence_ms >= SILENCE_MS else 0
        return self._silent_looks >= SILENT_LOOKS

    def greet_again(self) -> list[Effect]:
        """The gateway does not know this connection: say once more who asks, unless that is on its way."""
        if self.connection is None or self.hello_attempt in self.connection.in_flight:
            return []
        return [self._hello(self.connection)]

    def on_hello(self, reply: HelloReply) -> list[Effect]:
        self.session = reply
        self._rounds = count(1)
        self._addresses.clear()
        return [CancelTimer(HELLO)]

    def _pause(self, now: int) -> list[Effect]:
        return [SetTimer(DIAL, now + self._retry.delay_ms(next(self._rounds), self._jitter))]

    def _forget(self) -> None:
        self.connection = self.session = None
        self.hello_attempt = self._silent_looks = 0

    def _greet(self, endpoint: str, now: int) -> list[Effect]:
        self._forget()
        self.connection = connection = self._connections.new(endpoint)
        return [
            Connect(connection.route, connection.endpoint),
            self._hello(connection),
            SetTimer(HELLO, now + HELLO_TIMEOUT_MS),
        ]

    def _hello(self, connection: Connection) -> Send:
        self.hello_attempt = attempt = next(self._attempts)
        connection.in_flight[attempt] = None
        return Send(connection.route, attempt, Hello(id=attempt, client_id=self._client_id))
