"""The nodes that clients may connect to, kept current by a long poll on the controller of a cluster's node. Pure.

    watching   one `watch_nodes` is always in flight, or waits for the controller; on one machine there is none

While the controller is down the nodes stay. A node that is suspected is not named: clients leave it, and do not wait
for answers of a node that is frozen or cut off (`transport/client/node_links.py`).
"""

from msgspec import UNSET, UnsetType

from ...transport.addresses import CONTROLLER
from ...transport.machine import Call, Effect
from ...transport.protocol.links import WatchNodes, WatchNodesReply
from ...transport.protocol.session import Node
from .keys import NodesWatch

WATCH_WAIT_MS = 30_000
WATCH_SLACK_MS = 5_000


class Nodes:
    def __init__(self, *, is_clustered: bool) -> None:
        self.named: list[Node] | UnsetType = UNSET
        """The nodes by name; unset until they are known."""
        self._is_clustered = is_clustered
        self._version: int | None = None
        self._is_watching = False

    def watch(self) -> list[Effect]:
        if self._is_watching or not self._is_clustered:
            return []
        self._is_watching = True
        request = WatchNodes(after_version=self._version, max_wait_ms=WATCH_WAIT_MS)
        timeout_ms = WATCH_WAIT_MS + WATCH_SLACK_MS
        return [
            Call(NodesWatch(), CONTROLLER, request, WatchNodesReply, timeout_ms=timeout_ms, is_endless=True)
        ]

    def on_reply(self, reply: WatchNodesReply) -> list[Effect]:
        self._is_watching = False
        self._version = reply.version
        self.named = sorted(
            (Node(each.node, each.endpoint) for each in reply.nodes if each.node not in reply.suspected),
            key=lambda each: each.node,
        )
        return self.watch()
