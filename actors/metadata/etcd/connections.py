"""The threads that talk to etcd's JSON gateway. Impure; called by `store.py` alone.

    worker    one HTTP request at a time, over connections that it keeps; as many as there are requests at a time
    stream    one watch, until it ends or is closed
    alarm     waits for the time of the last WakeAt

Threads only perform: they decide nothing, and their results go into one queue, with a byte into a pipe that wakes
the actor's loop. No thread is waited for at the end: a name that does not resolve may hold one for long.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple

from ....transport.clock import elapsed_ms
from ....transport.event_queue import EventQueue
from .effects import EtcdEvent, OpenWatch, Replied, Send, WatchSaid, Woken
from .encoding import (
    OK_STATUS,
    WATCH_HEADERS,
    WATCH_PATH,
    decode_refusal,
    decode_reply,
    decode_watch,
    encode_request,
    encode_watch,
)
from .requests import Silence, WatchEnded

CONNECT_TIMEOUT_S = 0.5
MAX_REFUSAL_BYTES = 4_096
MAX_LINE_BYTES = 64 * 1024 * 1024


def now_ms() -> int:
    """Return a clock that counts the machine's sleep: a lease goes on while the machine sleeps."""
    return elapsed_ms()


class Endpoint(NamedTuple):
    host: str
    port: int


class Connections:
    """Performs orders; results are taken with `take`, whenever `fileno()` is readable."""

    def __init__(self, endpoints: list[Endpoint], tls: ssl.SSLContext | None) -> None:
        self._endpoints = endpoints
        self._tls = tls
        self._results: EventQueue[EtcdEvent] = EventQueue()
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[Send | None]] = []
        self._is_closed = False
        self._streams: dict[int, _Stream] = {}
        self._alarm = _Alarm(lambda: self.put(Woken()))

    def fileno(self) -> int:
        return self._results.fileno()

    # In the actor's thread.

    def take(self) -> list[EtcdEvent]:
        return self._results.take()

    def send(self, order: Send) -> None:
        with self._lock:
            queue = self._idle.pop() if self._idle else None
        if queue is None:
            queue = SimpleQueue()
            self._start(lambda: self._work(queue), "etcd-request")
        queue.put(order)

    def open_watch(self, order: OpenWatch) -> None:
        stream = _Stream(self, order)
        self._streams[order.number] = stream
        self._start(stream.run, "etcd-watch")

    def close_watch(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.close()

    def wake_at(self, at_ms: int) -> None:
        self._alarm.set(at_ms)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        self._results.close()
        for queue in idle:
            queue.put(None)
        self._alarm.close()
        for number in list(self._streams):
            self.close_watch(number)

    @staticmethod
    def _start(run: Callable[[], None], name: str) -> None:
        threading.Thread(target=run, name=name, daemon=True).start()

    # In the other threads.

    def put(self, event: EtcdEvent) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._results.post(event)

    def connect(self, endpoint: int, timeout_s: float) -> http.client.HTTPConnection:
        host, port = self._endpoints[endpoint]
        if self._tls is None:
            connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        else:
            connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._tls)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _work(self, queue: "SimpleQueue[Send | None]") -> None:
        kept: dict[int, http.client.HTTPConnection] = {}
        while (order := queue.get()) is not None:
            self.put(self._perform(order, kept))
            with self._lock:
                if self._is_closed:
                    break
                self._idle.append(queue)
        for connection in kept.values():
            connection.close()

    def _perform(self, order: Send, kept: dict[int, http.client.HTTPConnection]) -> Replied:
        path, body = encode_request(order.request)
        headers = {"Authorization": order.token} if order.token else {}
        timeout_s = order.timeout_ms / 1_000
        connection = kept.pop(order.endpoint, None)
        was_sent = False
        try:
            if connection is None:
                connection = self.connect(order.endpoint, timeout_s)
            was_sent = True
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            if connection is not None:
                connection.close()
            return Replied(order.number, Silence(self._reason(order.endpoint, error), was_sent))
        kept[order.endpoint] = connection
        return Replied(order.number, decode_reply(order.request, response.status, answer))

    def _reason(self, endpoint: int, error: Exception) -> str:
        host, port = self._endpoints[endpoint]
        return f"{host}:{port}: {str(error) or type(error).__name__}"


class _Stream:
    """One watch. `close` may come at any time, from the actor's thread."""

    def __init__(self, connections: Connections, order: OpenWatch) -> None:
        self._connections = connections
        self._order = order
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_closed = False

    def run(self) -> None:
        try:
            reason = self._read()
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error) or type(error).__name__
        if not self._is_closed:
            self._connections.put(WatchSaid(self._order.number, WatchEnded(reason)))

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._socket is not None:
                _shut_down(self._socket)

    def _read(self) -> str:
        order = self._order
        connection = self._connections.connect(order.endpoint, CONNECT_TIMEOUT_S)
        own = connection.sock
        try:
            with self._lock:
                if self._is_closed:
                    return "closed"
                self._socket = own
            headers = {**WATCH_HEADERS, **({"Authorization": order.token} if order.token else {})}
            connection.request(
                "POST", WATCH_PATH, encode_watch(order.key, order.end, order.start_revision), headers
            )
            # etcd sends the head of its answer with the first message, which confirms the watch.
            own.settimeout(None)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            response = connection.getresponse()
            if response.status != OK_STATUS:
                return decode_refusal(response.status, response.read(MAX_REFUSAL_BYTES))
            while line := response.readline(MAX_LINE_BYTES):
                for message in decode_watch(line) if line.strip() else ():
                    self._connections.put(WatchSaid(order.number, message))
            return "the stream ended"
        finally:
            with self._lock:
                self._socket = None
            connection.close()


def _shut_down(open_socket: socket.socket) -> None:
    try:
        # Not TLS's own shutdown, which would change the object under the thread that reads it.
        socket.socket.shutdown(open_socket, socket.SHUT_RDWR)
    except OSError:
        pass  # the other side was first


class _Alarm:
    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._condition = threading.Condition()
        self._at_ms: int | None = None
        self._is_closed = False
        threading.Thread(target=self._run, name="etcd-alarm", daemon=True).start()

    def set(self, at_ms: int) -> None:
        with self._condition:
            self._at_ms = at_ms
            self._condition.notify()

    def close(self) -> None:
        with self._condition:
            self._is_closed = True
            self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                if self._is_closed:
                    return
                left_ms = None if self._at_ms is None else self._at_ms - now_ms()
                if left_ms is None or left_ms > 0:
                    self._condition.wait(None if left_ms is None else left_ms / 1_000)
                    continue
                self._at_ms = None
            self._ring()
