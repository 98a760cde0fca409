"""Connections to a socket with keys that prove no principal are cut, and others are kept."""

import zmq

from patience import TIMEOUT_MS
from planaria.transport import sockets
from planaria.transport.server_connections import ServerConnections

DUE_MS = 5_000


def test_a_connection_that_does_not_prove_its_principal_in_time_is_cut_and_another_is_not() -> None:
    context = sockets.new_context()
    server = sockets.server_socket(context, "tcp://127.0.0.1:*")
    endpoint = server.getsockopt_string(zmq.LAST_ENDPOINT)
    connections = ServerConnections(context, server, endpoint, follows_accepted=True)
    clients = {name: context.socket(zmq.DEALER) for name in (b"known", b"stranger", b"undecided", b"silent")}
    for name, client in clients.items():
        client.linger = 0
        client.routing_id = name
        client.reconnect_ivl = -1
        client.connect(endpoint)
        if name != b"silent":
            client.send(b"hello")
            assert server.poll(TIMEOUT_MS)
            connections.note(server.recv(copy=False))
            server.recv()
    ends = {name: client.get_monitor_socket(zmq.EVENT_DISCONNECTED) for name, client in clients.items()}
    assert connections.monitor.poll(TIMEOUT_MS)

    judged: list[bytes | None] = []

    def is_kept(name: bytes | None) -> bool | None:
        judged.append(name)
        return {b"known": True, b"undecided": None}.get(name or b"", False)

    # The event of the silent one, which has sent nothing, may come a little later.
    now = 0
    while not {b"known", b"stranger", None} <= set(judged):
        connections.judge(now, DUE_MS, is_kept)
        now += DUE_MS
    for name in (b"stranger", b"silent"):
        assert ends[name].poll(TIMEOUT_MS), name
    for name in (b"known", b"undecided"):
        assert not ends[name].poll(0), name
    judged.clear()
    while not judged:
        connections.judge(now, DUE_MS, judged.append)
        now += DUE_MS
    assert judged[0] == b"undecided", "it is judged again, and the known one is not"
    for client in clients.values():
        client.disable_monitor()
    connections.close()
    server.close()
    context.destroy(linger=0)
