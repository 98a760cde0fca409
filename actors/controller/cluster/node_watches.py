"""Long polls of links and gateways on the nodes: parked until these change or the request times out. Pure.

The version of an answer is a hash of its content, so that one given by an earlier process of the controller is as good
as one of this process: a watch parks only while its nodes are those that there are.
"""

from collections.abc import Collection, Mapping
from hashlib import blake2b

import msgspec

from ....transport.machine import CancelTimer, Effect, Reply, Sender, SetTimer
from ....transport.protocol.links import LinkedNode, WatchNodes, WatchNodesReply
from ..keys import NodesWatchTimer
from .records import NodeSession


class NodeWatches:
    def __init__(self) -> None:
        self._parked: dict[int, Sender] = {}
        self._last_number = 0
        self._nodes: list[LinkedNode] = []
        self._leading: str | None = None
        self._suspected: tuple[str, ...] = ()
        self._version = self._hash()

    def on_watch(self, sender: Sender, request: WatchNodes, now: int) -> list[Effect]:
        if request.after_version != self._version or request.max_wait_ms <= 0:
            return [Reply(sender, self._answer())]
        self._last_number += 1
        self._parked[self._last_number] = sender
        return [SetTimer(NodesWatchTimer(self._last_number), now + request.max_wait_ms)]

    def on_timer(self, number: int) -> list[Effect]:
        sender = self._parked.pop(number, None)
        return [] if sender is None else [Reply(sender, self._answer())]

    def forget(self, connection: bytes) -> list[Effect]:
        """Drop the watches of a closed connection."""
        gone = [number for number, sender in self._parked.items() if sender.route[0] == connection]
        for number in gone:
            del self._parked[number]
        return [CancelTimer(NodesWatchTimer(number)) for number in gone]

    def on_changed(
        self, sessions: Mapping[str, NodeSession], leading: str | None, suspected: Collection[str]
    ) -> list[Effect]:
        """Answer all parked watches with the nodes that have a session now."""
        self._leading = leading
        self._suspected = tuple(sorted(sessions.keys() & suspected))
        self._nodes = [
            LinkedNode(session.node, session.start_id, session.peer_endpoint, session.endpoint)
            for session in sorted(sessions.values(), key=lambda session: session.node)
        ]
        self._version = self._hash()
        parked, self._parked = self._parked, {}
        return [
            effect
            for number, sender in parked.items()
            for effect in (CancelTimer(NodesWatchTimer(number)), Reply(sender, self._answer()))
        ]

    def _hash(self) -> int:
        content = msgspec.msgpack.encode((self._nodes, self._leading, self._suspected))
        return int.from_bytes(blake2b(content, digest_size=6).digest())

    def _answer(self) -> WatchNodesReply:
        return WatchNodesReply(
            version=self._version, nodes=self._nodes, leading=self._leading, suspected=self._suspected
        )
