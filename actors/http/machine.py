"""The HTTP actor's machine: routes requests to pages and probes, and sends the answers. Pure.

    GET /                   the other paths
    GET /metrics            all metrics, by topic, group and kind of actor
    GET /metrics/detailed   by partition and by actor
    /topics, /groups        the bridge (bridge.py), with GET /openapi.json; off unless it is asked for
    GET /healthz, /readyz, /readyz?strict=1, /critical    health.py: 200, or 503 with the reasons

Keeps no state that a client relies on: a successor starts empty. Run by process.py.
"""

from collections.abc import Callable
from typing import TypeAlias, assert_never

import msgspec

from ...transport.machine import (
    Answered,
    Connected,
    Disconnected,
    Failed,
    PeerDown,
    PeersAsleep,
    PeerUp,
    Received,
    Stop,
    StopRequested,
    TimerFired,
    WallClockStepped,
)
from .bridge import Bridge, BridgeCall, HelloCall
from .connections import Connections, HttpRequest, HttpResponse, RestTimer, TickTimer
from .effects import Arrived, Drained, Effect, Ended, Event, Measured, Opened
from .exposition import CONTENT_TYPE
from .health import is_critical, strictly_unready, unready
from .looks import Looks, LookTimer, PageName, Seen
from .openapi import document
from .operations import methods_of
from .problems import problem

Make: TypeAlias = Callable[[Seen], HttpResponse]
INDEX = """Planaria

/metrics            metrics, for Prometheus
/metrics/detailed   the same by partition and by actor
/healthz            this process answers
/readyz             clients are served
/readyz?strict=1    and nothing needs an operator
/critical           503 if a stop of this node would lose availability
"""


