"""Passes one connection on to a port of this machine, and keeps the bytes of the client."""

import socket
import threading
from contextlib import suppress


class Recorder:
    def __init__(self, to_port: int) -> None:
        self.sent: list[bytes] = []
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._pass_on)
        self._thread.start()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()

    def _pass_on(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.create_connection(("127.0.0.1", self._to_port)) as server:
            back = threading.Thread(target=_copy, args=(server, client, None))
            back.start()
            _copy(client, server, self.sent)
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            back.join()


def _copy(source: socket.socket, target: socket.socket, kept: list[bytes] | None) -> None:
    with suppress(OSError):
        while part := source.recv(65_536):
            if kept is not None:
                kept.append(part)
            target.sendall(part)
