"""The arguments in a partition's child spec."""

from typing import Literal

import msgspec

from ...transport.actor import built_early
from ...transport.protocol.mirrored import TopicMirror
from ...transport.protocol.topics import TopicConfig


@built_early
class PartitionArguments(msgspec.Struct, kw_only=True):
    """The arguments in a partition's child spec."""

    topic: str
    partition: int
    topic_id: str
    config: TopicConfig
    directory: str
    """Relative to the data directory, or absolute."""
    disk_reserve_bytes: int = 0
    """Producers are refused before less than this is free; 0: only when the disk is full."""
    slow_sync_ms: int = 0
    """A leader whose syncs take longer than this asks to be relieved, unless its followers' do as well; 0: never."""
    idle_ms: int = 0
    """The partition sleeps after this time without traffic; 0: never. Only with `leadership` own."""
    leadership: Literal["own", "given"] = "own"
    """own: this is the only replica, which leads from its start, in an epoch that it takes itself. given: the
    partition waits for `lead` or `follow` (`transport/protocol/replication.py`)."""
    node: str = ""
    data_id: str = ""
    """The node and the data directory of this replica, by which other replicas know it."""
    peer_endpoint: str = ""
    """The endpoint to bind for followers on other nodes, at any port; empty: none. Only with `leadership` given."""
    peer_host: str = ""
    """Its host, as other nodes reach it."""
    peer_keys: str = ""
    """The file of the keys that connections between nodes need; empty: none."""
    reached_at: str = ""
    """The endpoint as other nodes reach it, with its port. Known once it is bound."""
    mirror: TopicMirror | None = None
    """None for a topic that follows no other."""

    @property
    def is_mirrored(self) -> bool:
        """True if the partition takes batches of its mirror alone."""
        return self.mirror is not None and not self.mirror.is_writable

    @property
    def first_epoch(self) -> int:
        """The lowest leader epoch in which the partition may lead."""
        return 0 if self.mirror is None else self.mirror.first_epoch(self.partition)

    def own_epoch(self, highest: int) -> int:
        """Return the epoch that the partition takes by itself; `highest` is that of its log."""
        return max(highest + 1, self.first_epoch)

    def has_own_records(self, last_epoch: int) -> bool:
        """Return True if the batch of this leader epoch was written here, and not copied from another broker."""
        return not self.is_mirrored and last_epoch >= self.first_epoch
