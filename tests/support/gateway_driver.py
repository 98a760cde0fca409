"""A gateway with simulated clients and actors, which answer when the test does so.

The gateway's process and the turns around it are the product's own; only sockets and clock are the test's.
"""

from typing import Any

import msgspec

from manual_loop import ManualLoop, context_of
from planaria.actors.gateway.machine import REQUESTS
from planaria.actors.gateway.process import GatewayActor
from planaria.transport.addresses import Address
from planaria.transport.codec import RequestDecoder, encode_header
from planaria.transport.machine import (
    Answered,
    Call,
    CancelCall,
    Cast,
    Failed,
    PeerDown,
    PeerUp,
    Received,
    Reply,
    Sender,
    StopRequested,
)
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.message import Request
from planaria.transport.protocol.quotas import Quota
from planaria.transport.protocol.topics import CatalogTopic, WatchCatalog, WatchCatalogReply
from planaria.transport.request_context import direct_context

DECODER = RequestDecoder(REQUESTS)


class GatewayDriver:
    """Driver: send requests by `ask`; the calls are in `calls` until `answer` or `fail`; replies by request number.

    The controller's watch is answered by `set_topics`, its other requests at once, unless `controller_answers` is off.
    """

    def __init__(
        self,
        incarnation: int = 1,
        limits: dict[str, int] | None = None,
        *,
        is_clustered: bool = False,
        is_audited: bool = False,
    ) -> None:
        self.now = 1_000_000
        context = context_of(
            "gateway/0",
            incarnation,
            {"endpoint": "tcp://127.0.0.1:*", "is_clustered": is_clustered, "is_audited": is_audited},
        )
        actor = GatewayActor(context, limits)
        self.machine = actor.machine
        self.loop = ManualLoop(actor, context, lambda: self.now)
        self.replies: dict[int, Any] = {}
        self.payloads: dict[int, Any] = {}
        self.calls: list[Call] = []
        self.casts: list[Cast] = []
        self.cancelled: list[int] = []
        """Tokens of calls that the gateway cancelled."""
        self.topics: list[CatalogTopic] = []
        self.version = 1
        self.quotas: dict[str, Quota] = {}
        self.controller_answers = True
        self.asked = 0
        self._watch: Call | None = None
        self._last_number = 0
        self._incarnations: dict[str, int] = {}
        self.loop.start()

    @property
    def timers(self) -> list[Any]:
        """Keys of the timers that run."""
        return self.loop.timers

    @property
    def stopped(self) -> bool:
        return self.loop.is_stopped

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

    @property
    def watch(self) -> Call:
        assert self._watch is not None
        return self._watch

    @property
    def is_watching(self) -> bool:
        return self._watch is not None

    def ask(self, request: Request, *payload: bytes, client: bytes = b"client", as_json: bool = False) -> int:
        self._last_number += 1
        named = msgspec.structs.replace(request, id=self._last_number)
        raw = encode_header(named, as_json)
        sender = Sender((client, b""), self._last_number, as_json)
        request = DECODER.decode(raw)
        self.give(Received(sender, request, payload, raw, direct_context(client, request)))
        return self._last_number

    def reply(self, request: Request, *payload: bytes, **options: Any) -> Any:
        """Return the reply to a request that is answered at once."""
        return self.replies[self.ask(request, *payload, **options)]

    def up(self, address: str, endpoint: str | None = None) -> None:
        self._incarnations[address] = self._incarnations.get(address, 0) + 1
        incarnation = self._incarnations[address]
        self.give(
            PeerUp(
                address=Address.parse(address),
                incarnation=incarnation,
                endpoint=endpoint or f"ipc://{address}.{incarnation}",
            )
        )

    def down(self, address: str, reason: str = "killed", quarantined: bool = False, **more: Any) -> None:
        incarnation = self._incarnations.setdefault(address, 1)
        self.give(
            PeerDown(
                address=Address.parse(address),
                incarnation=incarnation,
                reason=reason,
                quarantined=quarantined,
                **more,
            )
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
        while (at := self.loop.next_timer_at) is not None and at <= until:
            self.now = max(self.now, at)
            self.loop.turn()
            self._take_output()
        self.now = until

    def stop(self, within_ms: int = 5_000) -> None:
        self.give(StopRequested(self.now + within_ms))

    def give(self, event: Any) -> None:
        self.loop.turn(event)
        self._take_output()

    def _take_output(self) -> None:
        replies, self.loop.replies = self.loop.replies, []
        for reply in replies:
            self._take_reply(reply)
        calls, self.loop.calls = self.loop.calls, []
        for call in calls:
            self._take_call(call)

    def _take_reply(self, reply: Reply) -> None:
        number = reply.to.id
        assert isinstance(number, int)
        assert number not in self.replies, "answered twice"
        self.replies[number] = reply.body
        self.payloads[number] = reply.payload
        if not isinstance(reply.body, bytes | ErrorBody):
            encode_header(reply.body, reply.to.is_json)

    def _take_call(self, call: Call | CancelCall | Cast) -> None:
        match call:
            case Call(request=WatchCatalog(after_version=None, max_wait_ms=0)):
                self.asked += 1
                if self.controller_answers:
                    self.give(Answered(call.key, self._table()))
                else:
                    self.calls.append(call)
            case Call(request=WatchCatalog()):
                assert self._watch is None, "one watch at a time"
                self._watch = call
            case Call():
                if not isinstance(call.request, bytes):
                    encode_header(call.request)
                self.calls.append(call)
            case CancelCall(token=token):
                self.cancelled.append(token)
                self.calls = [each for each in self.calls if each.token != token]
            case Cast():
                encode_header(call.request)
                self.casts.append(call)

    def _table(self) -> WatchCatalogReply:
        return WatchCatalogReply(version=self.version, topics=list(self.topics), quotas=dict(self.quotas))
