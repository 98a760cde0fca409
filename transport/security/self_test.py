"""The test of a server socket with keys, at each start: a connection that must be refused is refused.

A client with a key of this moment connects, and its handshake is answered as one of a stranger; another client does not
encrypt. Neither may complete its handshake, whatever library, option or mistake would let it in. Called by the server
side before the actor is ready, so a broker that would serve strangers does not serve at all.
"""

import time

import zmq

from ..protocol.errors import OperatorNeeded
from ..sockets import monitor_events
from .curve import Zap, secure_client
from .key_files import new_key_pair
from .keys import ClientKeys

TIME_LIMIT_S = 10.0
_POLL_MS = 5
_ENDED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
)
_WILDCARDS = {"tcp://0.0.0.0:": "tcp://127.0.0.1:", "tcp://[::]:": "tcp://[::1]:"}


def check_refusals(
    context: "zmq.Context[zmq.Socket[bytes]]", zap: Zap, endpoint: str, server_key: str
) -> None:
    """Raise OperatorNeeded if a stranger is admitted at the endpoint, which is bound; TimeoutError without a decision."""
    for wildcard, local in _WILDCARDS.items():
        endpoint = endpoint.replace(wildcard, local)
    stranger = ClientKeys(new_key_pair(), server_key)
    with zap.refusing(stranger.own.public_key):
        _check(context, zap, endpoint, "an unknown key", stranger)
    _check(context, zap, endpoint, "a client without encryption", None)


def _check(
    context: "zmq.Context[zmq.Socket[bytes]]",
    zap: Zap,
    endpoint: str,
    who: str,
    keys: ClientKeys | None,
) -> None:
    client = context.socket(zmq.DEALER)
    client.setsockopt(zmq.LINGER, 0)
    client.setsockopt(zmq.IPV6, int(endpoint.startswith("tcp://[")))
    if keys is not None:
        secure_client(client, keys)
    monitor = client.get_monitor_socket(sum(_ENDED) | zmq.EVENT_HANDSHAKE_SUCCEEDED)
    try:
        client.connect(endpoint)
        ends_at = time.monotonic() + TIME_LIMIT_S
        while time.monotonic() < ends_at:
            zap.answer()
            if not monitor.poll(_POLL_MS):
                continue
            event, _, _ = next(monitor_events(monitor))
            if event in _ENDED:
                return
            raise OperatorNeeded(f"authentication: the self-test failed: {who} was admitted at {endpoint}")
        raise TimeoutError(f"authentication: the self-test of {endpoint} took too long with {who}")
    finally:
        client.disable_monitor()
        monitor.close(0)
        client.close(0)
