"""The options of all sockets: every limit is named here, none is left to ZeroMQ's defaults.

ROUTER_MANDATORY, bounded high-water marks and zero linger throughout: a message that cannot leave now is an error for
the caller. No message waits for a successor of its receiver, because no endpoint is ever bound twice. (IMMEDIATE
would be the alternative, but a connection made with it loses the name that CONNECT_ROUTING_ID gives it.)
"""

import atexit
import contextlib
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from socket import AF_INET, SOCK_STREAM, getaddrinfo
from typing import Any

import zmq
import zmq.utils.garbage
from zmq.backend import Socket as CoreSocket

from .addresses import Address
from .endpoints import peer_id
from .protocol.message import MAX_FRAME_BYTES
from .security.curve import relay_server, secure_client, secure_server, unsecure_client
from .security.keys import ClientKeys, KeyPair, ServerKeys

SERVER_HIGH_WATER_MARK = 1_000
"""Replies that may wait for one peer at an actor's server socket."""
UNREAD_HIGH_WATER_MARK = 128
"""Requests of one peer that are read ahead of the actor; later ones wait at the peer."""
CALLS_HIGH_WATER_MARK = 10_000
COPY_LIMIT_BYTES = 64 * 1024
"""A frame from this size on is handed to ZeroMQ without a copy. pyzmq keeps it until a thread of its own hears that it
has left: two switches of threads, which take longer than the copy of a smaller frame.

Exit handlers run in the reverse order of their registration: those of clients, which flush; then `_copy_all`; then the
end of pyzmq's thread, which the import of `zmq.utils.garbage` has registered."""
CONTROL_HIGH_WATER_MARK = 100_000
NO_ZAP_DOMAIN = b"none"
RECONNECT_MS = 20
RECONNECT_MAX_MS = 500
HANDSHAKE_MS = 5_000
CONNECT_TIMEOUT_MS = 3_000
"""Time in which an address must accept or refuse a connection; otherwise it counts as refusing."""
PING_MS = 2_000
"""Interval of a client's ZMTP pings over TCP. libzmq answers them in a thread of its own, also in a busy process."""
PEER_SILENCE_MS = 30_000
"""A connection that pings ends when no whole frame arrives for this long: at the client, and by the ping's TTL at
the server. So the path must carry a frame of MAX_FRAME_BYTES in this time."""
NODE_PING_MS = 1_000
NODE_SILENCE_MS = 5_000
"""The same between the nodes of a cluster: a follower that is cut off alone holds up producers until then."""
KEEPALIVE_IDLE_S = 15
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_PROBES = 3
UNACKNOWLEDGED_MS = 60_000
"""A TCP connection ends when the other host acknowledges nothing, or accepts no byte, for this long."""
TCP_BACKLOG = 4_096
MAX_SOCKETS = 8_192
END_S = 2.0
"""Time limit for the end of a context; it takes a millisecond."""

# As plain numbers: arithmetic on ZeroMQ's enumerations takes longer than the calls that take them.
_DONTWAIT = int(zmq.DONTWAIT)
_MORE_DONTWAIT = int(zmq.SNDMORE) | _DONTWAIT
_send_frame = CoreSocket.send
_receive_frame = CoreSocket.recv
_zmq_poll = zmq.zmq_poll
_READABLE = int(zmq.POLLIN)
_EVENT = struct.Struct("=hi")


def _copy_all() -> None:
    global COPY_LIMIT_BYTES
    COPY_LIMIT_BYTES = sys.maxsize


atexit.register(_copy_all)


def new_context() -> "zmq.Context[zmq.Socket[bytes]]":
    """Make the context: one for each process, after its fork."""
    context = zmq.Context(io_threads=1)
    context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
    return context


def end_context(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    """End a context whose sockets are closed, within END_S.

    libzmq 4.3.5 occasionally never reaps a ROUTER that was closed while a peer reconnected, and then waits for it
    forever, with all its threads idle. The process's exit frees the context; during it Python 3.12 starts no thread.
    """
    ending = threading.Thread(target=context.term, name="planaria-context-end", daemon=True)
    with contextlib.suppress(RuntimeError):
        ending.start()
        ending.join(END_S)


def _socket(
    context: "zmq.Context[zmq.Socket[bytes]]", kind: int, high_water_mark: int
) -> "zmq.Socket[bytes]":
    socket = context.socket(kind)
    socket.copy_threshold = 0  # a tracked frame must report when it has left, however small
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, high_water_mark)
    socket.setsockopt(zmq.RCVHWM, high_water_mark)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_PROBES)
    socket.setsockopt(zmq.TCP_MAXRT, UNACKNOWLEDGED_MS)
    return socket


def _opened(
    socket: "zmq.Socket[bytes]", open_at: Callable[[str], object], endpoint: str
) -> "zmq.Socket[bytes]":
    """Return the socket, bound or connected. Closes it if that fails."""
    _choose_family(socket, endpoint)
    try:
        open_at(endpoint)
    except zmq.ZMQError:
        socket.close()
        raise
    return socket


