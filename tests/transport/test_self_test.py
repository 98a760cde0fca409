"""A server socket with keys does not serve if a stranger could complete a handshake, whatever the mistake."""

from typing import Any

import pytest
import zmq

from planaria.transport import server_side, sockets
from planaria.transport.protocol.errors import OperatorNeeded
from planaria.transport.security.curve import Zap
from planaria.transport.security.key_files import new_key_pair
from planaria.transport.security.keys import ServerKeys
from planaria.transport.security.self_test import check_refusals

KEYS = ServerKeys(new_key_pair())


def without_encryption(_socket: Any, _keys: Any) -> None:
    """Forget the keys."""


def admit(key: str, host: str) -> bool:
    return True


def run(*, answers: type[Zap] = Zap) -> None:
    context = sockets.new_context()
    zap = answers(context, admit)
    server = sockets.server_socket(context, "tcp://127.0.0.1:*", KEYS)
    try:
        check_refusals(context, zap, server.getsockopt_string(zmq.LAST_ENDPOINT), KEYS.own.public_key)
    finally:
        server.close()
        zap.close()
        sockets.end_context(context)


class AdmitsAll(Zap):
    def _decide(self, frames: list[bytes]) -> list[bytes]:
        return [b"1.0", frames[1], b"200", b"", b"anyone", b""]


def test_a_socket_that_refuses_strangers_passes() -> None:
    run()
    assert server_side.check_refusals is check_refusals


def test_a_socket_that_admits_a_stranger_does_not() -> None:
    with pytest.raises(OperatorNeeded, match="an unknown key was admitted"):
        run(answers=AdmitsAll)


def test_a_socket_without_keys_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "secure_server", without_encryption)
    monkeypatch.setattr(f"{check_refusals.__module__}.secure_client", without_encryption)
    with pytest.raises(OperatorNeeded, match="an unknown key was admitted"):
        run()
