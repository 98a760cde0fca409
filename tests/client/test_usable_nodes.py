"""The nodes that a client goes on at: a token for TLS never travels to an endpoint without it."""

from planaria.transport.client.broker_directory import usable_nodes
from planaria.transport.protocol.session import Node
from planaria.transport.security.client_credentials import credentials_from

PLAIN, SECURE = Node("n1", "tcp://10.0.0.1:5570"), Node("n2", "tls://10.0.0.2:5573")
NODES = [PLAIN, SECURE, Node("n3", "ipc:///tmp/x"), Node("n4", "nonsense")]


def test_a_client_over_tls_uses_no_other_endpoints_and_another_one_no_tls() -> None:
    assert usable_nodes(NODES, credentials_from(token="t", over_tls=True)) == [SECURE]
    assert usable_nodes(NODES, credentials_from()) == [PLAIN]
