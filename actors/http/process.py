"""The HTTP actor's process: a listening socket and its connections around the machine. Impure and thin.

One selector holds all of them, so the number of connections costs the loop nothing. The loop watches the selector
through another one, from which it is taken during a rest.
The process gives way to all others of the broker. Started by the supervisor through `main`.
"""

import errno
import gc
import logging
import os
import selectors
import shutil
import socket
from collections import deque
from itertools import count
from typing import ClassVar, assert_never

import msgspec
from msgspec import Struct

from ...transport.actor import Actor, ActorContext
from ...transport.endpoints import host_of
from ...transport.loop import run_actor
from ...transport.processes import own_memory_bytes
from ...transport.security.broker_keys import internal_key
from ...transport.security.key_files import read_key_file
from ...transport.security.keys import ClientKeys
from .effects import (
    Arrived,
    Close,
    Drained,
    Ended,
    Measure,
    Measured,
    Opened,
    OwnEffect,
    OwnEvent,
    Rest,
    Send,
)
from .machine import HttpMachine

ACCEPTS_PER_TURN = 32
READS_PER_TURN = 64
READ_BYTES = 64 * 1024
BACKLOG = 512
LISTEN_AGAIN_MS = 1_000
NICENESS = 10
"""Less urgent than the processes that carry records: an HTTP client must not delay those."""
GARBAGE_THRESHOLD = 100_000
"""The reports of 1,000 actors are 100,000 objects, which the garbage collector would go through several times in a look.
None of them is part of a cycle."""
_log = logging.getLogger(__name__)


class HttpArguments(Struct):
    endpoint: str
    """HOST:PORT; with a port of `*` the system chooses one."""
    is_optional: bool = False
    """True if it is a default: a port that is taken is no alarm."""
    node: str = ""
    """Name of this node in its cluster; empty on one machine."""
    version: str = ""
    kafka_names: bool = False
    has_bridge: bool = False
    server_key_file: str = ""
    """File of the broker's key, in a broker with authentication."""


class _Peer(Struct):
    socket: socket.socket
    unsent: deque[memoryview]


