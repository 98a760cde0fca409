"""Vouchers: the identity of each connection that the TLS door relays to the gateway, and its proof. Pure.

The door ends TLS, and passes the bytes of ZeroMQ's protocol on. In place of the name that a client gives its connection
it writes a voucher, which the gateway's socket then has as the name of that connection:

    offset    0      1          9           17         33                    49
              0x56   number     expires_ms  host       MAC of the rest       principal (UTF-8, may be empty)

`number` is random, so each connection is another one. `host` is the client's address, an IPv4 one mapped into IPv6. The
MAC is made with the secret of this start, which only the broker's actors have, so no client can make a voucher. A name
never travels back to a client.
"""

import hashlib
import hmac
import ipaddress
from struct import Struct as Layout

from msgspec import Struct

_MARK = b"\x56"
_FIELDS = Layout(">8sQ16s")
_MAC_BYTES = 16
_HEAD_BYTES = len(_MARK) + _FIELDS.size
NUMBER_BYTES = 8
MAX_EXPIRES_MS = 2**53
KEY_MARK = "tls|"
"""Begins the key by which the gateway knows a connection with a voucher. Z85, the text of CURVE keys, has no "|"."""


class Voucher(Struct, frozen=True):
    number: bytes
    """NUMBER_BYTES random ones."""
    host: str
    """Numeric address of the client."""
    principal: str = ""
    """Name in the client's certificate; empty without one."""
    expires_ms: int = 0
    """End of that certificate, in ms since the epoch; 0 without one."""

    @property
    def key(self) -> str:
        """The text by which the gateway knows the connection, in place of a CURVE key."""
        return f"{KEY_MARK}{self.number.hex()}|{self.expires_ms}|{self.principal}"


def vouched_principal(key: str) -> tuple[str, int] | None:
    """Return the name and the end of the certificate in the key of a connection; None if it has no certificate."""
    if not key.startswith(KEY_MARK):
        return None
    _, _, expires_ms, principal = key.split("|", 3)
    return (principal, int(expires_ms)) if principal else None


class Vouchers:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def name_of(self, voucher: Voucher) -> bytes:
        """Return the name that a connection gets."""
        host = ipaddress.ip_address(voucher.host.partition("%")[0])
        mapped = ipaddress.IPv6Address(f"::ffff:{host}") if host.version == 4 else host
        expires_ms = min(voucher.expires_ms, MAX_EXPIRES_MS)
        head = _MARK + _FIELDS.pack(voucher.number, expires_ms, mapped.packed)
        principal = voucher.principal.encode()
        return head + self._mac(head + principal) + principal

    def read(self, name: bytes) -> Voucher | None:
        """Return the voucher in the name of a connection; None if it has none that is genuine."""
        if len(name) < _HEAD_BYTES + _MAC_BYTES or not name.startswith(_MARK):
            return None
        head, mac, principal = (
            name[:_HEAD_BYTES],
            name[_HEAD_BYTES : _HEAD_BYTES + _MAC_BYTES],
            name[_HEAD_BYTES + _MAC_BYTES :],
        )
        if not hmac.compare_digest(mac, self._mac(head + principal)):
            return None
        number, expires_ms, packed = _FIELDS.unpack(head[len(_MARK) :])
        address = ipaddress.IPv6Address(packed)
        return Voucher(number, str(address.ipv4_mapped or address), principal.decode(), expires_ms)

    def _mac(self, data: bytes) -> bytes:
        return hashlib.blake2b(
            data, digest_size=_MAC_BYTES, key=self._secret, person=b"planaria-voucher"
        ).digest()
