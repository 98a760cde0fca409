"""The part of a topic's state that says which topic of another broker it follows, and where it left it. Structs only.

    rejoining   a former source sets aside the records that the promoted topic does not have, and cuts    -> following
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
    first_epoch: int
    """The lowest leader epoch of the promoted partition: the source has none from here on among its own."""
    source_high_watermark: int = -1
    """The source's as last reported, -1 if unknown: records between the two are not here."""
    heard_at_ms: int = -1
    """The time of that report, in ms since the epoch."""


class Cut(Struct, frozen=True, kw_only=True):
    """The records of a former source's partition that are given up: the promoted topic does not have them."""

    partition: int
    offset: int
    """The first of them."""
    end_offset: int
    """The end of the log when all of them were set aside. A longer log must not be cut."""
    last_epoch: int
    """The highest leader epoch that this side had taken then. The records of the promoted topic have later ones."""
    is_whole: bool = False
    """True if every record is given up: compaction may have removed earlier records for those that are."""

    def is_due(self, log_end_offset: int) -> bool:
        """Return True if a leader's log has to be cut, and everything that is cut is set aside."""
        first = 0 if self.is_whole else self.offset
        return first < log_end_offset <= self.end_offset

    def is_done(self, log_end_offset: int) -> bool:
        return log_end_offset <= (0 if self.is_whole else self.offset)

    def gives_up(self, offset: int, last_epoch: int) -> bool:
        """Return True if a log whose last batch has this epoch may lose its records from an offset on."""
        return last_epoch <= self.last_epoch and (self.is_whole or offset >= self.offset)

    def covers(self, other: "Cut") -> bool:
        """Return True if every log may lose by this cut the records that it may lose by the other one."""
        is_longer = self.is_whole or (self.offset <= other.offset and not other.is_whole)
        return self.partition == other.partition and is_longer and self.last_epoch >= other.last_epoch


class TopicMirror(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a topic's entry about its mirror. A topic without one is an ordinary topic."""

    mirror: str
    state: TopicState = "following"
    reason: str = ""
    """The reason of a fault; or the fate of records that were set aside."""
    forks: tuple[Fork, ...] = ()
    """One for each partition, once it is promoted. They are kept while it rejoins and follows after that: the source's
    topic may follow this one by them."""
    source_forks: tuple[Fork, ...] = ()
    """Those of the source's topic, if it was promoted: from them on its records are its own, in epochs of its own. A
    topic that rejoins parts from the source's there."""
    cuts: tuple[Cut, ...] = ()
    """While it rejoins: the records to remove, decided once all of them are set aside."""
    given_up: tuple[Cut, ...] = ()
    """The cuts of earlier fail-backs, which a replica that was away has still to follow."""
    diverged: str = ""
    """The topic with the records that were set aside when it rejoined; empty: there were none."""

    @property
    def is_writable(self) -> bool:
        return self.state == "promoted"

    def cut_of(self, partition: int) -> Cut | None:
        """Return the records of a partition that are to be removed now."""
        return next((cut for cut in self.cuts if cut.partition == partition), None)

    def cuts_after(self, partition: int, last_epoch: int) -> tuple[Cut, ...]:
        """Return the cuts by which a replica whose last batch has this epoch may lose records, also committed ones."""
        cuts = (*self.cuts, *self.given_up)
        return tuple(cut for cut in cuts if cut.partition == partition and last_epoch <= cut.last_epoch)

    def fork_of(self, partition: int) -> Fork | None:
        """Return the fork of a promoted partition. One that was added later has none."""
        return _of(self.forks, partition) if self.is_writable else None

    def meeting_of(self, partition: int) -> Fork | None:
        """Return the fork of the source's partition. None: it has none, so all its records are its own."""
        return _of(self.source_forks, partition)

    def first_epoch(self, partition: int) -> int:
        """Return the lowest leader epoch that the partition may take for itself."""
        fork = self.fork_of(partition)
        return 0 if fork is None else fork.first_epoch

    def epoch_after(self, partition: int, last_epoch: int) -> int:
        """Return the first leader epoch of its own, if this is the last epoch that is known of the source.

        The source has taken fewer than `FORK_EPOCHS` after that, or after its own promotion.
        """
        meeting = self.meeting_of(partition)
        return FORK_EPOCHS + (last_epoch if meeting is None else max(last_epoch, meeting.first_epoch))


def _of(forks: tuple[Fork, ...], partition: int) -> Fork | None:
    return next((fork for fork in forks if fork.partition == partition), None)