def _choose_family(socket: "zmq.Socket[bytes]", endpoint: str) -> None:
    """Enable IPv6 for an IPv6 address: `tcp://[::]` is bound for both families, `tcp://127.0.0.1` for one."""
    socket.setsockopt(zmq.IPV6, int(endpoint.startswith("tcp://[")))


def _numeric(endpoint: str) -> str:
    """Return the endpoint to bind with an address in place of its host name. libzmq itself would find IPv4 only.

    The first IPv4 address is preferred. An endpoint whose host is no name is returned as it is; so is one whose host
    cannot be resolved, which may be the name of a network interface.
    """
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not endpoint.startswith("tcp://") or host == "*" or host.startswith("["):
        return endpoint
    try:
        found = getaddrinfo(host, None, type=SOCK_STREAM)
    except (OSError, UnicodeError):
        return endpoint
    family, _, _, _, address = min(found, key=lambda each: each[0] != AF_INET)
    return f"tcp://{address[0]}:{port}" if family == AF_INET else f"tcp://[{address[0]}]:{port}"


def server_socket(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str | None, keys: ServerKeys | None = None
) -> "zmq.Socket[bytes]":
    """Return a ROUTER bound at `endpoint`; None leaves that to its door (door.py). With `keys` it accepts only
    encrypted connections. Raises zmq.ZMQError when it cannot be bound."""
    socket = _socket(context, zmq.ROUTER, SERVER_HIGH_WATER_MARK)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.RCVHWM, UNREAD_HIGH_WATER_MARK)
    socket.setsockopt(zmq.BACKLOG, TCP_BACKLOG)
    if keys is not None:
        secure_server(socket, keys)
    return socket if endpoint is None else _opened(socket, socket.bind, _numeric(endpoint))


def bind_for_peers(socket: "zmq.Socket[bytes]", endpoint: str, keys: KeyPair | None) -> str:
    """Bind a server socket at a further endpoint, over TCP, and return that, with the port if any was asked for.

    With keys, a connection is encrypted, and its client must have them (KeyCheck). Raises zmq.ZMQError when it cannot
    be bound.
    """
    if keys is not None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret_key.encode())
    _opened(socket, socket.bind, _numeric(endpoint))
    bound = socket.getsockopt_string(zmq.LAST_ENDPOINT)
    if keys is not None:
        unsecure_client(socket)  # the later ones are local
    return bound


def bind_for_relays(socket: "zmq.Socket[bytes]") -> str:
    """Bind a server socket with keys at a further endpoint, for the connections that the TLS door relays. Return it.

    Over TCP, not `ipc`: libzmq aborts the process when it accepts a local connection and has no descriptor for it.
    """
    relay_server(socket)
    _opened(socket, socket.bind, "tcp://127.0.0.1:*")
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def calls_socket(context: "zmq.Context[zmq.Socket[bytes]]") -> "zmq.Socket[bytes]":
    """Return a ROUTER that connects out. `connect_peer` names each connection."""
    socket = _socket(context, zmq.ROUTER, CALLS_HIGH_WATER_MARK)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    return socket


def send_frames(socket: "zmq.Socket[bytes]", frames: Sequence[Any]) -> None:
    """Send one message, or raise zmq.ZMQError at once: zmq.Again when there is no room for it.

    Like `send_multipart`, but in a third of its time; the rest goes into flags and into pyzmq's own wrapper. Frames must
    be bytes or memoryviews. Large ones are not copied, see COPY_LIMIT_BYTES.
    """
    for frame in frames[:-1]:
        _send_frame(socket, frame, _MORE_DONTWAIT, len(frame) < COPY_LIMIT_BYTES)
    _send_frame(socket, frames[-1], _DONTWAIT, len(frames[-1]) < COPY_LIMIT_BYTES)


def send_tracked(socket: "zmq.Socket[bytes]", frames: Sequence[Any]) -> zmq.MessageTracker:
    """As `send_frames`. Return the tracker of the last frame: ZeroMQ releases the frames in their order."""
    for frame in frames[:-1]:
        _send_frame(socket, frame, _MORE_DONTWAIT, len(frame) < COPY_LIMIT_BYTES)
    tracker: zmq.MessageTracker = _send_frame(socket, frames[-1], _DONTWAIT, False, True)
    return tracker


def receive_frames(
    socket: "zmq.Socket[bytes]", note: Callable[[zmq.Frame], None] | None = None
) -> list[bytes]:
    """Receive one message, passing its first frame to `note`. Raises zmq.Again when there is none.

    A frame has a flag for the last one: this avoids querying the socket.
    """
    frames: list[bytes] = []
    while True:
        frame: Any = _receive_frame(socket, _DONTWAIT, False)
        if note is not None and not frames:
            note(frame)
        frames.append(frame.bytes)
        if not frame.more:
            return frames


