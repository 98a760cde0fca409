"""The calls of an actor in flight, and the peers it can reach. Called by the loop alone.

Owns the calls socket and the table of requests in flight. A call goes to the incarnation that is up when it is made. The
first call to an incarnation makes the connection, because most actors call few of the peers in their directory.
A call ends in exactly one way: the peer replies, the supervisor reports the end of the incarnation, or the call times
out. Incarnations have endpoints of their own, so no message can reach a successor by mistake.

    call to a peer that is up        sent
    call to a peer that sleeps       kept, and the supervisor wakes the peer
    peer up                          kept calls are sent, in the order they were made
    peer down, asleep                unanswered calls were not executed: they are kept, and the peer is woken again
    peer down, but asleep before     kept calls wait on during the restart, and fail if the peer is quarantined
    peer down                        unanswered calls fail
"""

from collections import deque
from typing import Any, NamedTuple, cast

import zmq

from . import sockets
from .addresses import SUPERVISOR, topic_partition_of
from .codec import decode_reply, encode_header, split_envelope
from .endpoints import peer_id
from .machine import Answered, Call, Cast, Failed
from .protocol.control import PeerDown, PeerUp, Wake
from .protocol.errors import ErrorBody, ErrorCode, ProtocolError
from .protocol.message import Reply, Request
from .protocol.session import Cancel
from .timers import Timers
from .untaken import Untaken

MAX_IN_FLIGHT = 50_000
COUNTED_CAST_BYTES = 1024
"""A cast with at least this much payload is counted until it has left. The socket holds few bytes of smaller ones."""


_LOST = (zmq.EAGAIN, zmq.EHOSTUNREACH)


class _InFlight(NamedTuple):
    key: Any
    address: str
    peer: bytes | None
    """The connection by which it left; None while it is kept for an actor that sleeps."""
    frames: list[Any]
    reply_type: type[Reply] | None
    token: int | None