class HttpActor(Actor[OwnEvent, OwnEffect]):
    follows_wall_clock: ClassVar[bool] = True
    machine: HttpMachine

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self._arguments = msgspec.convert(context.arguments, HttpArguments)
        self.machine = HttpMachine(
            node=self._arguments.node,
            version=self._arguments.version,
            is_first=context.incarnation == 1,
            with_kafka_names=self._arguments.kafka_names,
            bridge_salt=os.urandom(16) if self._arguments.has_bridge else b"",
            is_secured=bool(self._arguments.server_key_file),
        )
        self._selector = selectors.DefaultSelector()
        self._gate = selectors.DefaultSelector()
        self._numbers = count(1)
        self._peers: dict[int, _Peer] = {}
        self._listener: socket.socket | None = None
        self._is_resting = False
        self._listen_at = 0

    def endpoint(self) -> None:
        """Return no endpoint: no peer makes requests of it."""

    def shown_endpoint(self) -> str | None:
        if self._listener is None:
            return None
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def client_keys(self) -> ClientKeys | None:
        if not self._arguments.server_key_file:
            return None
        server = read_key_file(self._arguments.server_key_file)
        return ClientKeys(internal_key(server), server.public_key)

    def start(self) -> None:
        os.nice(NICENESS)
        gc.set_threshold(GARBAGE_THRESHOLD)
        self._listen()
        self._gate.register(self._selector.fileno(), selectors.EVENT_READ)
        self.loop.watch(self._gate.fileno(), self._on_ready)

    def end_turn(self) -> None:
        if self._listener is None and self.loop.now >= self._listen_at:
            self._listen()

    def perform(self, effect: OwnEffect) -> None:
        match effect:
            case Send(connection=number, data=data):
                peer = self._peers.get(number)
                if peer is not None:
                    peer.unsent.append(memoryview(data))
                    self._flush(number, peer)
            case Close(connection=number):
                self._close(number)
            case Rest(is_on=is_on):
                self._rest(is_on)
            case Measure(pids=pids):
                disk = shutil.disk_usage(self.context.data_directory)
                memory = {pid: own_memory_bytes(pid) for pid in pids}
                self.loop.dispatch(Measured(memory, disk.free, disk.total))
            case _:
                assert_never(effect)

    def close(self) -> None:
        for number in list(self._peers):
            self._close(number)
        if self._listener is not None:
            self._listener.close()
        self._gate.close()
        self._selector.close()

    # The listening socket

    def _listen(self) -> None:
        """Listen, or try again in a while: another process has the port."""
        host, port = host_and_port(self._arguments.endpoint)
        try:
            self._listener = listening_socket(host, port)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
                raise
            self._listen_at = self.loop.now + LISTEN_AGAIN_MS
            why = f"cannot listen on {self._arguments.endpoint}: {error.strerror}"
            if not self._arguments.is_optional:
                self.alarms = (why,)
            return
        self.alarms = ()
        self._selector.register(self._listener, selectors.EVENT_READ, 0)

    def _rest(self, is_on: bool) -> None:
        self._is_resting = is_on
        if is_on:
            self._gate.unregister(self._selector.fileno())
        else:
            self._gate.register(self._selector.fileno(), selectors.EVENT_READ)

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(ACCEPTS_PER_TURN):
            if self._is_resting:
                return
            try:
                connection, address = self._listener.accept()
            except OSError:
                # None is left, it is gone already, or there are no descriptors for it.
                return
            connection.setblocking(False)
            number = next(self._numbers)
            self._peers[number] = _Peer(connection, deque())
            self._selector.register(connection, selectors.EVENT_READ, number)
            self.loop.dispatch(Opened(number, host_of(address[0])))

    # Connections

    def _on_ready(self) -> None:
        for key, events in self._selector.select(0)[:READS_PER_TURN]:
            if self._is_resting:
                return
            number: int = key.data
            if not number:
                self._accept()
                continue
            peer = self._peers.get(number)
            if peer is not None and events & selectors.EVENT_WRITE:
                self._on_writable(number, peer)
            peer = self._peers.get(number)
            if peer is not None and events & selectors.EVENT_READ:
                self._read(number, peer)

    def _read(self, number: int, peer: _Peer) -> None:
        try:
            data = peer.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.loop.dispatch(Arrived(number, data))
        else:
            self._close(number)
            self.loop.dispatch(Ended(number))

    def _on_writable(self, number: int, peer: _Peer) -> None:
        if peer.unsent:
            self._flush(number, peer)
            return
        self._selector.modify(peer.socket, selectors.EVENT_READ, number)
        self.loop.dispatch(Drained(number))

    def _flush(self, number: int, peer: _Peer) -> None:
        """Send as much as the system takes; the selector reports when it takes more, or has taken everything."""
        while peer.unsent:
            try:
                sent = peer.socket.send(peer.unsent[0])
            except BlockingIOError:
                break
            except OSError:
                # The end of the connection is reported by its next read.
                peer.unsent.clear()
                break
            rest = peer.unsent.popleft()[sent:]
            if rest:
                peer.unsent.appendleft(rest)
        self._selector.modify(peer.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, number)

    def _close(self, number: int) -> None:
        peer = self._peers.pop(number, None)
        if peer is not None:
            self._selector.unregister(peer.socket)
            peer.socket.close()


def host_and_port(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.removeprefix("http://").rpartition(":")
    return host.strip("[]"), 0 if port == "*" else int(port)


def listening_socket(host: str, port: int) -> socket.socket:
    wanted = "0.0.0.0" if host == "*" else host
    family, kind, protocol, _, address = socket.getaddrinfo(wanted, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # The connections of a predecessor that was killed do not keep the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def main(context: ActorContext) -> None:
    """The entry point named in a child spec."""
    run_actor(HttpActor(context), context)
