"""The options of a client that make its credentials: a key file, the broker's public key, a token or a password."""

import os

from ..protocol.errors import PlanariaError
from .key_files import check_public_key, new_key_pair, read_key_file
from .keys import NO_CREDENTIALS, ClientCredentials, ClientKeys, KeyPair
from .tls_options import Tls


class CredentialsError(PlanariaError):
    """Credentials contradict each other or are incomplete; the message is one line that names the option."""


def credentials_from(
    *,
    key: str | os.PathLike[str] | KeyPair | None = None,
    server_key: str | None = None,
    token: str | None = None,
    user: str | None = None,
    password: str | None = None,
    tls: Tls | None = None,
    over_tls: bool = False,
) -> ClientCredentials:
    """Return the credentials that these options describe. Raises CredentialsError or KeyFileError.

    `key` is the path of a key file, which usually has the broker's public key as well; `server_key` gives or replaces
    that one. A token, or user and password, need it too: they never travel unencrypted, and never to another broker.
    Over TLS there are no such keys.
    """
    if (user is None) != (password is None):
        raise CredentialsError("user: needs a password, and a password needs a user")
    if token is not None and user is not None:
        raise CredentialsError("token: use it or a user, not both")
    if over_tls:
        if key is not None or server_key is not None:
            name = "key" if key is not None else "server_key"
            raise CredentialsError(
                f"{name}: not for tls:// endpoints, whose client has a certificate or a token"
            )
        return ClientCredentials(None, token or "", user or "", password or "", tls or Tls())
    if tls is not None:
        raise CredentialsError("tls: only for tls:// endpoints")
    own = None if key is None else key if isinstance(key, KeyPair) else read_key_file(key)
    pinned = None if server_key is None else check_public_key(server_key, "server_key")
    if pinned is None and own is not None:
        pinned = own.server_key
    if pinned is None:
        if own is None and token is None and user is None:
            return NO_CREDENTIALS
        raise CredentialsError(
            "server_key: missing; it is the broker's public key, which `planaria security init` prints"
        )
    keys = ClientKeys(own or new_key_pair(), pinned)
    return ClientCredentials(keys, token or "", user or "", password or "")
