"""Events of a socket's monitor, without an event loop.

`zmq.utils.monitor` imports asyncio, a tenth of all that the fork server of a broker loads.
"""

import struct
from typing import NamedTuple

import zmq


class SocketEvent(NamedTuple):
    event: int
    """A number of `zmq.Event`."""
    value: int
    endpoint: str


def receive_event(monitor: "zmq.Socket[bytes]", flags: int = 0) -> SocketEvent:
    """Receive the next event. With NOBLOCK it raises zmq.Again when there is none."""
    head, endpoint = monitor.recv_multipart(flags)
    event, value = struct.unpack("=hi", head)
    return SocketEvent(event, value, endpoint.decode())
