"""The serving side of an actor: its server socket, the connections to it, and the requests that arrive.

A request becomes an event of the machine, or is refused at once: if it cannot be read, and if a client has sent one
that only actors may make. In a broker with authentication only the gateway takes requests of clients; its socket has
keys, and each request carries the public key of its connection. Requests of an actor that follows hosts are read ahead
and taken in turn (`inbox.py`). Called by the loop alone, which decides how much is read in a turn.
"""

from collections.abc import Callable, Sequence
from typing import Any

import zmq

from . import sockets
from .actor import Actor, PeerDoor
from .codec import envelope_of, id_of, is_json, split_envelope
from .inbox import Inbox
from .machine import Connected, Disconnected, LoopEvent, Received, Reply, Sender
from .meters import Meters
from .protocol.data import Produce
from .protocol.errors import ErrorBody, ErrorCode, ProtocolError
from .request_context import KEY_PREFIX, ContextFrames, direct_context, refusal_of_client
from .security.curve import RELAYED, Zap
from .security.node_keys import KeyCheck
from .security.self_test import check_refusals
from .security.vouchers import KEY_MARK
from .server_connections import ServerConnections

NO_DIRECT_ACCESS = ErrorBody(
    ErrorCode.UNAUTHENTICATED, "this broker has authentication: clients use its public endpoint"
)
LOCAL_PREFIX = "localhost:"
"""Before user, group and process id: the "Peer-Address" of a connection over `ipc`. Over TCP it is a numeric address."""
HELLO_MS = 5_000
"""Time in which a connection to a socket with keys has to send a request that proves its principal."""
EXIT_FLUSH_MS = 500
"""Time for a stopping actor's last replies to leave."""


