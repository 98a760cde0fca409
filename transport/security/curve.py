"""CURVE on sockets: encryption, and proof of the keys on both sides (RFC 26 of ZeroMQ).

A client pins the broker's public key. A server socket asks for a decision on each handshake by ZAP (RFC 27): a REQ
inside libzmq, on a fixed inproc address of the server's context, answered here in the actor's own thread. While that
thread is dead, frozen or not there yet, no handshake ends: `ZAP_ENFORCE_DOMAIN` makes ZeroMQ refuse connections that
were not admitted. The accepted handshake gives all messages of its connection the user id, which is the client's
public key.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import zmq
from zmq.utils import z85

from .keys import ClientKeys, KeyPair, ServerKeys

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_DOMAIN = b"planaria"
RELAY_DOMAIN = b"planaria-relay"
"""Domain of the listener for connections that the TLS door relays, on loopback."""
RELAYED = "relayed"
"""User id of these connections. Their names say who they are (vouchers.py)."""
_VERSION = b"1.0"
_MAX_HANDSHAKES_A_TURN = 64
_DONTWAIT = int(zmq.DONTWAIT)


def secure_client(socket: "zmq.Socket[bytes]", keys: ClientKeys) -> None:
    """Encrypt the connections that this socket makes from now on."""
    socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server_key.encode())
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.own.public_key.encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.own.secret_key.encode())


def unsecure_client(socket: "zmq.Socket[bytes]") -> None:
    """Leave the connections that this socket makes from now on unencrypted: they stay on this machine."""
    socket.setsockopt(zmq.CURVE_SERVER, 0)  # resets the mechanism


def secure_server(socket: "zmq.Socket[bytes]", keys: ServerKeys) -> None:
    """Have a socket that is not bound yet accept only CURVE, and only connections that ZAP admits."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.own.secret_key.encode())
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def key_pair_of(secret: bytes) -> KeyPair:
    """Return the key pair that everyone who knows `secret` can derive: the one of a broker's own actors."""
    secret_key = z85.encode(hashlib.blake2b(secret, digest_size=32, person=b"planaria-actors").digest())
    return KeyPair(public_key=zmq.curve_public(secret_key).decode(), secret_key=secret_key.decode())


def relay_server(socket: "zmq.Socket[bytes]") -> None:
    """Have a server socket with keys take connections without encryption at the endpoint that is bound next."""
    socket.setsockopt(zmq.CURVE_SERVER, 0)  # resets the mechanism
    socket.setsockopt(zmq.ZAP_DOMAIN, RELAY_DOMAIN)


class Zap:
    """Answers the handshakes of one context. Must exist before a socket of it is bound."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", admits: Callable[[str, str], bool | None]
    ) -> None:
        """`admits` takes a public key and the address of a host, and returns None for "try again"."""
        self._admits = admits
        self.socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ZAP_ENDPOINT)

    def answer(self) -> bool:
        """Answer the handshakes that wait; return True if there may be more."""
        for _ in range(_MAX_HANDSHAKES_A_TURN):
            try:
                frames = self.socket.recv_multipart(_DONTWAIT)
            except zmq.Again:
                return False
            head, rest = frames[:2], frames[2:]
            self.socket.send_multipart([*head, *self._decide(rest)], _DONTWAIT)
        return True

    @contextmanager
    def refusing(self, key: str) -> Iterator[None]:
        """Refuse this key meanwhile."""
        before = self._admits
        self._admits = lambda other, host: False if other == key else before(other, host)
        try:
            yield
        finally:
            self._admits = before

    def close(self) -> None:
        self.socket.close()

    def _decide(self, frames: list[bytes]) -> list[bytes]:
        """Return the frames of the answer. Never raises: an exception here would end the actor."""
        version, number, domain, address, _, mechanism, *credentials = [*frames, *[b""] * 6][
            : max(6, len(frames))
        ]
        if version != _VERSION:
            return [_VERSION, number, b"500", b"version", b"", b""]
        if domain == RELAY_DOMAIN and mechanism == b"NULL":
            return [_VERSION, number, b"200", b"", RELAYED.encode(), b""]
        if (
            domain == ZAP_DOMAIN
            and mechanism == b"CURVE"
            and len(credentials) == 1
            and len(credentials[0]) == 32
        ):
            key = z85.encode(credentials[0])
            is_admitted = self._admits(key.decode(), address.decode(errors="replace"))
            if is_admitted:
                return [_VERSION, number, b"200", b"", key, b""]
            if is_admitted is None:
                return [_VERSION, number, b"300", b"later", b"", b""]
        return [_VERSION, number, b"400", b"refused", b"", b""]
