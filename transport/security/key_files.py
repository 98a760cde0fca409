"""Key files: a CURVE key pair, and the public key of the broker that it is for, in a TOML file of mode 0600.

    principal  = "alice"                 for people; the broker goes by the public key
    public_key = "..."                   Z85, 40 characters
    secret_key = "..."                   Z85, 40 characters
    server_key = "..."                   public key of the broker; absent in the broker's own file

A file that others may read is refused: its secret may have been copied. Errors name the file, never its contents.
ZeroMQ is loaded on first use, since commands that need no key load this module.
"""

import contextlib
import os
import stat
import tempfile
import tomllib
from pathlib import Path

import msgspec

from ..protocol.errors import PlanariaError
from .credentials import PublicKey
from .keys import KeyPair


class KeyFileError(PlanariaError):
    """A key file cannot be used; the message is one line that says why."""


def new_key_pair(principal: str = "", server_key: str | None = None) -> KeyPair:
    """Make a key pair. The public key does not begin like an option of a command, of which it may be an argument."""
    import zmq  # noqa: PLC0415

    public, secret = zmq.curve_keypair()
    while public.startswith(b"-"):
        public, secret = zmq.curve_keypair()
    return KeyPair(
        public_key=public.decode(), secret_key=secret.decode(), principal=principal, server_key=server_key
    )


def read_key_file(path: str | os.PathLike[str]) -> KeyPair:
    """Return the key pair in a file. Raises KeyFileError."""
    import zmq  # noqa: PLC0415

    name = os.fspath(path)
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise KeyFileError(f"{name} is not a key file") from error
    except OSError as error:
        raise KeyFileError(f"{name}: {error.strerror}") from error
    if mode & 0o077:
        raise KeyFileError(
            f"{name}: other users can read it (mode {mode:04o}); change that with chmod 600 {name}"
        )
    try:
        pair = msgspec.convert(tomllib.loads(text), KeyPair)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError):
        # Not the error itself, which quotes the file.
        raise KeyFileError(
            f"{name} is not a key file: it needs public_key and secret_key, each Z85 text"
        ) from None
    try:
        public_key = zmq.curve_public(pair.secret_key.encode()).decode()
    except zmq.ZMQError:
        public_key = ""
    if public_key != pair.public_key:
        raise KeyFileError(f"{name}: public_key does not belong to secret_key")
    return pair


def write_key_file(path: str | os.PathLike[str], pair: KeyPair, comment: str) -> None:
    """Write a new key file, durably. Raises KeyFileError if the file exists or cannot be written."""
    target = Path(path)
    lines = [f"# {comment}"]
    for field in ("principal", "public_key", "secret_key", "server_key"):
        value = getattr(pair, field)
        if value:
            lines.append(f"{field} = {_quoted(value)}")
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # mode 0600
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, target)  # unlike rename, it replaces nothing
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError as error:
        raise KeyFileError(f"{target} exists already; move it away first") from error
    except OSError as error:
        raise KeyFileError(f"{target}: {error.strerror}") from error
    finally:
        if temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def check_public_key(text: str, name: str) -> str:
    """Return a public key given as text. Raises KeyFileError."""
    try:
        return msgspec.convert(text, PublicKey)
    except msgspec.ValidationError as error:
        raise KeyFileError(
            f"{name}: a public key is 40 characters of Z85, as in the line public_key of a key file"
        ) from error


def _quoted(text: str) -> str:
    # Z85 has neither quotes nor backslashes, and a principal's name is checked.
    return f'"{text}"'
