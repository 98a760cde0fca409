"""The progress API group: a group's coordinator reports the group's committed offsets to the partitions of its topics.

    C: report_progress(topic, partition, topic_id, group, epoch, offset, leader_epoch, has_members)    P: is_urgent

Only for topics whose configuration needs it (`CatalogTopic.tracks_groups`), on change, one report at a time for each
partition. A coordinator reports everything when it starts, and everything about a partition when that comes up. A
report without an offset and without members removes the group. Between actors only: no client may rely on it.
"""

from .message import InternalRequest, Reply

NOT_COMMITTED = -1


class ReportProgress(InternalRequest, tag="report_progress", frozen=True):
    topic: str
    partition: int
    topic_id: str
    """Progress in an earlier topic of this name is ignored."""
    group: str
    epoch: int
    """Epoch of the coordinator's start: late messages of an earlier coordinator are recognised by it."""
    offset: int
    """The committed offset, or NOT_COMMITTED."""
    leader_epoch: int | None
    """Leader epoch under which the offset was read. If it precedes the partition's latest, the offset is valid up
    to the end of the log at that epoch; the group has not read later records."""
    has_members: bool
    """True if any member of the group is subscribed to the topic."""


class ReportProgressReply(Reply):
    is_urgent: bool
    """Producers are blocked, or nearly: the next report should not wait."""
