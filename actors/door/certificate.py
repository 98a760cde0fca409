"""The door's certificate, its key and the authorities of clients: read again when one of the files changes.

Open connections keep the certificate that they began with. Files that cannot be used change nothing: the former ones
stay in use, and they are tried again at each check, so a key that is written before its certificate does no harm.
"""

import logging
import os
import ssl

from ...transport.security.tls import server_context
from ...transport.security.tls_options import TlsFileError, TlsFiles

_log = logging.getLogger(__name__)


class Certificate:
    def __init__(self, files: TlsFiles, *, requires_certificate: bool) -> None:
        """Read the files. Raises TlsFileError."""
        self._files = files
        self._requires_certificate = requires_certificate
        self.fault = ""
        """The reason why changed files are not used; empty if the present ones are."""
        self._seen = _signature(files)
        self.context: ssl.SSLContext = self._read()

    def check(self) -> None:
        """Read the files again if one has changed since they were read."""
        seen = _signature(self._files)
        if seen == self._seen and not self.fault:
            return
        try:
            self.context = self._read()
        except TlsFileError as error:
            if self.fault != str(error):
                self.fault = str(error)
                _log.error("the previous certificate stays in use", extra={"fields": {"reason": self.fault}})
            return
        self.fault = ""
        self._seen = seen
        _log.info("certificate reloaded", extra={"fields": {"file": self._files.certificate}})

    def _read(self) -> ssl.SSLContext:
        return server_context(self._files, requires_certificate=self._requires_certificate)


def _signature(files: TlsFiles) -> list[tuple[int, ...]]:
    """Return values that differ when a file has been changed or replaced."""
    found: list[tuple[int, ...]] = []
    for path in (files.certificate, files.key, files.client_ca):
        try:
            status = os.stat(path)
        except OSError:
            found.append(())
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode))
    return found
