"""The supervisor's role in a simulation: starts, confirms deaths, restarts after a while, publishes the directory.

Not the product's supervisor, which has its own tests: this one may restart sooner or later than that would, and has no
quarantine. It never starts an incarnation before the previous one is gone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zmq

from planaria.transport.addresses import Address
from planaria.transport.codec import RequestDecoder, encode_header, split_envelope
from planaria.transport.endpoints import control_endpoint, peer_id
from planaria.transport.protocol.control import (
    EVERYBODY,
    ActorFailed,
    ChildSpec,
    FallingAsleep,
    Heartbeat,
    PeerDown,
    PeersAsleep,
    PeerUp,
    Ready,
    StartChild,
    Stop,
    StopChild,
    Wake,
    Watch,
    is_among,
)
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.message import Done, ErrorReply, Reply
from planaria.transport.protocol.operations import ActorStatus, Status, StatusReply
from planaria.transport.protocol.session import Cancel
from simulator_actors import GATEWAY_ENDPOINT, INSTANCE_ID, RUN_DIRECTORY, ActorHost, Disks, Taps
from simulator_network import Network, SimulatedSocket
from simulator_world import MS, Host, World

HANG_TIMEOUT_US = 5_000 * MS
_DECODER = RequestDecoder(
    (Ready, Heartbeat, ActorFailed, FallingAsleep, StartChild, StopChild, Cancel, Wake, Watch, Status)
)


@dataclass(eq=False)
class Child:
    spec: ChildSpec
    incarnation: int = 0
    host: ActorHost | None = None
    endpoint: str | None = None
    is_ready: bool = False
    is_heard: bool = False
    """Its control connection is open: it can be notified."""
    stopper: tuple[bytes, bytes] | None = None
    """The requester that waits for its end."""
    is_stopping: bool = False
    is_falling_asleep: bool = False
    is_wanted: bool = False
    """A wake-up arrived while it fell asleep."""
    has_slept: bool = False
    """Its last incarnation fell asleep, or it was added asleep; it may have been woken since."""
    wake_after_ms: int | None = None
    watched: set[str] = field(default_factory=set)

    @property
    def is_asleep(self) -> bool:
        return self.has_slept and self.host is None and not self.is_wanted


class SimulatedSupervisor(Host):
    def __init__(
        self, world: World, network: Network, disks: Disks, taps: Taps, restart_delay_us: Callable[[], int]
    ) -> None:
        super().__init__(world, "supervisor")
        self.children: dict[str, Child] = {}
        self._network = network
        self._disks = disks
        self._taps = taps
        self._restart_delay_us = restart_delay_us
        self.sleeps = 0
        """Number of times that an actor fell asleep."""
        self.wakes = 0
        self._socket = SimulatedSocket(network, self, zmq.ROUTER)
        self._socket.bind(control_endpoint(RUN_DIRECTORY))

    def start(self, coordinator_idle_ms: int, partition_idle_ms: int) -> None:
        arguments = {
            "offsets_partitions": self.world.between(1, 2),
            "coordinator_idle_ms": coordinator_idle_ms,
            "partition_idle_ms": partition_idle_ms,
        }
        self.add(
            ChildSpec(
                address=Address.parse("controller"),
                start="controller",
                arguments=arguments,
                directory=EVERYBODY,
            )
        )

    def add(self, spec: ChildSpec) -> None:
        child = self.children[spec.address] = Child(spec)
        self._launch(child)

    def _add_asleep(self, spec: ChildSpec, wake_after_ms: int | None) -> None:
        child = self.children[spec.address] = Child(spec, wake_after_ms=wake_after_ms)
        self._rest(child)
        self._publish(child, self._down(child, "added asleep"))

    def actors(self) -> list[ActorHost]:
        """Return all living actors, in the order they were added."""
        return [child.host for child in self.children.values() if child.host is not None]

    @property
    def is_settled(self) -> bool:
        children = self.children.values()
        return bool(children) and all(child.is_ready or child.is_asleep for child in children)

    def turn(self) -> None:
        while self._socket.inbox:
            peer, *frames = self._socket.inbox.popleft()
            envelope, header, _ = split_envelope(frames)
            request = _DECODER.decode(header)
            if isinstance(request, Watch):
                self._on_watch(request)
            elif isinstance(request, Ready | Heartbeat):
                self._on_news(request)
            elif isinstance(request, FallingAsleep):
                self._on_falling_asleep(request)
            elif isinstance(request, Wake):
                self._wake(self.children.get(request.address))
            elif isinstance(request, ActorFailed):
                raise AssertionError(f"{request.address} failed: {request.reason}")
            elif not isinstance(request, Cancel):
                self._on_call(peer, envelope[0], request)

    def _on_news(self, news: Ready | Heartbeat) -> None:
        child = self.children.get(news.address)
        if child is None or child.host is None or child.incarnation != news.incarnation:
            return
        if not child.is_heard:
            child.is_heard = True
            if child.spec.directory == EVERYBODY:
                others = [other for other in self.children.values() if other is not child]
                for other in others:
                    if other.is_ready:
                        self._tell(child, self._up(other))
                asleep = [other.spec.address for other in others if other.has_slept and not other.is_ready]
                if asleep:
                    self._tell(child, PeersAsleep(addresses=asleep))
        if isinstance(news, Ready) and not child.is_ready:
            child.is_ready = True
            child.endpoint = news.endpoint
            self._publish(child, self._up(child))
            if news.address == "controller" and "gateway/0" not in self.children:
                arguments = {"endpoint": GATEWAY_ENDPOINT}
                self.add(
                    ChildSpec(
                        address=Address.parse("gateway/0"),
                        start="gateway",
                        arguments=arguments,
                        directory=EVERYBODY,
                    )
                )

    def _on_watch(self, watch: Watch) -> None:
        child = self.children.get(watch.address)
        if child is None or child.host is None or child.incarnation != watch.incarnation:
            return
        child.watched.add(watch.peer)
        peer = self.children.get(watch.peer)
        if peer is None:
            self._tell(child, PeerDown(address=watch.peer, incarnation=0, reason="no such actor"))
        elif peer.is_ready:
            self._tell(child, self._up(peer))
        elif peer.has_slept:
            self._tell(child, PeersAsleep(addresses=[watch.peer]))
        else:
            self._tell(child, self._down(peer, "starting"))

    def _on_call(self, peer: bytes, call_id: bytes, request: Any) -> None:
        if isinstance(request, StartChild):
            known = self.children.get(request.spec.address)
            if known is None and request.is_asleep:
                self._add_asleep(request.spec, request.wake_after_ms)
            elif known is None:
                self.add(request.spec)
            else:
                known.spec = request.spec
                known.is_stopping = False
                if not request.is_asleep:
                    self._wake(known)
            self._answer(peer, call_id, Done())
        elif isinstance(request, StopChild):
            self._stop(peer, call_id, request.address)
        else:
            self._answer(peer, call_id, self._status())

    # Sleep.

    def _on_falling_asleep(self, news: FallingAsleep) -> None:
        child = self.children.get(news.address)
        if child is not None and child.host is not None and child.incarnation == news.incarnation:
            child.is_falling_asleep = True
            child.wake_after_ms = news.wake_after_ms

    def _rest(self, child: Child) -> None:
        """Its process has ended to sleep."""
        self.sleeps += 1
        self.world.note("asleep", child.spec.address)
        child.has_slept = True
        if child.wake_after_ms is not None:
            self.world.after(child.wake_after_ms * MS, self._wake, child)
        if child.is_wanted:
            self._launch(child)

    def _wake(self, child: Child | None) -> None:
        if child is None or child.is_stopping:
            return
        if child.is_asleep:
            self.wakes += 1
            self._launch(child)
        elif child.is_falling_asleep:
            child.is_wanted = True

    def _stop(self, peer: bytes, call_id: bytes, address: str) -> None:
        child = self.children.get(address)
        if child is None:
            error = ErrorBody(ErrorCode.UNKNOWN_ACTOR, address)
            self._answer(peer, call_id, ErrorReply(error=error))
            return
        child.stopper = (peer, call_id)
        child.is_stopping = True
        if child.host is None:
            self._forget(child)
        elif child.is_heard:
            self._tell(child, Stop(deadline_ms=self.world.now_ms + self.world.clocks.steady_ms + 5_000))
            self.world.after(5_000 * MS, self.kill, child.host, "did not stop in time")
        else:
            self.kill(child.host, "stopped while starting")

    def _status(self) -> StatusReply:
        actors = [
            ActorStatus(
                address=child.spec.address,
                pid=None,
                incarnation=child.incarnation,
                restarts=0,
                state="ready" if child.is_ready else "asleep" if child.is_asleep else "starting",
                uptime_ms=0,
                memory_bytes=0,
            )
            for child in self.children.values()
        ]
        return StatusReply(
            supervisor_pid=0,
            instance_id=INSTANCE_ID,
            data_directory="",
            endpoint=GATEWAY_ENDPOINT,
            uptime_ms=0,
            actors=actors,
        )

    def _answer(self, peer: bytes, call_id: bytes, reply: Reply) -> None:
        if peer in self._socket.routes:
            self._socket.send_multipart([peer, call_id, b"", encode_header(reply)])

    def _tell(self, child: Child, news: PeerUp | PeerDown | PeersAsleep | Stop) -> None:
        peer = peer_id(child.spec.address, child.incarnation)
        if peer in self._socket.routes:
            self._socket.send_multipart([peer, encode_header(news)])

    def _publish(self, subject: Child, news: PeerUp | PeerDown) -> None:
        for child in self.children.values():
            if (
                (
                    is_among(child.spec.directory, subject.spec.address)
                    or subject.spec.address in child.watched
                )
                and child.is_heard
                and child.host is not None
                and child is not subject
            ):
                self._tell(child, news)

    def _up(self, child: Child) -> PeerUp:
        return PeerUp(address=child.spec.address, incarnation=child.incarnation, endpoint=child.endpoint)

    def _down(self, child: Child, reason: str) -> PeerDown:
        return PeerDown(
            address=child.spec.address,
            incarnation=child.incarnation,
            reason=reason,
            quarantined=False,
            asleep=child.has_slept,
        )

    # Life cycle.

    def _launch(self, child: Child) -> None:
        if child.host is not None or self.children.get(child.spec.address) is not child or child.is_stopping:
            return
        child.incarnation += 1
        child.watched.clear()
        child.is_ready = child.is_heard = child.is_falling_asleep = child.is_wanted = child.has_slept = False
        child.host = ActorHost(
            self.world, self._network, self._disks, self._taps, child.spec, child.incarnation, self._on_end
        )
        self.world.note("start", child.host.name)
        child.host.wake(self.world.between(500, 8_000))

    def kill(self, host: ActorHost, reason: str = "killed by SIGKILL") -> None:
        if host.is_alive:
            self.world.note("kill", host.name)
            host.end(reason)

    def freeze(self, host: ActorHost, duration_us: int) -> None:
        """Freeze it; an actor frozen for too long is killed."""
        self.world.note("freeze", host.name)
        host.freeze()
        if duration_us > HANG_TIMEOUT_US:
            self.world.after(HANG_TIMEOUT_US, self.kill, host, "hung")
        else:
            self.world.after(duration_us, host.thaw)

    def _on_end(self, host: ActorHost, reason: str) -> None:
        self.world.after(self.world.between(300, 2_000), self._confirm, host, reason)

    def _confirm(self, host: ActorHost, reason: str) -> None:
        child = self.children.get(host.address)
        if child is None or child.host is not host:
            return
        child.host = None
        child.is_ready = child.is_heard = False
        is_asleep = child.is_falling_asleep and reason == "exited" and not child.is_stopping
        child.has_slept = is_asleep
        self._publish(child, self._down(child, reason))
        if child.is_stopping:
            self._forget(child)
        elif is_asleep:
            self._rest(child)
        else:
            self.world.after(self._restart_delay_us(), self._launch, child)

    def _forget(self, child: Child) -> None:
        del self.children[child.spec.address]
        if child.stopper is not None:
            self._answer(*child.stopper, Done())
