"""The keys of a broker, in its data directory, and the key that its own processes derive from them.

    security/server.key     key pair of the broker; its public key is pinned by clients (mode 0600)
    security/admin.pub      public key of the administrator, whose secret one is elsewhere

The key of the broker's own processes is derived from the broker's key: a process that can read this folder is the broker.
"""

import os
from pathlib import Path

from msgspec.structs import replace

from .curve import key_pair_of
from .key_files import read_key_file
from .keys import KeyPair

FOLDER = "security"
SERVER_KEY = "server.key"
ADMIN_KEY = "admin.pub"


def server_key_file(data: str | os.PathLike[str]) -> Path:
    return Path(data) / FOLDER / SERVER_KEY


def internal_key(server: KeyPair) -> KeyPair:
    """Return the key pair of the broker's own processes."""
    return replace(key_pair_of(server.secret_key.encode()), server_key=server.public_key)


def internal_key_in(data: str | os.PathLike[str]) -> KeyPair | None:
    """Return that key pair; None if the data directory has no keys. Raises KeyFileError."""
    path = server_key_file(data)
    return internal_key(read_key_file(path)) if path.exists() else None
