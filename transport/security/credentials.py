"""Credentials: CURVE public keys, tokens and passwords, and the records that recognise them. Pure.

    key        the Z85 text of a CURVE public key; CURVE proves that its holder has the secret one
    token      planaria_ID_SECRET, 256 random bits; its record has a SHA-256 of the secret, which suffices because the
               secret cannot be guessed
    password   chosen by a person; its record has a salted scrypt hash (RFC 7914)

No secret is in a record, in an error or in the text of an object.
"""

import base64
import hashlib
import hmac
import re
from typing import Annotated

from msgspec import Meta, Struct

KEY_PATTERN = r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$"
TOKEN_PREFIX = "planaria_"
_TOKEN = re.compile(r"planaria_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
SCRYPT_N = 2**14
SCRYPT_R = 8
SCRYPT_P = 1
"""16 MiB and some 50 ms for each check."""
HASH_BYTES = 32
MIN_PASSWORD_CHARACTERS = 8

PublicKey = Annotated[str, Meta(pattern=KEY_PATTERN)]
ExpiryMilliseconds = Annotated[int, Meta(ge=0, le=2**53)]
"""Ms since the epoch; 0: never."""


class KeyRecord(Struct, frozen=True, kw_only=True):
    public_key: PublicKey
    created_ms: int
    expires_ms: ExpiryMilliseconds = 0


class TokenRecord(Struct, frozen=True, kw_only=True):
    token_id: str
    sha256: str
    created_ms: int
    expires_ms: ExpiryMilliseconds = 0


class PasswordRecord(Struct, frozen=True, kw_only=True):
    salt: str
    scrypt: str
    created_ms: int
    expires_ms: ExpiryMilliseconds = 0
    n: int = SCRYPT_N
    r: int = SCRYPT_R
    p: int = SCRYPT_P


def has_expired(record: KeyRecord | TokenRecord | PasswordRecord, wall_ms: int) -> bool:
    return 0 < record.expires_ms <= wall_ms


def token_parts(token: str) -> tuple[str, str] | None:
    """Return the id and the hash of the secret of a token; None for a text of another form."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else (found[1], digest_of(found[2]))


def matches(record: TokenRecord, digest: str) -> bool:
    return hmac.compare_digest(record.sha256, digest)


def is_password(record: PasswordRecord, password: str) -> bool:
    """Return True for the right password. Takes some 50 ms of processor time, without the interpreter's lock."""
    found = scrypt_of(password, base64.b64decode(record.salt), record.n, record.r, record.p)
    return hmac.compare_digest(found, record.scrypt)


def digest_of(secret: str) -> str:
    """Return the hash of a token's secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def scrypt_of(password: str, salt: bytes, n: int, r: int, p: int) -> str:
    """Return the hash of a password, as base64."""
    found = hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=n,
        r=r,
        p=p,
        maxmem=256 * n * r,
        dklen=HASH_BYTES,
    )
    return base64.b64encode(found).decode()
