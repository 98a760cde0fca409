"""A client in another language at the TLS door: Python's `ssl`, the bytes of ZMTP 3.0, and JSON. No ZeroMQ."""

import socket
import ssl
from typing import Any

import msgspec

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_BODY = b"\x05READY" + b"\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
READY = bytes([4, len(_BODY)]) + _BODY


class PlainTls:
    """A connection on which the greetings have been exchanged. Raises OSError if the door closes it before."""

    def __init__(
        self,
        endpoint: str,
        ca: str,
        certificate: tuple[str, str] | None = None,
        timeout_s: float = 10.0,
        source: str = "",
    ) -> None:
        """`source` is the client's own address."""
        host, _, port = endpoint.removeprefix("tls://").rpartition(":")
        context = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            context.load_cert_chain(*certificate)
        connection = socket.create_connection((host, int(port)), timeout_s, (source, 0) if source else None)
        self._socket = context.wrap_socket(connection, server_hostname=host)
        try:
            self._socket.sendall(GREETING)
            self._take(64)
            self._socket.sendall(READY)
            flags, _ = self._frame()
        except OSError:
            self._socket.close()
            raise
        assert flags & 4, "READY of the broker"

    def ask(self, **header: Any) -> Any:
        """Return the reply, or the code of the error. Raises OSError if the connection ends."""
        self.send(**header)
        return self.reply()

    def send(self, **header: Any) -> None:
        body = msgspec.json.encode(header)
        self._socket.sendall(b"\x02" + len(body).to_bytes(8, "big") + body)

    def reply(self) -> Any:
        found = self.answer()
        return found["error"]["code"] if "error" in found else found

    def answer(self) -> Any:
        """Return the header of the next answer. Raises OSError if the connection ends, or none comes in time."""
        frames = [self._frame()]
        while frames[-1][0] & 1:
            frames.append(self._frame())
        return msgspec.json.decode(frames[0][1])

    def send_bytes(self, data: bytes) -> None:
        self._socket.sendall(data)

    def is_closed(self) -> bool:
        """Return True when the other side has closed the connection; waits for it."""
        try:
            return not self._socket.recv(1)
        except ConnectionError:
            return True

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "PlainTls":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _frame(self) -> tuple[int, bytes]:
        flags = self._take(1)[0]
        return flags, self._take(int.from_bytes(self._take(8 if flags & 2 else 1), "big"))

    def _take(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            part = self._socket.recv(count - len(found))
            if not part:
                raise ConnectionResetError("closed by the broker")
            found += part
        return found
