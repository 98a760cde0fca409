"""Admits the connections of an `ipc` server socket, in batches that fit into the process's descriptors.

libzmq aborts the process when it accepts a connection and there is no descriptor for it (its `ipc_listener` handles
ENFILE, and not EMFILE). It accepts in a thread of its own, as fast as clients connect, so no limit that the actor's
loop enforces afterwards is one. Therefore libzmq never accepts from a socket that clients can still reach:

    waiting     a listening socket has the file's name; connections queue in the kernel, up to the backlog
    admit       the next listening socket takes over the name; the first, to which no client can connect now, is
                given to libzmq, which accepts its queue: at most the backlog and one more
    draining    until that queue is empty, nothing more is admitted
    shut        accepted connections have reached the limit: the file is renamed, and connecting fails
    waiting     a quarter of them have ended: the file has its name again

libzmq ends the connections of a listening socket that it closes, so a batch keeps its socket as long as one of its
connections lives, and until the next batch: both count. The limit leaves RESERVED_PART of all descriptors, and
RESERVED_DESCRIPTORS at most, for the last batch and for the process's own files. Existing connections stay. A client
that cannot connect keeps retrying, as it does while an actor starts. Called by `ServerConnections`.
"""

import logging
import os
import resource
import select
import selectors
import socket
from typing import NamedTuple

import zmq

RESERVED_PART = 2
RESERVED_DESCRIPTORS = 4_096
BACKLOG_PART = 8
MAX_BACKLOG = 128
"""Connections that the kernel queues and libzmq accepts in one batch: BACKLOG_PART of the limit, or this."""

_log = logging.getLogger("planaria.loop")


class _Batch(NamedTuple):
    endpoint: str
    listener: int
    connections: set[int]

    def is_drained(self) -> bool:
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        return not poll.poll(0)


class Door:
    def __init__(self, server: "zmq.Socket[bytes]", endpoint: str, limit: int | None = None) -> None:
        """Listen at `endpoint` for `server`. `limit` of connections, by default the process's own."""
        self._server = server
        self._path = endpoint.removeprefix("ipc://")
        self._limit = connections_limit() if limit is None else limit
        self._backlog = max(1, min(MAX_BACKLOG, self._limit // BACKLOG_PART))
        self._batches: dict[str, _Batch] = {}
        self._by_connection: dict[int, _Batch] = {}
        self._draining: _Batch | None = None
        self._newest: _Batch | None = None
        """The last one drained. libzmq may not have reported its last connection yet; it has those of the others."""
        self._selector = selectors.DefaultSelector()
        self._listeners = 0
        self.is_shut = False
        self._listener = self._listen()
        self._selector.register(self._listener, selectors.EVENT_READ)

    @property
    def descriptor(self) -> int:
        """Return the descriptor that is readable when connections wait to be admitted."""
        return self._selector.fileno()

    def admit(self) -> None:
        """Give the waiting connections to libzmq."""
        if not self._selector.select(0):
            return
        self._selector.unregister(self._listener)
        waiting, self._listener = self._listener, self._listen()
        endpoint = f"ipc://{waiting.getsockname()}"
        batch = self._draining = self._batches[endpoint] = _Batch(endpoint, waiting.detach(), set())
        self._server.setsockopt(zmq.USE_FD, batch.listener)
        self._server.bind(endpoint)

    def on_accepted(self, endpoint: str, connection: int) -> None:
        """Enter a connection of the batch at `endpoint`."""
        batch = self._batches.get(endpoint)
        if batch is not None:  # otherwise it has ended with its batch
            batch.connections.add(connection)
            self._by_connection[connection] = batch

    def is_drained(self) -> bool:
        """Return True if libzmq has accepted all connections of the last batch, and they are not counted yet."""
        return self._draining is not None and self._draining.is_drained()

    def on_drained(self) -> None:
        """Wait for the next connections, unless there is no room for them: then shut the door."""
        assert self._draining is not None
        before, self._newest, self._draining = self._newest, self._draining, None
        if before is not None:
            self._end_if_empty(before)
        if self._used < self._limit:
            self._selector.register(self._listener, selectors.EVENT_READ)
            return
        os.rename(self._path, shut_path(self._path))
        self.is_shut = True
        _log.warning("no more connections", extra={"fields": {"connections": len(self._by_connection)}})

    def on_ended(self, connection: int) -> None:
        batch = self._by_connection.pop(connection, None)
        if batch is None:
            return
        batch.connections.remove(connection)
        self._end_if_empty(batch)
        if self.is_shut and self._used <= self._limit * 3 // 4:
            os.rename(shut_path(self._path), self._path)
            self.is_shut = False
            self._selector.register(self._listener, selectors.EVENT_READ)

    def close(self) -> None:
        """Stop listening. The connections end with the server socket."""
        self._selector.close()
        self._listener.close()
        os.unlink(shut_path(self._path) if self.is_shut else self._path)

    @property
    def _used(self) -> int:
        return len(self._by_connection) + len(self._batches)

    def _listen(self) -> socket.socket:
        """Return a new socket that listens at the path, in place of the one before."""
        self._listeners += 1
        # Short, because the path of a socket is; the process id tells the actors of a run directory apart.
        bound = f"{os.path.dirname(self._path)}/~{os.getpid()}.{self._listeners}"
        listener = socket.socket(socket.AF_UNIX)
        listener.setblocking(False)
        listener.bind(bound)
        listener.listen(self._backlog)
        os.rename(bound, self._path)
        return listener

    def _end_if_empty(self, batch: _Batch) -> None:
        if not batch.connections and batch is not self._newest and batch is not self._draining:
            del self._batches[batch.endpoint]
            self._server.unbind(batch.endpoint)


def shut_path(path: str) -> str:
    """Return the name of the socket's file while the door is shut."""
    return f"{path}~"


def connections_limit() -> int:
    """Return the number of connections, and of batches of them, that this process may hold."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return 2**31
    return descriptors - min(descriptors // RESERVED_PART, RESERVED_DESCRIPTORS)
