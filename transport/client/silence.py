"""Time since the last byte on a TCP connection, from the kernel.

Called only by the network thread. A connection pings every `sockets.PING_MS`, and libzmq at the other end answers
automatically, so a working path carries bytes all the time, even to a busy process and in the middle of a large
frame. A path forgotten by a firewall or NAT carries none, while the socket stays open for many minutes.
"""

import os
import socket
import struct
import sys

import zmq

_LAST_RECEIVED_OFFSET = 52
"""Offset of `tcpi_last_data_recv`, in milliseconds, in Linux's struct tcp_info."""


class Silence:
    """The descriptors of the open connections, by endpoint, as reported by the socket's monitor."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}

    def on_event(self, event: int, endpoint: str, value: int) -> None:
        if event == zmq.EVENT_CONNECTED:
            self._descriptors[endpoint] = value
        elif self._descriptors.get(endpoint) == value:
            del self._descriptors[endpoint]

    def measure_ms(self, endpoint: str) -> int | None:
        """Return milliseconds since the last byte; None where that is not available."""
        descriptor = self._descriptors.get(endpoint)
        if descriptor is None or sys.platform != "linux":
            return None
        try:
            # A copy: ZeroMQ owns the descriptor and may close it at any moment.
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_RECEIVED_OFFSET + 4)
        except OSError:
            return None
        found: int = struct.unpack_from("=I", info, _LAST_RECEIVED_OFFSET)[0]
        return found
