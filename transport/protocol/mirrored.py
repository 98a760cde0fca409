"""The part of a topic's state that says which topic of another broker it follows, and where it left it. Structs only.

    rejoining   a former source sets aside what the topic that was promoted does not have, and cuts it    -> following
    following   batches come from the mirror; producers are refused      -> sealed by promote, faulted by the source
    faulted     likewise, and the mirror has stopped for `reason`        -> following by resume, sealed by promote
    sealed      no writer: the ends of the partitions are taken      -> promoted
    promoted    an ordinary topic that knows where it left its source    -> rejoining by failback

Stored by the controller (`mirrors.py`), and given to each partition with its arguments and `configure_partition`.
"""

from typing import Literal

from msgspec import Struct

TopicState = Literal["rejoining", "following", "sealed", "promoted", "faulted"]
FORK_EPOCHS = 1_000
"""Leader epochs that a promoted partition leaves out, so that none of its own equals one that the source takes after the
fork: a reader who comes from there is found by its epoch."""


class Fork(Struct, frozen=True, kw_only=True):
    """The end of the part of a partition that both sides have in common."""

    partition: int
    offset: int
    """The first offset that was not copied."""
    leader_epoch: int
    """The highest leader epoch below it, -1 without batches."""
    source_high_watermark: int = -1
    """The source's as last reported, -1 if unknown: records between the two are not here."""
    heard_at_ms: int = -1
    """The time of that report, in ms since the epoch."""


class TopicMirror(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a topic's entry about its mirror. A topic without one is an ordinary topic."""

    mirror: str
    state: TopicState = "following"
    reason: str = ""
    forks: tuple[Fork, ...] = ()
    """One for each partition, once it is promoted."""
    rejoin_at: tuple[Fork, ...] = ()
    """While it rejoins: the forks of the topic that was promoted, from which on that one's records differ."""
    diverged: str = ""
    """The topic with the records that were set aside when it rejoined; empty: there were none."""

    @property
    def is_writable(self) -> bool:
        return self.state == "promoted"

    def fork_of(self, partition: int) -> Fork | None:
        """Return the fork of a promoted partition. One that was added later has none."""
        return _of(self.forks, partition)

    def meeting_of(self, partition: int) -> Fork | None:
        """Return the fork at which a partition rejoins. None: nothing in it is in the topic that was promoted."""
        return _of(self.rejoin_at, partition)

    def first_epoch(self, partition: int) -> int:
        """Return the lowest leader epoch that the partition may take for itself."""
        fork = self.fork_of(partition) if self.is_writable else None
        return 0 if fork is None else fork.leader_epoch + FORK_EPOCHS


def _of(forks: tuple[Fork, ...], partition: int) -> Fork | None:
    return next((fork for fork in forks if fork.partition == partition), None)