class ServerSide:
    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        actor: Actor[Any, Any],
        contexts: ContextFrames,
        deliver: Callable[[LoopEvent], None],
        answer: Callable[[Reply], None],
        clock_ns: Callable[[], int],
        peers: PeerDoor | None = None,
    ) -> None:
        """Bind the actor's endpoint, and that of `peers`, whose connections may send NodeRequests and PeerRequests alone.
        `deliver` takes events of the machine, `answer` takes refusals; `clock_ns` is the one of the meters."""
        endpoint = actor.endpoint()
        assert endpoint is not None
        is_local = endpoint.startswith("ipc://")
        keys = actor.server_keys()
        self._refuses_clients = actor.context.is_secured and keys is None
        # Before the socket: a handshake without an answer would be admitted.
        self.zap = None if keys is None else Zap(context, actor.admits)
        self.socket = sockets.server_socket(context, None if is_local else endpoint, keys)
        self.socket.setsockopt(zmq.LINGER, EXIT_FLUSH_MS)
        self.endpoint = endpoint if is_local else self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        if keys is not None and self.zap is not None:
            check_refusals(context, self.zap, self.endpoint, keys.own.public_key)
        self.peer_endpoint = ""
        self._peers: set[bytes] | None = None
        """Connections of other nodes, in an actor with an endpoint for them."""
        if peers is not None:
            assert actor.follows_connections, "others do not know which connections are those of nodes"
            self._peers = set()
            if peers.keys is not None:
                KeyCheck(context, peers.keys)
            self.peer_endpoint = sockets.bind_for_peers(self.socket, peers.endpoint, peers.keys)
        self._vouchers = actor.vouchers()
        """Reads the names of connections that the TLS door relays; None: there are none."""
        if self._vouchers is not None:
            actor.on_relays_bound(sockets.bind_for_relays(self.socket))
        self._hosts: dict[bytes, str] = {}
        self.inbox: Inbox | None = Inbox(self._hosts) if actor.follows_hosts else None
        self.ended: dict[bytes, None] = {}
        """Lost connections whose end is not delivered yet. An actor with an inbox is given as many in a turn as there is
        time for: each may have a thousand requests to withdraw."""
        on_new = self._on_connected if actor.follows_hosts else None
        self._users: dict[bytes, str] = {}
        """Principals of connections, with keys."""
        if peers is not None:
            on_new = self._on_peer
        self.connections = ServerConnections(
            context, self.socket, endpoint, on_new, follows_accepted=keys is not None
        )
        self._knows = actor.knows
        self.note = self.connections.note if actor.follows_connections else None
        if self.zap is not None:
            assert actor.follows_hosts, "others do not know the users of their connections"
            self.note = self._note_user
        """Takes the frames of each message on the socket."""
        self.sources: list[Any] = [self.connections.monitor, *([self.connections.queue] if is_local else [])]
        if self.zap is not None:
            self.sources.append(self.zap.socket)
        """Sources to poll beside the socket."""
        self._decoder = actor.decoder
        self._contexts = contexts
        self._deliver = deliver
        self._answer = answer
        self._clock_ns = clock_ns

    def follow_connections(self, ready: Sequence[Any]) -> bool:
        """Handle connections that came and went; called after the requests of a turn were read.

        Return True if the server socket may have been used.
        """
        has_changed = self.connections.monitor in ready or self.connections.has_gone
        if has_changed:
            # After the requests: a connection that sent one and then ended is entered first, and removed again.
            for connection in self.connections.gone():
                self._end(connection)
        if self.connections.queue in ready:
            self.connections.admit()
            has_changed = True
        return has_changed

    def _end(self, connection: bytes) -> None:
        self._hosts.pop(connection, None)
        self._users.pop(connection, None)
        if self._peers is not None:
            self._peers.discard(connection)
        self.ended[connection] = None
        if self.inbox is None:
            self.end_next()
        else:
            self.inbox.forget(connection)

    def _note_user(self, frame: zmq.Frame) -> None:
        """Enter the connection of a message with its user. A name that another user takes over is another connection."""
        connection = frame.bytes
        try:
            user_id = frame.get("User-Id")
        except zmq.ZMQError:
            user_id = ""
        user = f"{KEY_PREFIX}{self._voucher_key(connection) if user_id == RELAYED else user_id}"
        if self._users.get(connection, user) != user:
            self.connections.forget(connection)
            self._end(connection)
        self._users[connection] = user
        self.connections.note(frame)

    def judge_connections(self, now: int) -> None:
        """Cut connections of strangers: those whose key has no principal HELLO_MS after they were accepted."""
        if self.zap is not None:
            self.connections.judge(now, HELLO_MS, self._is_kept)

    def _is_kept(self, connection: bytes | None) -> bool | None:
        if connection is None:
            return False
        return self._knows(self._users.get(connection, KEY_PREFIX).removeprefix(KEY_PREFIX))

    def _voucher_key(self, connection: bytes) -> str:
        """Return the key of a relayed connection; empty if it is not the TLS door that relays it."""
        known = self._users.get(connection, "").removeprefix(KEY_PREFIX)
        if known.startswith(KEY_MARK):
            return known
        voucher = None if self._vouchers is None else self._vouchers.read(connection)
        return "" if voucher is None else voucher.key

    def end_next(self) -> None:
        """Deliver the end of the connection that has been lost for longest."""
        connection = next(iter(self.ended))
        del self.ended[connection]
        self._deliver(Disconnected(connection))

    def read_first(self, meters: Meters) -> bool:
        """Handle the request that has arrived, if no other one waits: it needs no queue. Return True if there may be
        more."""
        assert self.inbox is not None
        try:
            frames = sockets.receive_frames(self.socket, self.note)
        except zmq.Again:
            return False
        meters.on_received(sum(map(len, frames)))
        if self.inbox:
            self.inbox.put(frames)
            return True
        self.on_request(frames)
        return sockets.has_message(self.socket)

    def on_request(self, frames: list[bytes]) -> None:
        context = self._contexts.take(frames)
        peer, rest = frames[0], frames[1:]
        try:
            envelope, header, payload = split_envelope(rest)
        except ProtocolError as error:
            self._answer(Reply(Sender((peer, *envelope_of(rest)), None), error.body))
            return
        route = (peer, *envelope)
        as_json = is_json(header)
        try:
            assert self._decoder is not None
            request = self._decoder.decode(header, len(payload))
        except ProtocolError as error:
            self._answer(Reply(Sender(route, id_of(header), as_json), error.body))
            return
        sender = Sender(route, request.id, as_json, type(request), self._clock_ns())
        if context is None:
            is_peer = self._peers is not None and peer in self._peers
            is_refused = self._refuses_clients and not is_peer
            refusal = NO_DIRECT_ACCESS if is_refused else refusal_of_client(request, is_peer=is_peer)
            if refusal is not None:
                if not isinstance(request, Produce) or request.acks != 0:
                    self._answer(Reply(sender, refusal))
                return
            context = direct_context(peer, request, self._users.get(peer, KEY_PREFIX) if self.zap else "")
        self._deliver(Received(sender, request, payload, header, context))

    def close(self) -> None:
        self.connections.close()
        self.socket.close()
        if self.zap is not None:
            self.zap.close()

    def _on_peer(self, connection: bytes, host: str) -> None:
        """Note a connection over TCP; a local one has the name of its process in place of a host."""
        assert self._peers is not None
        if not host.startswith(LOCAL_PREFIX):
            self._peers.add(connection)

    def _on_connected(self, connection: bytes, host: str) -> None:
        if connection in self.ended:  # the client gives its connections this name
            del self.ended[connection]
            self._deliver(Disconnected(connection))
        voucher = None if self._vouchers is None else self._vouchers.read(connection)
        if voucher is not None:
            host = voucher.host  # that of the connection itself is the door's
        self._hosts[connection] = host
        self._deliver(Connected(connection, host))
