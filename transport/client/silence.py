"""How long a TCP connection has been silent, as the kernel knows it.

Read by the network thread alone. A connection pings every `sockets.PING_MS`, and the other host's libzmq answers by
itself, so a path that works carries bytes all the time, also under a process that is busy and in the middle of a large
frame. A path that a firewall or a NAT has forgotten carries none, while the socket stays open for many minutes.
"""

import os
import socket
import struct
import sys

import zmq

_LAST_RECEIVED_OFFSET = 52
"""Of `tcpi_last_data_recv`, in milliseconds, in Linux's struct tcp_info."""


class Silence:
    """The descriptors of the connections that are up, by endpoint, as the socket's monitor tells them."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}

    def on_event(self, event: int, endpoint: str, value: int) -> None:
        if event == zmq.EVENT_CONNECTED:
            self._descriptors[endpoint] = value
        elif self._descriptors.get(endpoint) == value:
            del self._descriptors[endpoint]

    def measure_ms(self, endpoint: str) -> int | None:
        """Milliseconds since the last byte came; None where it cannot be told."""
        descriptor = self._descriptors.get(endpoint)
        if descriptor is None or sys.platform != "linux":
            return None
        try:
            # A copy: the descriptor is ZeroMQ's, which may close it at any moment.
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_RECEIVED_OFFSET + 4)
        except OSError:
            return None
        found: int = struct.unpack_from("=I", info, _LAST_RECEIVED_OFFSET)[0]
        return found
