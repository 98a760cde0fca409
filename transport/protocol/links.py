"""The API group between nodes: links, which pass messages between the actors of two nodes, and watch other nodes.

    A: relay(node, address, timeout_ms)       payload: header payload*    an actor to the link of its node
    L: forward(node, address, timeout_ms)     the same                    that link to the link of the other node
    -> the reply of the actor at `address`, as it is, or an error of a link

    A: admit_catch_up(size_bytes)             a leader, before it sends batches to a replica that is not in sync
    L: done                                   when the node's rate for copies permits it

    L: ping(node, start_id, report)           each `PING_INTERVAL_MS`, to the nodes that watch this one, and to the
                                              leading controller's if the report is of a node that is missed; no reply
    L: link_reports(reports)                  to the controller of the link's node; no reply
    L: watch_nodes(after_version, max_wait)   C: version, nodes           a long poll, of the gateway, too

A relay names the receiver's address within its node. Links read no further than this header. A link takes `relay` from
actors of its own node alone, and `forward` and `ping` at its peer endpoint alone; and it forwards to actors of
FORWARDED_KINDS.
"""

from msgspec import Struct

from ..addresses import Address, Kind
from ..request_context import RequestContext
from .data import WaitMilliseconds
from .message import InternalRequest, NodeRequest, Reply

PING_INTERVAL_MS = 100
LOST_MS = 50
"""Time after which a lost connection counts: a link that reconnects at once has not lost its node."""
FORWARDED_KINDS = frozenset(
    {Kind.PARTITION, Kind.REPLICA, Kind.COORDINATOR, Kind.TRANSACTIONS, Kind.SCHEDULER, Kind.MIRROR}
)
"""Kinds of the actors that other nodes have requests for: replicas, those that follow a partition's leader, mirrors."""


class Relay(InternalRequest, tag="relay", frozen=True):
    """Pass the request in the payload, its header first, to an actor of another node."""

    node: str
    address: Address
    timeout_ms: int = 5_000
    """Time after which the sender waits no longer. A cast has none."""
    is_cast: bool = False


class Forward(NodeRequest, tag="forward", frozen=True):
    """A relay on its way between two links: it is passed to the actor of this node, or refused."""

    node: str
    address: Address
    timeout_ms: int = 5_000
    is_cast: bool = False
    context: RequestContext | None = None
    """The context of the request, which a frame of its own carries within a node. None: the actor's own."""


class PeerState(Struct, frozen=True, array_like=True):
    """The state of one node, as another node's link sees it."""

    node: str
    is_connected: bool
    quiet_ms: int
    """Time since its last message, or since the loss of its connection."""
    has_pinged: bool = True
    """True once it has sent a ping in this start of it; until then it counts as connected, without any proof of life."""


class LinkReport(Struct, frozen=True, array_like=True):
    """The state of the nodes that one node watches."""

    reporter: str
    peers: tuple[PeerState, ...]

    @property
    def is_calm(self) -> bool:
        """Return True if no node is lost, or quiet for longer than a few pings."""
        return all(state.is_connected and state.quiet_ms < 3 * PING_INTERVAL_MS for state in self.peers)


class Ping(NodeRequest, tag="ping", frozen=True):
    """The sender is alive."""

    node: str
    start_id: str
    incarnation: int
    """Incarnation of the sending link: with a higher one, replies to earlier relays are lost."""
    report: LinkReport


class LinkReports(InternalRequest, tag="link_reports", frozen=True):
    """The link's own report, and those that it has from other links."""

    reports: tuple[LinkReport, ...]


class LinkedNode(Struct, frozen=True):
    node: str
    start_id: str
    peer_endpoint: str
    endpoint: str
    """The endpoint for clients."""


class AdmitCatchUp(InternalRequest, tag="admit_catch_up", frozen=True):
    """Answered when as many bytes may be sent to a replica that catches up."""

    size_bytes: int


class WatchNodes(InternalRequest, tag="watch_nodes", frozen=True):
    """Park until the nodes differ from those of `after_version`; None: answer at once."""

    after_version: int | None = None
    max_wait_ms: WaitMilliseconds = 0


class WatchNodesReply(Reply):
    version: int
    nodes: list[LinkedNode]
    """Nodes with a session, among them the link's own."""
    leading: str | None = None
    """The node whose controller leads."""
    suspected: tuple[str, ...] = ()
    """Those that are taken for dead although their sessions have not ended."""
