"""The nodes that a client may connect to, of those that the broker has named. Pure."""

from msgspec import UNSET, UnsetType

from ..endpoints import host_and_port, is_tls
from ..protocol.session import Node
from ..security.keys import ClientCredentials


def usable_nodes(nodes: list[Node] | UnsetType, credentials: ClientCredentials) -> list[Node]:
    """Return the nodes at well-formed endpoints, over TLS alone for a client over TLS: its credentials never travel
    otherwise."""
    if nodes is UNSET:
        return []
    over_tls = credentials.tls is not None
    return [
        node
        for node in nodes
        if host_and_port(node.endpoint) is not None and is_tls(node.endpoint) == over_tls
    ]
