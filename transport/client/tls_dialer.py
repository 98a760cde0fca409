"""Makes TLS connections for a client's socket, which has no TLS: each with a relay in a thread of its own.

    dial         look the host up, connect, shake hands, wait for the broker's first bytes: a certificate that the
                 broker refuses is noticed only then
    listen       at an `ipc` endpoint in a folder of this user alone, for one connection
    relay        until either side ends

The socket takes the `ipc` endpoint for an address of the broker. It is another one after each loss, so a relay never
reconnects. Called by the network, for one endpoint at a time.
"""

import contextlib
import os
import select
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..calls.events import Resolved
from ..endpoints import host_and_port
from ..keep_alive import keep_alive
from ..security.tls_options import Tls
from ..sockets import CONNECT_TIMEOUT_MS, HANDSHAKE_MS

if TYPE_CHECKING:
    import ssl

ACCEPT_TIMEOUT_S = 10.0
FIRST_BYTES = 64
_UNTRUSTED = frozenset(
    {
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    }
)
"""OpenSSL's names of the alerts by which the broker refuses a certificate."""


class TlsDialer:
    def __init__(self, tls: Tls) -> None:
        """Read the files. Raises TlsFileError."""
        # Imported late: most clients have no TLS.
        from ..security.tls import client_context  # noqa: PLC0415

        self._context = client_context(tls)
        self._server_name = tls.server_name

    def dial(self, endpoint: str, report: Callable[[Resolved], None]) -> None:
        """Call `report`, from another thread, with the endpoint of a relay, or with the reason why there is none."""
        threading.Thread(target=self._dial, args=(endpoint, report), name="planaria-tls", daemon=True).start()

    def _dial(self, endpoint: str, report: Callable[[Resolved], None]) -> None:
        from ..security.relay import said  # noqa: PLC0415

        try:
            secure, first = self._connect(endpoint)
        except OSError as error:
            report(Resolved(fault=said(error), endpoint=endpoint, is_untrusted=_is_untrusted(error)))
            return
        except (UnicodeError, ValueError) as error:
            report(Resolved(fault=str(error), endpoint=endpoint))
            return
        with secure:
            _relay(secure, first, lambda relay: report(Resolved((relay,), endpoint=endpoint)))

    def _connect(self, endpoint: str) -> "tuple[ssl.SSLSocket, bytes]":
        """Return a connection on which the broker has begun, and the first bytes. Raises OSError."""
        found = host_and_port(endpoint)
        assert found is not None, endpoint
        connection = socket.create_connection(found, CONNECT_TIMEOUT_MS / 1_000)
        try:
            connection.settimeout(HANDSHAKE_MS / 1_000)
            keep_alive(connection)
            secure = self._context.wrap_socket(connection, server_hostname=self._server_name or found[0])
        except BaseException:
            connection.close()
            raise
        try:
            first = secure.recv(FIRST_BYTES)
        except BaseException:
            secure.close()
            raise
        if not first:
            secure.close()
            raise ConnectionResetError(0, "the broker has closed the connection")
        return secure, first


def _is_untrusted(error: OSError) -> bool:
    """Return True if a side does not accept the certificate of the other."""
    import ssl  # noqa: PLC0415

    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    return isinstance(error, ssl.SSLError) and error.reason in _UNTRUSTED


def _relay(secure: "ssl.SSLSocket", first: bytes, report: Callable[[str], None]) -> None:
    """Relay between a connection and the client's socket, until either ends. `report` takes the endpoint for it."""
    from ..security.relay import Relay, RelayEnded  # noqa: PLC0415

    folder = tempfile.mkdtemp(prefix="planaria-")  # mode 0700
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            path = os.path.join(folder, "tls")
            listener.bind(path)
            listener.listen(1)
            listener.settimeout(ACCEPT_TIMEOUT_S)
            report(f"ipc://{path}")
            plain, _ = listener.accept()
    except OSError:  # the client has been closed
        return
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    with plain:
        plain.setblocking(False)
        secure.setblocking(False)
        relay = Relay(secure, plain, first=first)
        with contextlib.suppress(RelayEnded):
            while True:
                relay.run()
                _wait(secure, plain, relay.wanted)
        # Not `close` alone: a forked process may hold the descriptors, too.
        for each in (secure, plain):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _wait(secure: "ssl.SSLSocket", plain: socket.socket, wanted: tuple[int, int]) -> None:
    poll = select.poll()
    for each, events in zip((secure, plain), wanted, strict=True):
        if events:
            poll.register(each, events)
    poll.poll()
