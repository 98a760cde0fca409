"""Limits the connections of an `ipc` server socket: closed before its process runs out of descriptors, reopened
later.

    open    --accepted connections reach the limit-->  shut: the socket's file is renamed, and connecting fails
    shut    --a quarter of them have ended-->          open: the file has its name again

libzmq aborts the process when it accepts a connection and there is no descriptor for it (its `ipc_listener` handles
ENFILE, and not EMFILE). It accepts in a thread of its own, so the limit leaves RESERVED_PART of all descriptors, and
RESERVED_DESCRIPTORS at most, for connections accepted before the door is shut, for those the kernel has queued
(`IPC_BACKLOG` in sockets.py), and for the process's own files. Existing connections stay. A client that finds the
door shut keeps retrying, as it does while an actor starts. Called by `ServerConnections` alone.
"""

import logging
import os
import resource

RESERVED_PART = 2
RESERVED_DESCRIPTORS = 4_096

_log = logging.getLogger("planaria.loop")


class Door:
    def __init__(self, path: str, limit: int | None = None) -> None:
        """Make the door of the socket bound at `path`. `limit` of accepted connections: by default the process's
        own."""
        self._path = path
        self._limit = connections_limit() if limit is None else limit
        self._accepted: set[int] = set()
        self.is_shut = False

    def on_accepted(self, descriptor: int) -> None:
        self._accepted.add(descriptor)
        if not self.is_shut and len(self._accepted) >= self._limit:
            self.is_shut = True
            os.rename(self._path, shut_path(self._path))
            _log.warning("no more connections", extra={"fields": {"connections": len(self._accepted)}})

    def on_ended(self, descriptor: int) -> None:
        self._accepted.discard(descriptor)
        if self.is_shut and len(self._accepted) <= self._limit * 3 // 4:
            self.is_shut = False
            os.rename(shut_path(self._path), self._path)

    def close(self) -> None:
        """Restore the file's name, by which ZeroMQ removes the file of a socket that it closes."""
        if self.is_shut:
            os.rename(shut_path(self._path), self._path)


def shut_path(path: str) -> str:
    """Return the name of the socket's file while the door is shut."""
    return f"{path}~"


def connections_limit() -> int:
    """Return the number of connections that this process may accept."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return 2**31
    return descriptors - min(descriptors // RESERVED_PART, RESERVED_DESCRIPTORS)
