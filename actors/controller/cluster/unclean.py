"""Unclean elections that an operator has ordered: the live replicas are asked how far their logs reach. Pure.

    state      left by
    asking     every live replica has answered or failed -> the one with the longest log is elected, or the order refused

The longest log is the one with the highest leader epoch, and of those the one with the highest end: by the order of
epochs it has most of that which was committed. A replica that does not answer cannot be judged, so it is not elected.
"""

from collections.abc import Iterable

from msgspec import Struct

from ....transport.addresses import Address, TopicPartition, link_address, replica_address
from ....transport.codec import encode_header
from ....transport.machine import Call, Effect, Sender
from ....transport.protocol.cluster import ElectLeader
from ....transport.protocol.links import Relay
from ....transport.protocol.replication import LogEndReply, ReportLogEnd
from ..keys import LogEndCall

ANSWER_TIMEOUT_MS = 3_000


class LogEnd(Struct, frozen=True, order=True):
    """The end of one replica's log. They compare by their fields in order."""

    last_epoch: int
    log_end_offset: int


class _Order(Struct):
    sender: Sender
    request: ElectLeader
    waiting: set[str]
    found: dict[str, LogEnd]


class UncleanElections:
    def __init__(self, node: str) -> None:
        self._node = node
        self._orders: dict[int, _Order] = {}
        self._last = 0

    def ask(self, sender: Sender, request: ElectLeader, topic_id: str, nodes: Iterable[str]) -> list[Effect]:
        """Ask the replicas on these nodes, at least one."""
        self._last += 1
        order = self._orders[self._last] = _Order(sender, request, set(nodes), {})
        partition = TopicPartition(request.topic, request.partition)
        ask = ReportLogEnd(topic=request.topic, topic_id=topic_id, partition=request.partition)
        return [self._call(LogEndCall(self._last, node), ask, partition) for node in sorted(order.waiting)]

    def _call(self, key: LogEndCall, ask: ReportLogEnd, partition: TopicPartition) -> Call:
        replica = replica_address(*partition)
        if key.node == self._node:
            return Call(key, replica, ask, LogEndReply, timeout_ms=ANSWER_TIMEOUT_MS)
        link: Address = link_address(self._node)
        relay = Relay(node=key.node, address=replica, timeout_ms=ANSWER_TIMEOUT_MS)
        header = encode_header(ask)
        return Call(key, link, relay, LogEndReply, payload=[header], timeout_ms=ANSWER_TIMEOUT_MS)

    def on_answer(
        self, key: LogEndCall, reply: LogEndReply | None
    ) -> tuple[Sender, ElectLeader, dict[str, LogEnd]] | None:
        """Take an answer, or None for none; return the order and the ends once no replica is waited for."""
        order = self._orders[key.number]
        order.waiting.discard(key.node)
        if reply is not None:
            order.found[key.node] = LogEnd(reply.last_epoch, reply.log_end_offset)
        if order.waiting:
            return None
        del self._orders[key.number]
        return order.sender, order.request, order.found
