"""The options of TLS: of clients, and of the TLS door. Structs only; tls.py makes contexts of them."""

from os import PathLike

from msgspec import Struct

from ..protocol.errors import PlanariaError


class TlsFileError(PlanariaError):
    """A certificate or a key cannot be used; the message is one line that names the option and the file."""


class Tls(Struct, frozen=True, kw_only=True):
    """How a client makes TLS connections: `Client("tls://broker.example:5574", tls=Tls(ca="ca.pem"), token=...)`."""

    ca: str | PathLike[str] | None = None
    """Certificates of the authorities that sign the broker's, a file in PEM; None: those of the system."""
    certificate: str | PathLike[str] | None = None
    """Certificate of the client, a file in PEM; its common name is the principal."""
    key: str | PathLike[str] | None = None
    """Key of that certificate, a file in PEM that only its owner may read."""
    server_name: str | None = None
    """Name in the broker's certificate; None: the host of the endpoint."""


class TlsFiles(Struct, frozen=True):
    """The files of a TLS door."""

    certificate: str
    key: str
    client_ca: str = ""
    """Authorities of clients' certificates; empty: clients have none."""
