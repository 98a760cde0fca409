"""The versions of the protocol between nodes: those that this release speaks, and whether it may join others. Pure.

Each session names the versions of its node. Two nodes speak the newest one that both know. So a rolling upgrade goes
through releases of which each knows a version of the one before; a node that knows none of another's is not started.
Called by the controller's process at its start, before the node has a session.
"""

from collections.abc import Mapping

from .records import NodeSession

OLDEST_PROTOCOL = 1
NEWEST_PROTOCOL = 1


def refusal(own: NodeSession, sessions: Mapping[str, NodeSession]) -> str:
    """Return the reason why a node may not join the others; empty if it may."""
    for node, other in sorted(sessions.items()):
        if node == own.node:
            continue
        if other.oldest_protocol > own.protocol:
            return f"{_versions(own, other)}: upgrade this node"
        if other.protocol < own.oldest_protocol:
            return (
                f"{_versions(own, other)}: upgrade that node first, or start the release before this one here"
            )
    return ""


def _versions(own: NodeSession, other: NodeSession) -> str:
    return (
        f"node {other.node!r} speaks versions {other.oldest_protocol} to {other.protocol} of the protocol between nodes,"
        f" this one {own.oldest_protocol} to {own.protocol}"
    )
