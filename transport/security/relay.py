"""Copies bytes between a TLS connection and a plain one, without waiting. Used by the TLS door and by clients.

Bytes that were read from one side are written to the other at once. While a part of them does not fit, nothing more is
read, so a slow receiver holds MAX_PART_BYTES here, and its sender waits. A part is at least a TLS record, so no decrypted
bytes are left in the TLS layer, which no descriptor would announce.

The caller polls both sockets for `wanted` and then calls `run`. Not for two threads.
"""

import select
import socket
import ssl
from collections.abc import Callable

MAX_PART_BYTES = 64 * 1024
MAX_PARTS = 8
"""Parts copied in one direction in one call."""
READ, WRITE = select.POLLIN, select.POLLOUT


class RelayEnded(Exception):
    """One side is closed or has failed; the message says which and why."""


class Relay:
    def __init__(
        self,
        secure: ssl.SSLSocket,
        plain: socket.socket,
        *,
        first: bytes = b"",
        change: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """Take two connected sockets that do not block, and the first bytes for the plain one.

        `change`, if any, is applied to bytes from the TLS side until `pass_on` is called; an exception of it ends `run`.
        """
        self._secure = secure
        self._plain = plain
        self._change = change
        self._to_plain: bytes | memoryview = first
        self._to_secure: bytes | memoryview = b""
        # TLS may have to read before it can write, and the other way round.
        self._read_needs = READ
        self._write_needs = WRITE

    def pass_on(self) -> None:
        """Copy the bytes from the TLS side as they are from now on."""
        self._change = None

    @property
    def wanted(self) -> tuple[int, int]:
        """Return the events to wait for, of the TLS socket and of the plain one."""
        secure = self._write_needs if self._to_secure else 0
        if not self._to_plain:
            secure |= self._read_needs
        plain = WRITE if self._to_plain else 0
        if not self._to_secure:
            plain |= READ
        return secure, plain

    def run(self) -> None:
        """Copy as much as is possible now. Raises RelayEnded."""
        for _ in range(MAX_PARTS):
            if not self._inwards():
                break
        for _ in range(MAX_PARTS):
            if not self._outwards():
                break

    def _inwards(self) -> bool:
        """Copy a part from the TLS side; return False if there is none, or no room for it."""
        if not self._to_plain:
            try:
                self._read_needs = READ
                part = self._secure.recv(MAX_PART_BYTES)
            except ssl.SSLWantReadError:
                return False
            except ssl.SSLWantWriteError:
                self._read_needs = WRITE
                return False
            except OSError as error:
                raise RelayEnded(f"TLS: {said(error)}") from error
            if not part:
                raise RelayEnded("TLS: closed by the other side")
            self._to_plain = part if self._change is None else self._change(part)
        while self._to_plain:
            try:
                sent = self._plain.send(self._to_plain)
            except BlockingIOError:
                return False
            except OSError as error:
                raise RelayEnded(f"plain: {said(error)}") from error
            self._to_plain = memoryview(self._to_plain)[sent:] if sent < len(self._to_plain) else b""
        return True

    def _outwards(self) -> bool:
        """Copy a part from the plain side; return False if there is none, or no room for it."""
        if not self._to_secure:
            try:
                self._to_secure = self._plain.recv(MAX_PART_BYTES)
            except BlockingIOError:
                return False
            except OSError as error:
                raise RelayEnded(f"plain: {said(error)}") from error
            if not self._to_secure:
                raise RelayEnded("plain: closed by the other side")
        while self._to_secure:
            try:
                self._write_needs = WRITE
                sent = self._secure.send(self._to_secure)
            except ssl.SSLWantWriteError:
                return False
            except ssl.SSLWantReadError:
                self._write_needs = READ
                return False
            except OSError as error:
                raise RelayEnded(f"TLS: {said(error)}") from error
            self._to_secure = memoryview(self._to_secure)[sent:] if sent < len(self._to_secure) else b""
        return True


def said(error: OSError) -> str:
    """Return the reason of an error of a socket, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message or str(error)
    if isinstance(error, ssl.SSLError) and error.reason:
        return str(error.reason).replace("_", " ").lower()
    return error.strerror or str(error)
