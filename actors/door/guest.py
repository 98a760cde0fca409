"""One connection of the TLS door, and its sockets: the handshake, the first bytes, then a relay."""

import contextlib
import socket
import ssl
from typing import Any

from ...transport.keep_alive import keep_alive
from ...transport.security.principals import is_principal_name
from ...transport.security.relay import READ, WRITE, Relay
from .opening import Opening


class Guest:
    def __init__(self, number: int, accepted: socket.socket) -> None:
        self.number = number
        accepted.setblocking(False)
        keep_alive(accepted)
        self._accepted: socket.socket = accepted
        self._secure: ssl.SSLSocket | None = None
        self._plain: socket.socket | None = None
        self._relay: Relay | None = None
        self._opening: Opening | None = None

    @property
    def is_opened(self) -> bool:
        return self._opening is not None and self._opening.is_over

    @property
    def descriptors(self) -> list[int]:
        """The client's, then that of the gateway, if there is one."""
        own = self._accepted if self._secure is None else self._secure
        found = [each.fileno() for each in (own, self._plain) if each is not None]
        return [each for each in found if each >= 0]

    def begin(self, context: ssl.SSLContext) -> None:
        """Begin TLS. Raises OSError."""
        self._secure = context.wrap_socket(
            self._accepted, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )

    def shake_hands(self) -> int:
        """Go on with the handshake; return the event to wait for, 0 when it is complete. Raises OSError."""
        assert self._secure is not None
        try:
            self._secure.do_handshake()
        except ssl.SSLWantReadError:
            return READ
        except ssl.SSLWantWriteError:
            return WRITE
        return 0

    def certificate(self) -> tuple[str, int]:
        """Return the name in the client's certificate and its end, in ms since the epoch; "" and 0 without one.

        A name that no principal can have counts as none.
        """
        assert self._secure is not None
        found: Any = self._secure.getpeercert()
        if not found:
            return "", 0
        names = [value for part in found["subject"] for key, value in part if key == "commonName"]
        if len(names) != 1 or not is_principal_name(names[0]):
            return "", 0
        return names[0], int(ssl.cert_time_to_seconds(found["notAfter"])) * 1_000

    def join(self, endpoint: str, name: bytes) -> None:
        """Connect to the gateway. Raises OSError."""
        assert self._secure is not None
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        self._plain = socket.socket()
        self._plain.setblocking(False)
        self._plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BlockingIOError):
            self._plain.connect((host, int(port)))
        self._opening = Opening(name)
        self._relay = Relay(self._secure, self._plain, change=self._open)

    def run(self) -> None:
        """Relay. Raises RelayEnded, OpeningRefused."""
        assert self._relay is not None
        self._relay.run()

    @property
    def wanted(self) -> tuple[int, int]:
        assert self._relay is not None
        return self._relay.wanted

    def close(self) -> None:
        for each in (self._accepted, self._secure, self._plain):
            if each is not None:
                each.close()

    def _open(self, part: bytes) -> bytes:
        assert self._opening is not None
        assert self._relay is not None
        out = self._opening.take(part)
        if self._opening.is_over:
            self._relay.pass_on()
        return out
