"""The roster: the nodes of the cluster, kept current by a long poll on this node's controller. Pure.

    watching   one `watch_nodes` is always in flight; when it fails it is repeated after a delay
    changed    the link of a node that came, or started again, is a new peer (PeerUp); one that went is down (PeerDown)

While the controller is down, or the store away, the last nodes stay: links do not depend on either.
"""

from ...transport.addresses import CONTROLLER, Address, link_address
from ...transport.machine import Call, Effect, SetTimer
from ...transport.protocol.control import PeerDown, PeerUp
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.links import LinkedNode, WatchNodes, WatchNodesReply
from .keys import NodesWatch

WATCH_WAIT_MS = 30_000
WATCH_SLACK_MS = 5_000
WATCH_RETRY_MS = 200


class Roster:
    def __init__(self, node: str) -> None:
        self._node = node
        self._version: int | None = None
        self._nodes: dict[str, LinkedNode] = {}
        self._introductions: dict[str, int] = {}
        self._incarnations: dict[str, int] = {}
        """Incarnation of each node's link, by its last ping."""
        self.leading: str | None = None
        """The node whose controller leads."""

    @property
    def nodes(self) -> frozenset[str]:
        """All nodes with a session, this one included."""
        return frozenset(self._nodes)

    @property
    def others(self) -> frozenset[str]:
        return self.nodes - {self._node}

    def watch(self) -> list[Effect]:
        request = WatchNodes(after_version=self._version, max_wait_ms=WATCH_WAIT_MS)
        timeout_ms = WATCH_WAIT_MS + WATCH_SLACK_MS
        return [Call(NodesWatch(), CONTROLLER, request, WatchNodesReply, timeout_ms=timeout_ms)]

    def on_failed(self, now: int) -> list[Effect]:
        return [SetTimer(NodesWatch(), now + WATCH_RETRY_MS)]

    def on_reply(self, reply: WatchNodesReply) -> tuple[list[Effect], list[str]]:
        """Return the effects, and the nodes that are new or have started again."""
        self._version = reply.version
        self.leading = reply.leading
        before, self._nodes = self._nodes, {linked.node: linked for linked in reply.nodes}
        effects: list[Effect] = []
        for node in sorted(before.keys() - self._nodes.keys() - {self._node}):
            self._incarnations.pop(node, None)
            effects.append(self._down(node))
        new = [node for node in sorted(self.others) if before.get(node) != self._nodes[node]]
        for node in new:
            effects += self._introduce(node)
        return [*effects, *self.watch()], new

    def on_ping(self, node: str, start_id: str, incarnation: int) -> list[Effect]:
        """Connect again when the other link has been restarted: its replies to earlier relays are lost."""
        linked = self._nodes.get(node)
        if linked is None or linked.start_id != start_id:
            return []
        known = self._incarnations.setdefault(node, incarnation)
        if incarnation <= known:
            return []
        self._incarnations[node] = incarnation
        return self._introduce(node)

    def link_to(self, node: str) -> Address:
        """Return the address of a node's link. Raises ProtocolError if the node has no session."""
        if node not in self.others:
            raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, f"node {node[:100]!r} is not running")
        return link_address(node)

    def _introduce(self, node: str) -> list[Effect]:
        number = self._introductions[node] = self._introductions.get(node, 0) + 1
        endpoint = self._nodes[node].peer_endpoint
        return [PeerUp(address=link_address(node), incarnation=number, endpoint=endpoint)]

    def _down(self, node: str) -> Effect:
        number = self._introductions[node]
        return PeerDown(address=link_address(node), incarnation=number, reason="its node has no session")
