"""A gateway machine with simulated clients and actors, which answer when the test does so."""

from typing import Any

import msgspec

from planaria.actors.gateway.machine import REQUESTS, GatewayMachine
from planaria.transport.codec import RequestDecoder, encode_header
from planaria.transport.machine import (
    Answered,
    Call,
    CancelCall,
    CancelTimer,
    Cast,
    Failed,
    PeerDown,
    PeerUp,
    Received,
    Reply,
    Sender,
    SetTimer,
    Stop,
    StopRequested,
    TimerFired,
)
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.message import Request
from planaria.transport.protocol.quotas import Quota
from planaria.transport.protocol.topics import CatalogTopic, WatchCatalog, WatchCatalogReply

DECODER = RequestDecoder(REQUESTS)


class GatewayDriver:
    """Driver: send requests by `ask`; the calls are in `calls` until `answer` or `fail`; replies by request number.

    The controller's watch is answered by `set_topics`, its other requests at once, unless `controller_answers` is off.
    """

    def __init__(self, **options: Any) -> None:
        self.machine = GatewayMachine(instance_id="i", run_directory="/run/x", **options)
        self.now = 1_000_000
        self.replies: dict[int, Any] = {}
        self.payloads: dict[int, Any] = {}
        self.calls: list[Call] = []
        self.casts: list[Cast] = []
        self.cancelled: list[int] = []
        """Tokens of calls that the gateway cancelled."""
        self.timers: dict[Any, int] = {}
        self.topics: list[CatalogTopic] = []
        self.version = 1
        self.quotas: dict[str, Quota] = {}
        self.controller_answers = True
        self.asked = 0
        self.stopped = False
        self._watch: Call | None = None
        self._last_number = 0
        self._incarnations: dict[str, int] = {}

    def start(self, **partitions: int) -> "GatewayDriver":
        """Start with a controller, and these topics, all up."""
        self.up("controller")
        self.set_topics(**partitions)
        for topic, count in partitions.items():
            for partition in range(count):
                self.up(f"partition/{topic}/{partition}")
        return self

    def set_topics(self, *entries: CatalogTopic, **partitions: int) -> None:
        self.hold_topics(*entries, **partitions)
        watch, self._watch = self._watch, None
        assert watch is not None
        self.give(Answered(watch.key, self._table()))

    def hold_topics(self, *entries: CatalogTopic, **partitions: int) -> None:
        """Give the controller these topics without a notification to the gateway."""
        self.topics = [
            *entries,
            *(CatalogTopic(topic, f"id-{topic}", count, 1_000) for topic, count in partitions.items()),
        ]
        self.version += 1

    def fail_watch(self) -> None:
        watch, self._watch = self._watch, None
        assert watch is not None
        self.give(Failed(watch.key, ErrorBody("ACTOR_UNAVAILABLE", "controller died", True)))

    @property
    def is_watching(self) -> bool:
        return self._watch is not None

    def ask(self, request: Request, *payload: bytes, client: bytes = b"client", as_json: bool = False) -> int:
        self._last_number += 1
        named = msgspec.structs.replace(request, id=self._last_number)
        raw = encode_header(named, as_json)
        sender = Sender((client, b""), self._last_number, as_json)
        self.give(Received(sender, DECODER.decode(raw), payload, raw))
        return self._last_number

    def reply(self, request: Request, *payload: bytes, **options: Any) -> Any:
        """Return the reply to a request that is answered at once."""
        return self.replies[self.ask(request, *payload, **options)]

    def up(self, address: str, endpoint: str | None = None) -> None:
        self._incarnations[address] = self._incarnations.get(address, 0) + 1
        incarnation = self._incarnations[address]
        self.give(
            PeerUp(
                address=address,
                incarnation=incarnation,
                endpoint=endpoint or f"ipc://{address}.{incarnation}",
            )
        )

    def down(self, address: str, reason: str = "killed", quarantined: bool = False, **more: Any) -> None:
        incarnation = self._incarnations.setdefault(address, 1)
        self.give(
            PeerDown(address=address, incarnation=incarnation, reason=reason, quarantined=quarantined, **more)
        )

    def answer(self, reply: Any, *payload: bytes, call: Call | None = None) -> None:
        """Answer the oldest call, or the one given."""
        call = call or self.calls[0]
        self.calls.remove(call)
        self.give(Answered(call.key, reply, payload))

    def fail(self, code: str = "TIMED_OUT", call: Call | None = None) -> None:
        call = call or self.calls[0]
        self.calls.remove(call)
        self.give(Failed(call.key, ErrorBody(code, "it failed", True)))

    def advance(self, milliseconds: int) -> None:
        until = self.now + milliseconds
        while due := sorted((at, str(key), key) for key, at in self.timers.items() if at <= until):
            at, _, key = due[0]
            self.now = max(self.now, at)
            del self.timers[key]
            self.give(TimerFired(key))
        self.now = until

    def stop(self, within_ms: int = 5_000) -> None:
        self.give(StopRequested(self.now + within_ms))

    def give(self, event: Any) -> None:
        for effect in self.machine.handle(event, self.now):
            self._perform(effect)

    def _table(self) -> WatchCatalogReply:
        return WatchCatalogReply(version=self.version, topics=list(self.topics), quotas=dict(self.quotas))

    def _perform(self, effect: Any) -> None:
        match effect:
            case Reply(to=to, body=body, payload=payload):
                assert isinstance(to.id, int)
                assert to.id not in self.replies, "answered twice"
                self.replies[to.id] = body
                self.payloads[to.id] = payload
                if not isinstance(body, bytes | ErrorBody):
                    encode_header(body, to.is_json)
            case Call(request=WatchCatalog(after_version=None, max_wait_ms=0)):
                self.asked += 1
                if self.controller_answers:
                    self.give(Answered(effect.key, self._table()))
                else:
                    self.calls.append(effect)
            case Call(request=WatchCatalog()):
                assert self._watch is None, "one watch at a time"
                self._watch = effect
            case Call():
                if not isinstance(effect.request, bytes):
                    encode_header(effect.request)
                self.calls.append(effect)
            case CancelCall(token=token):
                self.cancelled.append(token)
                self.calls = [call for call in self.calls if call.token != token]
            case Cast():
                encode_header(effect.request)
                self.casts.append(effect)
            case SetTimer(key=key, at=at):
                self.timers[key] = at
            case CancelTimer(key=key):
                self.timers.pop(key, None)
            case Stop():
                self.stopped = True
            case _:
                raise AssertionError(effect)