class Calls:
    """Outgoing requests over one ROUTER, and over the control link to the supervisor."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", link: "zmq.Socket[bytes]") -> None:
        self.socket = sockets.calls_socket(context)
        self.arrived: deque[list[bytes]] = deque()
        """Messages read when a peer was lost. They precede those still in the socket."""
        self._link = link
        self._peers: dict[str, PeerUp] = {}
        self._newest: dict[str, int] = {}
        self._connected: set[bytes] = set()
        self._in_flight: dict[int, _InFlight] = {}
        self._tokens: dict[int, int] = {}
        self._of_peer: dict[bytes, set[int]] = {SUPERVISOR.encode(): set()}
        self._asleep: set[str] = set()
        """Actors that sleep, or have been woken and are not up yet."""
        self._kept: dict[str, dict[int, None]] = {}
        """Calls in their order, by address of an actor in `_asleep`."""
        self._deadlines = Timers()
        self._untaken = Untaken()
        self._last_id = 0

    def peer_up(self, peer: PeerUp) -> list[Failed]:
        """Record a new incarnation. Calls to an older one that was never seen to end fail."""
        # Once for each incarnation, never again: ZeroMQ aborts the process when a connection's name is
        # reused.
        if peer.incarnation <= self._newest.get(peer.address, 0):
            return []
        self._newest[peer.address] = peer.incarnation
        known = self._peers.get(peer.address)
        failed = self._forget(known, "replaced by a newer incarnation") if known is not None else []
        if peer.endpoint is None:
            return failed
        self._peers[peer.address] = peer
        self._of_peer[peer_id(peer.address, peer.incarnation)] = set()
        self._asleep.discard(peer.address)
        return failed + self._send_kept(peer.address)

    def peer_down(self, down: PeerDown) -> list[Failed]:
        """Forget an incarnation. Its calls in flight fail now, or are kept if it has fallen asleep."""
        known = self._peers.get(down.address)
        if known is None:
            return self._still_down(down)
        if known.incarnation > down.incarnation:
            return []
        if not down.asleep:
            return self._forget(known, down.reason)
        self._asleep.add(down.address)
        for call_id in self._disconnect(known):
            self._keep(call_id, down.address)
        del self._of_peer[peer_id(known.address, known.incarnation)]
        return []

    def peers_asleep(self, addresses: list[str]) -> None:
        self._asleep.update(address for address in addresses if address not in self._peers)

    def _still_down(self, down: PeerDown) -> list[Failed]:
        """Handle a change of an actor that was not up: it was added asleep, or the start that should wake it has
        failed."""
        if down.asleep:
            if down.incarnation >= self._newest.get(down.address, 0):
                self._asleep.add(down.address)
            return []
        if down.quarantined:
            kept = [self._end(call_id) for call_id in list(self._kept.get(down.address, ()))]
            self._asleep.discard(down.address)
            return [_unavailable(each.key, down.address, down.reason) for each in kept if each is not None]
        if down.address not in self._kept:
            self._asleep.discard(down.address)
        return []

    def _keep(self, call_id: int, address: str) -> None:
        """Keep a call until the actor is up."""
        if address not in self._kept:
            self._kept[address] = {}
            self.tell_supervisor(Wake(address=address))
        self._kept[address][call_id] = None
        self._in_flight[call_id] = self._in_flight[call_id]._replace(peer=None)

    def _send_kept(self, address: str) -> list[Failed]:
        failed: list[Failed] = []
        for call_id in self._kept.pop(address, ()):
            name = self._reach(address)
            assert name is not None, "it is up"
            pending = self._in_flight[call_id] = self._in_flight[call_id]._replace(peer=name)
            self._of_peer[name].add(call_id)
            if not self._send(name, pending.frames):
                self._end(call_id)
                failed.append(_unavailable(pending.key, address, "does not take messages"))
        return failed

    def call(self, call: Call, now: int) -> Failed | None:
        """Send a call. Return a Failed at once when no actor can take it."""
        name = self._reach(call.address)
        if name is None and call.address not in self._asleep:
            return _unavailable(call.key, call.address, "is not running")
        if len(self._in_flight) >= MAX_IN_FLIGHT:
            return Failed(call.key, ErrorBody(ErrorCode.OVERLOADED, "too many calls in flight", True))
        self._last_id += 1
        call_id = self._last_id
        header = call.request if isinstance(call.request, bytes) else encode_header(call.request)
        frames = [call_id.to_bytes(8, "big"), b"", header, *call.payload]
        if name is not None and not self._send(name, frames):
            return _unavailable(call.key, call.address, "does not take messages")
        self._in_flight[call_id] = _InFlight(
            call.key, call.address, name, frames, call.reply_type, call.token
        )
        if call.token is not None:
            self._tokens[call.token] = call_id
        self._deadlines.set(call_id, now + call.timeout_ms)
        if name is None:
            self._keep(call_id, call.address)
        else:
            self._of_peer[name].add(call_id)
        return None

    def cancel(self, token: int) -> None:
        """Cancel a call: the peer receives Cancel in the call's own envelope."""
        call_id = self._tokens.get(token)
        pending = self._end(call_id) if call_id is not None else None
        if pending is not None and pending.peer is not None and call_id is not None:
            self._send(pending.peer, [call_id.to_bytes(8, "big"), b"", encode_header(Cancel())])

    def cast(self, cast: Cast) -> None:
        """Send a cast. It is lost when the peer is down, or does not read and its queue is full."""
        name = self._reach(cast.address)
        if name is None:
            return
        frames = [encode_header(cast.request), *cast.payload]
        size_bytes = sum(map(len, cast.payload))
        if size_bytes < COUNTED_CAST_BYTES:
            self._send(name, frames)
        elif self._untaken.take_room(name, size_bytes):
            try:
                tracker = self.socket.send_multipart([name, *frames], zmq.DONTWAIT, copy=False, track=True)
            except zmq.ZMQError as error:
                self._untaken.give_back(name, size_bytes)
                if error.errno not in _LOST:
                    raise
                return
            assert tracker is not None
            self._untaken.on_sent(name, size_bytes, tracker)

    def tell_supervisor(self, request: Request) -> None:
        self._send(SUPERVISOR.encode(), [encode_header(request)])

    def receive(self, frames: list[bytes]) -> Answered | Failed | None:
        """Return the outcome in a reply's frames (without the peer's name); None if no call waits for it any more."""
        route, header, payload = split_envelope(frames)
        pending = self._end(int.from_bytes(route[0], "big")) if route else None
        if pending is None:
            return None
        if pending.reply_type is None:
            return Answered(pending.key, header, payload)
        try:
            reply = decode_reply(header, pending.reply_type)
        except ProtocolError as error:
            return Failed(pending.key, error.body)
        return (
            Failed(pending.key, reply)
            if isinstance(reply, ErrorBody)
            else Answered(pending.key, reply, payload)
        )

    def next_deadline(self) -> int | None:
        return self._deadlines.next_at()

    def expire(self, now: int) -> list[Failed]:
        """Return the failures of calls whose time is over."""
        failed: list[Failed] = []
        for call_id in self._deadlines.pop_due(now):
            pending = self._end(cast("int", call_id))
            assert pending is not None
            error = ErrorBody(ErrorCode.TIMED_OUT, f"{pending.address} did not answer in time", True)
            failed.append(Failed(pending.key, error))
        return failed

    def close(self) -> None:
        self.socket.close()

    def _reach(self, address: str) -> bytes | None:
        """Return the name of an actor's connection, connecting if necessary; None if the actor is not up."""
        if address == SUPERVISOR:
            return SUPERVISOR.encode()
        peer = self._peers.get(address)
        if peer is None:
            return None
        name = peer_id(address, peer.incarnation)
        if name not in self._connected:
            assert peer.endpoint is not None
            sockets.connect_peer(self.socket, name, peer.endpoint)
            self._connected.add(name)
        return name

    def _send(self, name: bytes, frames: list[Any]) -> bool:
        try:
            if name == SUPERVISOR.encode():
                sockets.send_frames(self._link, frames)
            else:
                sockets.send_frames(self.socket, [name, *frames])
        except zmq.ZMQError as error:
            if error.errno in _LOST:
                return False
            raise
        return True

    def _end(self, call_id: int) -> _InFlight | None:
        pending = self._in_flight.pop(call_id, None)
        if pending is not None:
            if pending.peer is not None:
                self._of_peer[pending.peer].discard(call_id)
            else:
                self._unkeep(call_id, pending.address)
            self._deadlines.cancel(call_id)
            if pending.token is not None:
                del self._tokens[pending.token]
        return pending

    def _unkeep(self, call_id: int, address: str) -> None:
        kept = self._kept[address]
        del kept[call_id]
        if not kept:
            del self._kept[address]

    def _forget(self, peer: PeerUp, reason: str) -> list[Failed]:
        lost = [self._end(call_id) for call_id in self._disconnect(peer)]
        del self._of_peer[peer_id(peer.address, peer.incarnation)]
        return [_unavailable(each.key, peer.address, f"died: {reason}") for each in lost if each is not None]

    def _disconnect(self, peer: PeerUp) -> list[int]:
        """Disconnect from an incarnation. Return the calls in flight to it."""
        name = peer_id(peer.address, peer.incarnation)
        del self._peers[peer.address]
        if name in self._connected:
            assert peer.endpoint is not None
            self._connected.remove(name)
            self.arrived.extend(sockets.disconnect_peer(self.socket, peer.endpoint))
        self._untaken.settle_all()
        return sorted(self._of_peer[name])


def _unavailable(key: Any, address: str, why: str) -> Failed:
    code = ErrorCode.ACTOR_UNAVAILABLE if topic_partition_of(address) is None else ErrorCode.PARTITION_OFFLINE
    return Failed(key, ErrorBody(code, f"{address} {why}", True))
