"""TLS contexts, of the TLS door and of clients, made from files in PEM.

TLS 1.2 at least. A key is in a file that only its owner may read, without a passphrase: a broker has no terminal to ask
for one. Sessions are not resumed, so that each connection is checked again.
"""

import os
import ssl
import stat

from .tls_options import Tls, TlsFileError, TlsFiles


def server_context(files: TlsFiles, *, requires_certificate: bool = False) -> ssl.SSLContext:
    """Return the context of a TLS door. Raises TlsFileError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    _load_own(context, "tls_certificate", files.certificate, "tls_key", files.key)
    if files.client_ca:
        _load_authorities(context, "tls_client_ca", files.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if requires_certificate else ssl.CERT_OPTIONAL
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of a client. Raises TlsFileError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.ca is None:
        context.load_default_certs()
    else:
        _load_authorities(context, "tls.ca", os.fspath(tls.ca))
    if (tls.certificate is None) != (tls.key is None):
        raise TlsFileError("tls: a certificate needs its key, and a key its certificate")
    if tls.certificate is not None and tls.key is not None:
        _load_own(context, "tls.certificate", os.fspath(tls.certificate), "tls.key", os.fspath(tls.key))
    return context


def _load_authorities(context: ssl.SSLContext, option: str, file: str) -> None:
    try:
        context.load_verify_locations(file)
    except ssl.SSLError as error:
        raise TlsFileError(f"{option}: {file} has no certificates in PEM") from error
    except OSError as error:
        raise TlsFileError(f"{option}: {file}: {error.strerror}") from error


def _load_own(
    context: ssl.SSLContext, certificate_option: str, certificate: str, key_option: str, key: str
) -> None:
    for option, file in ((certificate_option, certificate), (key_option, key)):
        try:
            with open(file, "rb") as stream:
                mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
        except OSError as error:
            raise TlsFileError(f"{option}: {file}: {error.strerror}") from error
    if mode & 0o077:
        raise TlsFileError(
            f"{key_option}: {key}: other users can read it (mode {mode:04o}); change that with chmod 600 {key}"
        )

    def passphrase() -> str:
        raise TlsFileError(f"{key_option}: {key} has a passphrase: store it without one")

    try:
        context.load_cert_chain(certificate, key, passphrase)
    except (ssl.SSLError, ValueError) as error:
        raise TlsFileError(
            f"{certificate_option}: {certificate} and {key} are not a certificate and its key in PEM"
        ) from error
