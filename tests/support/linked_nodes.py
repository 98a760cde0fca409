"""Links of several nodes, with a network between them that the test cuts. No socket, no process.

Each node has a real LinkMachine and one actor, which answers every request that reaches it with `answer`.
"""

from collections import deque
from itertools import count
from typing import Any

from planaria.actors.link.machine import LinkMachine
from planaria.transport.codec import RequestDecoder, encode_header
from planaria.transport.machine import (
    Answered,
    Call,
    CancelCall,
    Cast,
    Disconnected,
    Failed,
    PeerDown,
    PeerUp,
    Received,
    Reply,
    Sender,
    SetTimer,
    TimerFired,
)
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.links import (
    Forward,
    LinkedNode,
    LinkReports,
    Ping,
    Relay,
    WatchNodes,
    WatchNodesReply,
)
from planaria.transport.protocol.session import Cancel
from planaria.transport.request_context import UNKNOWN, RequestContext

DECODER = RequestDecoder((Relay, Forward, Ping, Cancel))
LOST = ErrorBody("ACTOR_UNAVAILABLE", "lost the connection", True)


class SimulatedLink:
    """One node."""

    def __init__(self, world: "LinkedNodes", node: str, incarnation: int = 1, start_id: str = "1") -> None:
        self.world = world
        self.node = node
        self.start_id = start_id
        self.incarnation = incarnation
        self.connection = f"from-{node}-{next(world.connections)}".encode()
        """The name of its connections at other links."""
        self.is_up = True
        self.is_frozen = False
        self.machine = LinkMachine(node, start_id, incarnation)
        self.timers: dict[Any, int] = {}
        self.peers: dict[str, PeerUp] = {}
        self.watch: Call | None = None
        self.replies: list[Reply] = []
        self.reports: list[LinkReports] = []
        self.received: list[Call | Cast] = []
        """Requests that reached the node's actor."""
        self.parked: dict[int, Call] = {}
        self.perform([])

    def perform(self, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case SetTimer():
                    self.timers[effect.key] = effect.at
                case PeerUp():
                    self.peers[effect.address] = effect
                case PeerDown():
                    self.peers.pop(effect.address, None)
                case Reply():
                    self._reply(effect)
                case Cast(address="controller", request=LinkReports() as reports):
                    self.reports.append(reports)
                case Call(request=WatchNodes()):
                    self.watch = effect
                case Call() | Cast():
                    self._send(effect)
                case CancelCall(token=token):
                    self.world.cancel(self, token)
                case _:
                    raise AssertionError(effect)

    def event(self, event: Any) -> None:
        if self.is_up and not self.is_frozen:
            self.perform(self.machine.handle(event, self.world.now))

    def set_nodes(self, nodes: list[LinkedNode], version: int) -> None:
        watch, self.watch = self.watch, None
        assert watch is not None
        self.event(Answered(watch.key, WatchNodesReply(version=version, nodes=nodes)))

    def ask(
        self, relay: Relay, header: bytes = b"{}", *payload: bytes, context: RequestContext = UNKNOWN
    ) -> Sender:
        """Send a relay as an actor of this node."""
        sender = Sender((b"actor", b"%d" % len(self.world.queue)), None)
        self.event(Received(sender, relay, (header, *payload), encode_header(relay), context))
        return sender

    def _reply(self, reply: Reply) -> None:
        if reply.to.route[0].startswith(b"from-"):
            self.world.reply(self, reply)
        else:
            self.replies.append(reply)

    def _send(self, message: Call | Cast) -> None:
        if not message.address.startswith("link/"):
            self.received.append(message)
            if isinstance(message, Call) and self.world.answer is not None:
                self.event(Answered(message.key, b"answer of " + self.node.encode(), (b"payload",)))
            return
        peer = self.peers.get(message.address)
        if peer is None:
            if isinstance(message, Call):
                self.event(Failed(message.key, LOST))
            return
        self.world.send(self, message.address.partition("/")[2], message)


class LinkedNodes:
    """The nodes and the network."""

    def __init__(self, *names: str) -> None:
        self.now = 1_000_000
        self.answer: bytes | None = b"ok"
        self.queue: deque[Any] = deque()
        self.cuts: set[tuple[str, str]] = set()
        """Pairs (from, to) whose messages are lost."""
        self.in_flight: dict[tuple[str, int], tuple[SimulatedLink, str, Call]] = {}
        self.version = 1
        self.connections = count(1)
        self.nodes = {name: SimulatedLink(self, name) for name in names}
        for node in self.nodes.values():
            self.begin(node)
        self.publish()

    def begin(self, node: SimulatedLink) -> None:
        from planaria.actors.link.effects import Started

        node.event(Started())

    def publish(self, *without: str) -> None:
        """Tell every link the nodes that have a session."""
        self.version += 1
        linked = [
            LinkedNode(node.node, node.start_id, f"tcp://{node.node}:1", f"tcp://{node.node}:2")
            for node in self.nodes.values()
            if node.node not in without
        ]
        for node in self.nodes.values():
            if node.is_up and not node.is_frozen:
                node.set_nodes(linked, self.version)

    def run(self, duration_ms: int) -> None:
        end = self.now + duration_ms
        while self.now < end:
            self.now += 10
            for node in self.nodes.values():
                due = [key for key, at in node.timers.items() if at <= self.now]
                for key in due:
                    if node.is_up and not node.is_frozen:
                        del node.timers[key]
                        node.event(TimerFired(key))

    def kill(self, name: str) -> None:
        """End a node: its connections are closed."""
        self.nodes[name].is_up = False
        for node in self.nodes.values():
            node.event(Disconnected(self.nodes[name].connection))
        for number, (asker, to, call) in list(self.in_flight.items()):
            if to == name:
                del self.in_flight[number]
                asker.event(Failed(call.key, LOST))

    def send(self, sender: SimulatedLink, to: str, message: Call | Cast) -> None:
        receiver = self.nodes[to]
        if (sender.node, to) in self.cuts or not receiver.is_up or receiver.is_frozen:
            if isinstance(message, Call):
                assert message.token is not None
                self.in_flight[sender.node, message.token] = (sender, to, message)
            return
        number = message.token if isinstance(message, Call) else None
        route = (sender.connection, b"%d" % (number or 0))
        raw = message.request if isinstance(message.request, bytes) else encode_header(message.request)
        request = DECODER.decode(raw, len(message.payload))
        if isinstance(message, Call):
            assert number is not None
            self.in_flight[sender.node, number] = (sender, to, message)
        receiver.event(Received(Sender(route, None), request, tuple(message.payload), raw))

    def reply(self, replier: SimulatedLink, reply: Reply) -> None:
        asker = reply.to.route[0].split(b"-")[1].decode()
        found = self.in_flight.pop((asker, int(reply.to.route[1])), None)
        if found is None or (replier.node, asker) in self.cuts:
            return
        node, _, call = found
        if isinstance(reply.body, ErrorBody):
            node.event(Failed(call.key, reply.body))
        else:
            node.event(Answered(call.key, reply.body, reply.payload))

    def cancel(self, node: SimulatedLink, token: int) -> None:
        found = self.in_flight.pop((node.node, token), None)
        if found is not None:
            route = (node.connection, b"%d" % token)
            self.nodes[found[1]].event(Received(Sender(route, None), Cancel()))