class HttpMachine:
    def __init__(
        self,
        *,
        node: str,
        version: str,
        is_first: bool,
        with_kafka_names: bool,
        bridge_salt: bytes = b"",
        is_secured: bool = False,
    ) -> None:
        """`node` is the name of this node in its cluster, or empty. `is_first`: see totals.py. Without `bridge_salt`
        there is no bridge."""
        self.connections = Connections()
        self._looks = Looks(node=node, version=version, is_first=is_first, with_kafka_names=with_kafka_names)
        self._bridge: Bridge | None = None
        if bridge_salt:
            self._bridge = Bridge(self.connections, bridge_salt, is_secured=is_secured)
        self._version = version
        self._is_clustered = bool(node)
        self._pages: dict[PageName, tuple[int, bytes]] = {}
        """The last page of each name, by the identity of its look: scrapes at the same time share the bytes."""
        self._paths: dict[str, Callable[[HttpRequest, int], list[Effect]]] = {
            "/": self._index,
            "/metrics": lambda request, now: self._metrics(request, "metrics", now),
            "/metrics/detailed": lambda request, now: self._metrics(request, "detailed", now),
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/critical": self._critical,
        }
        if bridge_salt:
            self._paths["/openapi.json"] = self._openapi

    def handle(self, event: Event, now: int) -> list[Effect]:
        effects = self._handle(event, now)
        gathered, self.connections.effects = self.connections.effects, []
        gone, self.connections.gone = self.connections.gone, []
        if self._bridge is not None:
            for number in gone:
                effects += self._bridge.on_gone(number)
        return [*gathered, *effects]

    def _handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Opened(connection=number, host=host):
                self.connections.on_opened(number, host, now)
            case Arrived(connection=number, data=data):
                return self._route(self.connections.on_arrived(number, data, now), now)
            case Drained(connection=number):
                effects = self._route(self.connections.on_drained(number, now), now)
                return effects + (self._bridge.on_drained(number) if self._bridge is not None else [])
            case Ended(connection=number):
                self.connections.on_ended(number)
            case Measured():
                self._looks.on_measured(event)
                return self._looks.finish(now)
            case TimerFired(key=TickTimer()):
                self.connections.on_tick(now)
                return self._bridge.on_tick(now) if self._bridge is not None else []
            case TimerFired(key=RestTimer()):
                self.connections.on_rest_timer()
            case TimerFired(key=LookTimer()):
                return self._looks.on_timer(now)
            case Answered(key=BridgeCall() | HelloCall()) | Failed(key=BridgeCall() | HelloCall()):
                assert self._bridge is not None
                return self._bridge.handle(event, now)
            case Answered() | Failed():
                return self._looks.handle(event, now)
            case WallClockStepped(offset_ms=offset_ms):
                self._looks.wall_offset_ms = offset_ms
            case StopRequested():
                self.connections.stop()
                return [Stop("asked to")]
            case TimerFired() | PeerUp() | PeerDown() | PeersAsleep() | Connected() | Disconnected():
                pass
            case Received():
                raise AssertionError("it serves no requests of peers")
            case _:
                assert_never(event)
        return []

    def _route(self, request: HttpRequest | None, now: int) -> list[Effect]:
        if request is None:
            return []
        answer = self._paths.get(request.path)
        if answer is None:
            methods = methods_of(request.path) if self._bridge is not None else []
            if self._bridge is not None and request.method in methods:
                effects = self._bridge.on_request(request, now)
                if self.connections.is_waiting(request.connection):
                    self.connections.pass_on(request.connection)
                return effects
            if methods:
                refusal = problem(
                    405,
                    f"{request.path[:200]} does not support this method",
                    (("allow", ", ".join(methods)),),
                )
                return self._respond(request, refusal, now)
            return self._respond(request, problem(404, f"there is no {request.path[:200]}"), now)
        if request.method not in ("GET", "HEAD"):
            refusal = problem(405, f"{request.path} supports only GET", (("allow", "GET, HEAD"),))
            return self._respond(request, refusal, now)
        return answer(request, now)

    def _respond(self, request: HttpRequest, response: HttpResponse, now: int) -> list[Effect]:
        self.connections.respond(request.connection, response, now)
        gathered, self.connections.effects = self.connections.effects, []
        return gathered

    def _index(self, request: HttpRequest, now: int) -> list[Effect]:
        return self._respond(request, HttpResponse(200, INDEX.encode(), "text/plain; charset=utf-8"), now)

    def _openapi(self, request: HttpRequest, now: int) -> list[Effect]:
        return self._respond(request, HttpResponse(200, document(self._version)), now)

    # Metrics

    def _metrics(self, request: HttpRequest, name: PageName, now: int) -> list[Effect]:
        return self._look(request, lambda seen: self._page(name, seen), now)

    def _look(self, request: HttpRequest, make: Make, now: int) -> list[Effect]:
        def answer(seen: Seen, later: int) -> list[Effect]:
            # Displaced connections and those that have ended take no page.
            if not self.connections.is_waiting(request.connection):
                return []
            return self._respond(request, make(seen), later)

        return self._looks.ask(answer, now)

    def _page(self, name: PageName, seen: Seen) -> HttpResponse:
        if seen.observation is None:
            return problem(503, "the supervisor does not answer")
        number, data = self._pages.get(name, (-1, b""))
        if number != seen.number:
            data = self._looks.page(name, seen.observation)
            self._pages[name] = seen.number, data
        return HttpResponse(200, data, CONTENT_TYPE)

    # Probes

    def _healthz(self, request: HttpRequest, now: int) -> list[Effect]:
        return self._respond(request, _health("live", []), now)

    def _readyz(self, request: HttpRequest, now: int) -> list[Effect]:
        is_strict = request.query.get("strict", "0") not in ("", "0", "false")

        def judge(seen: Seen) -> HttpResponse:
            if seen.observation is None:
                return _health("ready", ["the supervisor does not answer"])
            actors = seen.observation.actors
            reasons = unready(actors, seen.controller_fault)
            return _health("ready", [*reasons, *(strictly_unready(actors) if is_strict else [])])

        return self._look(request, judge, now)

    def _critical(self, request: HttpRequest, now: int) -> list[Effect]:
        def judge(seen: Seen) -> HttpResponse:
            cluster = None if seen.observation is None else seen.observation.cluster
            if self._is_clustered and cluster is None:
                return _health("safe to stop", ["the controller does not answer"])
            reason = is_critical(cluster)
            return _health("safe to stop", [] if reason is None else [reason])

        return self._look(request, judge, now)


def _health(state: str, reasons: list[str]) -> HttpResponse:
    body = {"status": f"not {state}" if reasons else state, "reasons": reasons}
    return HttpResponse(503 if reasons else 200, msgspec.json.encode(body) + b"\n")
