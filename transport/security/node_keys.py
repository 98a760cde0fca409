"""The check of the keys at a peer endpoint: the nodes of a cluster alone have one key pair.

A client of CurveZMQ has proven that it knows its secret key when libzmq asks by ZAP whether to admit it. Unlike a public
endpoint (curve.py), whose users the actor knows, one key is admitted, so a thread can answer at once, whatever the actor
does. The socket has a local endpoint without keys, too, so it has no ZAP domain.
"""

import threading

import zmq
from zmq.utils import z85

from .curve import ZAP_ENDPOINT
from .keys import KeyPair

ADMITTED, REFUSED = b"200", b"400"


class KeyCheck:
    """Answers the handshakes of one context. Must exist before the endpoint is bound."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", keys: KeyPair) -> None:
        self._known = z85.decode(keys.public_key)
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(ZAP_ENDPOINT)
        threading.Thread(target=self._run, name="planaria-key-check", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                version, request, _, _, _, mechanism, *credentials = self._socket.recv_multipart()
                is_known = mechanism == b"CURVE" and credentials == [self._known]
                code = ADMITTED if is_known else REFUSED
                self._socket.send_multipart([version, request, code, b"", b"", b""])
            except zmq.ContextTerminated:
                self._socket.close()
                return
