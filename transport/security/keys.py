"""Key pairs and the credentials that a client or a server holds. Pure.

None of these shows a secret as text.
"""

from msgspec import Struct

from .credentials import PublicKey
from .tls_options import Tls

NULL = "NULL"
CURVE = "CURVE"
"""Names of ZMTP's mechanisms: without encryption, and with keys."""


class KeyPair(Struct, frozen=True, kw_only=True):
    public_key: PublicKey
    secret_key: PublicKey
    principal: str = ""
    """For people; the broker goes by the public key."""
    server_key: PublicKey | None = None
    """Public key of the broker that the pair is for."""

    def __repr__(self) -> str:
        return f"KeyPair(public_key={self.public_key!r})"


class ServerKeys(Struct, frozen=True):
    """The key of a server socket."""

    own: KeyPair


class ClientKeys(Struct, frozen=True):
    """The keys of a client's connections."""

    own: KeyPair
    server_key: str


class ClientCredentials(Struct, frozen=True):
    keys: ClientKeys | None = None
    """None: connections are not encrypted, or by TLS."""
    token: str = ""
    user: str = ""
    password: str = ""
    tls: Tls | None = None
    """Not None for endpoints of TLS doors."""

    def __repr__(self) -> str:
        return f"ClientCredentials(user={self.user!r})"


NO_CREDENTIALS = ClientCredentials()