def has_message(socket: "zmq.Socket[bytes]") -> bool:
    """Return True if the socket has a message. Reading the option EVENTS takes twice as long, because pyzmq looks the
    option up in an enumeration. This call releases the interpreter lock, so a process with one thread makes it."""
    return bool(_zmq_poll(((socket, _READABLE),), 0))


def monitor_events(monitor: "zmq.Socket[bytes]") -> Iterator[tuple[int, int, str]]:
    """Yield the events that a socket's monitor has: a number of `zmq.Event`, its value, the endpoint.

    `zmq.utils.monitor` imports asyncio, a tenth of all that the fork server of a broker loads, and its parser takes six
    times as long: ten thousand connections may end at once.
    """
    with contextlib.suppress(zmq.Again):
        while True:
            head, endpoint = monitor.recv_multipart(_DONTWAIT)
            event, value = _EVENT.unpack(head)
            yield event, value, endpoint.decode()


def connect_peer(
    socket: "zmq.Socket[bytes]",
    name: bytes,
    endpoint: str,
    keys: ClientKeys | None = None,
    *,
    is_between_nodes: bool = False,
) -> None:
    """Connect a calls socket to `endpoint`, addressed as `name`. Over TCP the connection pings, and is encrypted if
    there are `keys`.

    The options apply to the connections made after them. A server does not ping: client libraries that implement ZMTP
    3.0 close the connection at a ping, or take it for a message. A ZAP domain makes libzmq refuse peers that do not send
    the greeting of ZMTP 3, as keys do. Otherwise it takes the bytes of any program, such as an HTTP server, for ZMTP
    1.0, and aborts the process if they arrive while the peer is being disconnected.
    """
    is_remote = endpoint.startswith("tcp://")
    if is_remote and keys is None:
        socket.setsockopt(zmq.ZAP_DOMAIN, NO_ZAP_DOMAIN)
    ping_ms, silence_ms = (NODE_PING_MS, NODE_SILENCE_MS) if is_between_nodes else (PING_MS, PEER_SILENCE_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, ping_ms if is_remote else 0)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, silence_ms)
    socket.setsockopt(zmq.HEARTBEAT_TTL, silence_ms)
    if keys is not None:
        if is_remote:
            secure_client(socket, keys)
        else:
            unsecure_client(socket)
    _choose_family(socket, endpoint)
    socket.setsockopt(zmq.CONNECT_ROUTING_ID, name)
    socket.connect(endpoint)


def disconnect_peer(socket: "zmq.Socket[bytes]", endpoint: str) -> list[list[bytes]]:
    """Disconnect a calls socket from `endpoint`. Return messages of any peer that had arrived, which must be handled
    first.

    Polling takes the first part of a message out of its connection's pipe. If that pipe is removed before the rest is
    read, libzmq aborts the process (zeromq/libzmq#3485).
    """
    arrived: list[list[bytes]] = []
    with contextlib.suppress(zmq.Again):
        while True:
            arrived.append(receive_frames(socket))
    with contextlib.suppress(zmq.ZMQError):  # the socket has already dropped it
        socket.disconnect(endpoint)
    return arrived


def control_link(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, address: Address, incarnation: int
) -> "zmq.Socket[bytes]":
    """Return an actor's DEALER to its supervisor, named `address.incarnation` there."""
    socket = _socket(context, zmq.DEALER, CONTROL_HIGH_WATER_MARK)
    socket.setsockopt(zmq.ROUTING_ID, peer_id(address, incarnation))
    socket.connect(endpoint)
    return socket


def unnamed_link(
    context: "zmq.Context[zmq.Socket[bytes]]",
    endpoint: str,
    linger_ms: int = 0,
    *,
    queues_unconnected: bool = True,
) -> "zmq.Socket[bytes]":
    """Return a DEALER for requests from outside the tree, and for last messages while the name may still be in use.

    Unsent messages have `linger_ms` to leave when it is closed. Without `queues_unconnected` nothing can be sent
    before the peer has completed the handshake. Raises zmq.ZMQError for an invalid endpoint.
    """
    socket = _socket(context, zmq.DEALER, CONTROL_HIGH_WATER_MARK)
    socket.setsockopt(zmq.LINGER, linger_ms)
    socket.setsockopt(zmq.IMMEDIATE, int(not queues_unconnected))
    return _opened(socket, socket.connect, endpoint)


def control_socket(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str | None) -> "zmq.Socket[bytes]":
    """Return the supervisor's ROUTER, bound at `endpoint`; None leaves that to its door. Raises zmq.ZMQError when it
    cannot be bound."""
    socket = _socket(context, zmq.ROUTER, CONTROL_HIGH_WATER_MARK)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.RCVHWM, UNREAD_HIGH_WATER_MARK)
    return socket if endpoint is None else _opened(socket, socket.bind, endpoint)
