"""The answers to `metadata`: the partitions, coordinators and their endpoints; parks the long polls. Pure.

The version counts visible changes. Each incarnation of the gateway begins at a new one, far from any that the last
can have reached; a poll after a version that this gateway has not reached is answered at once. A parked poll is woken
only by changes of the topics it asks for.
"""

from collections.abc import Iterable

from msgspec import UNSET

from ...transport.addresses import coordinator_address, is_internal, partition_address
from ...transport.machine import CancelTimer, Effect, SetTimer
from ...transport.protocol.session import (
    GroupMetadata,
    Metadata,
    MetadataReply,
    PartitionMetadata,
    TopicMetadata,
)
from .access import Access, Granted
from .keys import PollTimer
from .nodes import Nodes
from .peers import Peers
from .quotas import Quotas
from .tickets import Tickets
from .topic_table import TopicTable


class MetadataPolls:
    def __init__(
        self,
        tickets: Tickets,
        table: TopicTable,
        peers: Peers,
        quotas: Quotas,
        nodes: Nodes,
        access: Access | None,
        instance_id: str,
        incarnation: int,
    ) -> None:
        self._tickets = tickets
        self._table = table
        self._peers = peers
        self._quotas = quotas
        self._nodes = nodes
        self._access = access
        self._instance_id = instance_id
        self._version = incarnation << 32
        self._changed_at: dict[str, int] = {}
        self._listing_changed_at = self._version
        """The version at which a topic last came, went or changed: polls for all topics wait for a later one."""
        self._parked: dict[int, Metadata] = {}

    def needs_table(self, request: Metadata) -> bool:
        """Return True if the controller may know more of what is requested. A long poll has seen the table before:
        topics that are unknown then will arrive with the poll itself."""
        if not self._table.is_loaded:
            return True
        is_first = request.after_version is None
        return is_first and any(self._table.get(topic) is None for topic in request.topics or ())

    def on_metadata(self, number: int, request: Metadata, now: int) -> list[Effect]:
        if request.max_wait_ms <= 0 or self._is_news(request):
            return self._answer(number, request)
        self._parked[number] = request
        return [SetTimer(PollTimer(number), now + request.max_wait_ms)]

    def on_timer(self, number: int) -> list[Effect]:
        request = self._parked.pop(number, None)
        return [] if request is None else self._answer(number, request)

    def forget(self, number: int) -> list[Effect]:
        """Drop a poll whose requester is gone."""
        return [] if self._parked.pop(number, None) is None else [CancelTimer(PollTimer(number))]

    def on_changed(self, topics: Iterable[str], gone: Iterable[str] = ()) -> list[Effect]:
        """Note that the metadata of these topics has changed; `gone` ones are no longer shown."""
        changed = [*topics, *gone]
        if not changed:
            return []
        self._version += 1
        for topic in changed:
            self._changed_at[topic] = self._version
            if not is_internal(topic):
                self._listing_changed_at = self._version
        self._forget_versions_of_gone_topics()
        effects: list[Effect] = []
        for number, request in list(self._parked.items()):
            if self._is_news(request):
                effects += [CancelTimer(PollTimer(number)), *self.on_timer(number)]
        return effects

    def _forget_versions_of_gone_topics(self) -> None:
        # Names of deleted topics would accumulate; a poll for one of them is then woken by any change, which is
        # harmless.
        if len(self._changed_at) > 2 * len(self._table.names) + 1_000:
            kept = {name: at for name, at in self._changed_at.items() if self._table.get(name) is not None}
            self._changed_at = kept

    def _is_news(self, request: Metadata) -> bool:
        after = request.after_version
        if after is None or after > self._version:
            return True
        if request.topics is None:
            return self._listing_changed_at > after
        return any(self._changed_at.get(topic, 0) > after for topic in request.topics)

    def _answer(self, number: int, request: Metadata) -> list[Effect]:
        ticket = self._tickets.get(number)
        if ticket is None:
            return []
        # The gateway enforces quotas and rights: a client under them gets no endpoint that bypasses it.
        has_quota = self._quotas.is_limited(ticket.sender.route[0])
        is_limited = ticket.granted is not None or has_quota
        return self._tickets.answer(number, self._reply(request, is_limited, has_quota, ticket.granted))

    def _reply(
        self, request: Metadata, is_limited: bool, has_quota: bool, granted: Granted | None
    ) -> MetadataReply:
        names = request.topics
        if names is None:
            names = [name for name in self._table.names if not is_internal(name)]
            if granted is not None and self._access is not None:
                names = [name for name in names if self._access.sees_topic(granted, name)]
        known = [name for name in dict.fromkeys(names) if self._table.get(name) is not None]
        return MetadataReply(
            version=self._version,
            instance_id=self._instance_id,
            topics=[self._topic(name, is_limited, has_quota) for name in known],
            unknown_topics=[name for name in dict.fromkeys(names) if self._table.get(name) is None],
            groups=[self._group(name, is_limited, has_quota) for name in request.groups]
            if request.groups
            else UNSET,
            nodes=self._nodes.named,
        )

    def _group(self, name: str, is_limited: bool, has_quota: bool) -> GroupMetadata:
        peer = self._peers.up(coordinator_address(name))
        if peer is not None and peer.node:
            return GroupMetadata(name, node=UNSET if has_quota else peer.node)
        return GroupMetadata(name, None if peer is None or is_limited else peer.endpoint)

    def _topic(self, name: str, is_limited: bool, has_quota: bool) -> TopicMetadata:
        entry = self._table.get(name)
        assert entry is not None
        # The broker's own topics are written by its actors alone: the gateway refuses other writers.
        is_hidden = is_limited or is_internal(name)
        partitions = [
            self._partition(name, partition, is_hidden, has_quota) for partition in range(entry.partitions)
        ]
        return TopicMetadata(name, entry.topic_id, entry.max_message_bytes, partitions)

    def _partition(self, topic: str, partition: int, is_hidden: bool, has_quota: bool) -> PartitionMetadata:
        address = partition_address(topic, partition)
        peer = self._peers.up(address)
        sleeper = self._peers.next_of_sleeper(address)
        if sleeper is not None:
            # It has no endpoint yet: the gateway wakes it.
            return PartitionMetadata(partition, online=True, incarnation=sleeper)
        if peer is None:
            down = self._peers.down(address)
            incarnation = 0 if down is None else down.incarnation
            reason = self._peers.why_down(address)
            return PartitionMetadata(partition, online=False, incarnation=incarnation, reason=reason)
        # The endpoint of an actor of another node is this node's link, which clients must not reach.
        endpoint = None if is_hidden or peer.node else peer.endpoint
        # The quota of a client is that of all nodes together only as long as one of them sees all its requests.
        node = UNSET if has_quota or not peer.node else peer.node
        return PartitionMetadata(
            partition, online=True, incarnation=peer.incarnation, endpoint=endpoint, node=node
        )
