"""A relay between a client and a server that can go silent: its connections stay open and carry no more data."""

import selectors
import socket
import threading


class Relay:
    """Forwards TCP connections to a port of this machine, in a thread of its own."""

    def __init__(self, port_behind: int) -> None:
        self.accepted = 0
        self._address_behind = ("127.0.0.1", port_behind)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._other: dict[socket.socket, socket.socket] = {}
        self._silent: set[socket.socket] = set()
        self._is_stopping = False
        self._is_cutting = self._is_parted = False
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "Relay":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping = True
        self._wake_writer.send(b"\0")
        self._thread.join()
        for each in (*self._other, self._listener, self._wake_reader, self._wake_writer):
            each.close()
        self._selector.close()

    def go_silent(self) -> None:
        """Discard the data of the present connections; later ones are forwarded."""
        self._silent |= set(self._other)

    def cut(self) -> None:
        """Close the present connections."""
        self._is_cutting = True
        self._wake_writer.send(b"\0")

    def part(self) -> None:
        """Close the present connections, and every later one, until `join`."""
        self._is_parted = True
        self.cut()

    def join(self) -> None:
        self._is_parted = False

    def _run(self) -> None:
        while not self._is_stopping:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wake_reader:
                    self._wake_reader.recv(100)
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._other:
                    self._forward(key.fileobj)
            if self._is_cutting:
                self._is_cutting = False
                while self._other:
                    self._close(next(iter(self._other)))

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self.accepted += 1
        if self._is_parted:
            client.close()
            return
        try:
            server = socket.create_connection(self._address_behind)
        except ConnectionError:  # the server is gone, and the client has not noticed yet
            client.close()
            return
        self._other |= {client: server, server: client}
        for each in (client, server):
            self._selector.register(each, selectors.EVENT_READ)

    def _forward(self, source: socket.socket) -> None:
        data = _received(source)
        if source in self._silent:
            if not data:
                self._selector.unregister(source)
            return
        try:
            self._other[source].sendall(data)
        except ConnectionError:
            data = b""
        if not data:
            self._close(source)

    def _close(self, source: socket.socket) -> None:
        for each in (source, self._other[source]):
            if each in self._selector.get_map():
                self._selector.unregister(each)
            del self._other[each]
            each.close()


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except ConnectionError:
        return b""
