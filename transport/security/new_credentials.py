"""New tokens and hashes of new passwords, with random bytes of the operating system."""

import base64
import secrets

from .credentials import SCRYPT_N, SCRYPT_P, SCRYPT_R, TOKEN_PREFIX, PasswordRecord, digest_of, scrypt_of

SECRET_BYTES = 32
ID_BYTES = 6
SALT_BYTES = 16


def make_token() -> tuple[str, str, str]:
    """Return a new token, its id and the hash of its secret."""
    token_id, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
    return f"{TOKEN_PREFIX}{token_id}_{secret}", token_id, digest_of(secret)


def hash_password(password: str, created_ms: int, expires_ms: int = 0) -> PasswordRecord:
    salt = secrets.token_bytes(SALT_BYTES)
    return PasswordRecord(
        salt=base64.b64encode(salt).decode(),
        scrypt=scrypt_of(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P),
        created_ms=created_ms,
        expires_ms=expires_ms,
    )
