"""The first bytes of a client's connection: ZMTP's greeting and READY, in which the door writes its own name. Pure.

    signature (10)   version (2)   mechanism (20)   as-server (1)   filler (31)   READY command

(RFC 23 and 37 of ZeroMQ.) The greeting passes as it comes, because each side waits for parts of the other's. READY is
kept until it is whole, and replaced: its socket type is the client's, its identity is the door's, all else is left out.
Everything after it passes unread.

A client that does not begin like this is refused: it cannot be given a name.
"""

_FIRST = 0xFF
_SIGNATURE_BYTES = 10
_VERSION_AT = 10
_MECHANISM = slice(12, 32)
_GREETING_BYTES = 64
_MIN_MAJOR = 3
_NULL = b"NULL".ljust(20, b"\0")
_COMMAND = 0x04
_LONG_COMMAND = 0x06
_READY = b"\x05READY"
_SOCKET_TYPES = (b"DEALER", b"REQ", b"ROUTER")
MAX_READY_BYTES = 1_024


class OpeningRefused(Exception):
    """A client's first bytes are not those of a ZeroMQ client that can be served; the message says why."""


class Opening:
    def __init__(self, name: bytes) -> None:
        """`name` becomes the name of the connection."""
        self._name = name
        self._held = bytearray()
        self._passed = 0
        """Bytes of the greeting that have been passed on."""
        self.is_over = False

    def take(self, data: bytes) -> bytes:
        """Take bytes of the client; return those to be passed on. Raises OpeningRefused."""
        assert not self.is_over
        self._held += data
        out = self._greeting()
        if self._passed < _GREETING_BYTES:
            return out
        ready = self._ready()
        return out if ready is None else out + ready

    def _greeting(self) -> bytes:
        """Return the part of the greeting that was not passed on yet, once it is known to be acceptable."""
        if self._passed == _GREETING_BYTES:
            return b""
        held = self._held
        if (held and held[0] != _FIRST) or (len(held) >= _SIGNATURE_BYTES and not held[9] & 1):
            raise OpeningRefused("no ZeroMQ client")
        if len(held) > _VERSION_AT and held[_VERSION_AT] < _MIN_MAJOR:
            raise OpeningRefused(f"ZMTP {held[_VERSION_AT]}: {_MIN_MAJOR}.0 is the oldest version")
        if len(held) >= _MECHANISM.stop and bytes(held[_MECHANISM]) != _NULL:
            raise OpeningRefused("a mechanism other than NULL: TLS encrypts already")
        end = min(len(held), _GREETING_BYTES)
        # The mechanism leaves in one piece, when it has been checked.
        if _MECHANISM.start < end < _MECHANISM.stop:
            end = _MECHANISM.start
        out = bytes(held[self._passed : end])
        self._passed = end
        return out

    def _ready(self) -> bytes | None:
        """Return READY with the door's name, and all bytes after it; None while it is not whole."""
        frame = bytes(self._held[_GREETING_BYTES:])
        if not frame:
            return None
        if frame[0] == _COMMAND:
            head_bytes, size_bytes = 2, frame[1] if len(frame) > 1 else None
        elif frame[0] == _LONG_COMMAND:
            head_bytes = 9
            size_bytes = int.from_bytes(frame[1:9], "big") if len(frame) >= 9 else None
        else:
            raise OpeningRefused("no READY after the greeting")
        if size_bytes is None:
            return None
        if size_bytes > MAX_READY_BYTES:
            raise OpeningRefused(f"a READY of {size_bytes} bytes")
        if len(frame) < head_bytes + size_bytes:
            return None
        body, rest = frame[head_bytes : head_bytes + size_bytes], frame[head_bytes + size_bytes :]
        self._held.clear()
        self.is_over = True
        return (
            _command(
                _READY + _property(b"Socket-Type", _socket_type(body)) + _property(b"Identity", self._name)
            )
            + rest
        )


def _socket_type(body: bytes) -> bytes:
    """Return the socket type in the body of a READY. Raises OpeningRefused."""
    if not body.startswith(_READY):
        raise OpeningRefused("no READY after the greeting")
    at = len(_READY)
    found = None
    while at < len(body):
        name_end = at + 1 + body[at]
        value_at = name_end + 4
        value_end = value_at + int.from_bytes(body[name_end:value_at], "big")
        if value_end > len(body):
            raise OpeningRefused("a malformed READY")
        if body[at + 1 : name_end].lower() == b"socket-type":
            found = body[value_at:value_end]
        at = value_end
    if found not in _SOCKET_TYPES:
        raise OpeningRefused("a socket type other than DEALER, REQ and ROUTER")
    return found


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value


def _command(body: bytes) -> bytes:
    if len(body) <= 0xFF:
        return bytes([_COMMAND, len(body)]) + body
    return bytes([_LONG_COMMAND]) + len(body).to_bytes(8, "big") + body
