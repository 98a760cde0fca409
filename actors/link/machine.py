"""The link's machine: passes relays on, pings other nodes and reports the quiet ones. Pure.

Owns nothing that matters: a link that is restarted loses the relays in flight, whose senders repeat them.

    event                   effects
    Started                 the watch of the nodes and the pings begin
    Received relay          a call to the other link (`relays.py`)
    Received forward        a call to the actor of this node
    Answered, Failed        the relay's reply
    Received admit_catch_up answered when the rate of copies permits it (`catch_up.py`)
    Received ping           noted (`liveness.py`); its report is kept
    BeatTimer               a ping to each node that watches this one; reports to the controller when a node is quiet,
                            else each `CALM_INTERVAL_MS`
    Disconnected            a watched node is lost: reported at once, and with the next ping, which is due when the loss
                            counts (`LOST_MS`); relays of the connection are withdrawn

Which nodes watch which is computed by every node from the nodes alone (`transport/monitors.py`). The leading
controller's node is watched by its monitors as any other; these also exchange their reports, because they are its
neighbours, so that each can decide to replace it. Reports of nodes that are missed reach the leading controller from all
of their monitors.
"""

from typing import assert_never

from ...transport.addresses import CONTROLLER, link_address
from ...transport.machine import (
    Answered,
    Cast,
    Connected,
    Disconnected,
    Failed,
    Received,
    SetTimer,
    Stop,
    StopRequested,
    TimerFired,
    WallClockStepped,
)
from ...transport.monitors import monitors_of
from ...transport.protocol.control import PeerDown, PeersAsleep, PeerUp
from ...transport.protocol.errors import ProtocolError
from ...transport.protocol.links import (
    LOST_MS,
    PING_INTERVAL_MS,
    AdmitCatchUp,
    Forward,
    LinkReport,
    LinkReports,
    Ping,
    Relay,
)
from ...transport.protocol.message import Request
from ...transport.protocol.session import Cancel
from ...transport.request_context import NO_CONTEXT
from .catch_up import CatchUp
from .effects import Effect, Event, Started
from .keys import BeatTimer, CallKey, CatchUpTimer, NodesWatch, RelayCall, TimerKey
from .liveness import Liveness
from .relays import Relays, refusal
from .roster import Roster

CALM_INTERVAL_MS = 1_000

REQUESTS: tuple[type[Request], ...] = (Relay, Forward, AdmitCatchUp, Ping, Cancel)


class LinkMachine:
    """The link of the node `node`, in the start `start_id`."""

    def __init__(
        self, node: str, start_id: str, incarnation: int, *, catch_up_bytes_per_second: int = 0
    ) -> None:
        self._node = node
        self._start_id = start_id
        self._incarnation = incarnation
        self.roster = Roster(node)
        self.relays = Relays(node, self.roster)
        self._liveness = Liveness(node)
        self._catch_up = CatchUp(catch_up_bytes_per_second)
        self._watchers: tuple[str, ...] = ()
        self._reports: dict[str, LinkReport] = {}
        """Reports of other links since the last one to the controller, which each reaches once."""
        self._reported_at = 0
        self._beat_at = 0
        self._was_calm = True

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Received():
                return self._on_received(event, now)
            case Answered():
                return self._on_answered(event, now)
            case Failed():
                return self._on_failed(event, now)
            case TimerFired(key=key):
                return self._on_timer(key, now)
            case Disconnected(connection=connection):
                effects = [*self.relays.on_closed(connection), *self._catch_up.on_closed(connection, now)]
                is_lost = self._liveness.on_closed(connection, now)
                if not is_lost:
                    return effects
                self._was_calm = False
                return [*effects, *self._report(now), *self._beat_by(now + LOST_MS)]
            case Started():
                return [*self.roster.watch(), *self._next_beat(now)]
            case StopRequested():
                return [Stop("asked to stop")]
            case PeerUp() | PeerDown() | PeersAsleep() | Connected() | WallClockStepped():
                return []
        assert_never(event)

    def _on_received(self, received: Received, now: int) -> list[Effect]:
        request = received.request
        match request:
            case Relay() | Forward():
                try:
                    if isinstance(request, Forward):
                        return self.relays.on_forward(received, request)
                    return self.relays.on_relay(received, request)
                except ProtocolError as error:
                    header = bytes(received.payload[0]) if received.payload else b""
                    return [] if request.is_cast else [refusal(received.sender, header, error.body)]
            case AdmitCatchUp():
                return self._catch_up.on_request(received.sender, request, now)
            case Ping():
                return self._on_ping(received, request, now)
            case Cancel():
                return self.relays.on_cancel(received)
        raise AssertionError(f"a link takes no {type(request).__name__}")

    def _on_ping(self, received: Received, ping: Ping, now: int) -> list[Effect]:
        effects = self.roster.on_ping(ping.node, ping.start_id, ping.incarnation)
        self._liveness.on_ping(ping, received.sender.route[0], now)
        self._reports[ping.node] = ping.report
        return effects if ping.report.is_calm else effects + self._report(now)

    def _on_answered(self, answered: Answered, now: int) -> list[Effect]:
        key: CallKey = answered.key
        match key:
            case RelayCall():
                return self.relays.on_answered(key, answered)
            case NodesWatch():
                effects, new = self.roster.on_reply(answered.reply)
                for node in new:
                    self._liveness.forget(node, now)
                monitors = monitors_of(self.roster.nodes)
                watched = [node for node in self.roster.others if self._node in monitors[node]]
                self._watchers = monitors.get(self._node, ())
                self._liveness.watch(watched, now)
                return effects
        assert_never(key)

    def _on_failed(self, failed: Failed, now: int) -> list[Effect]:
        key: CallKey = failed.key
        match key:
            case RelayCall():
                return self.relays.on_failed(key, failed)
            case NodesWatch():
                return self.roster.on_failed(now)
        assert_never(key)

    def _on_timer(self, key: TimerKey, now: int) -> list[Effect]:
        match key:
            case NodesWatch():
                return self.roster.watch()
            case BeatTimer():
                return self._beat(now)
            case CatchUpTimer():
                return self._catch_up.on_timer(now)
        assert_never(key)

    def _beat(self, now: int) -> list[Effect]:
        self._liveness.on_beat(now)
        report = self._liveness.report(now)
        ping = Ping(node=self._node, start_id=self._start_id, incarnation=self._incarnation, report=report)
        receivers = set(self._watchers)
        leading = self.roster.leading
        if not report.is_calm and leading in self.roster.others:
            receivers.add(leading)
        effects: list[Effect] = [
            Cast(link_address(node), ping, context=NO_CONTEXT) for node in sorted(receivers)
        ]
        is_news = not (report.is_calm and self._was_calm)
        self._was_calm = report.is_calm
        if is_news or now - self._reported_at >= CALM_INTERVAL_MS:
            effects += self._report(now)
        return [*effects, *self._next_beat(now)]

    def _next_beat(self, now: int) -> list[Effect]:
        self._beat_at = now + PING_INTERVAL_MS
        return [SetTimer(BeatTimer(), self._beat_at)]

    def _beat_by(self, at: int) -> list[Effect]:
        """Let the next beat come no later than this."""
        if at >= self._beat_at:
            return []
        self._beat_at = at
        return [SetTimer(BeatTimer(), at)]

    def _report(self, now: int) -> list[Effect]:
        """Report to the controller of this node."""
        self._reported_at = now
        others, self._reports = self._reports, {}
        return [Cast(CONTROLLER, LinkReports(reports=(self._liveness.report(now), *others.values())))]
