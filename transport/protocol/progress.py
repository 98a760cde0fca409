"""The progress dialog: a group's coordinator tells the partitions of its topics how far the group has come.

    C: report_progress(topic, partition, topic_id, group, epoch, offset, leader_epoch, has_members)    P: is_urgent

Only of topics whose configuration needs it (`CatalogTopic.tracks_groups`), on change, one report at a time for each
partition. A coordinator reports everything when it starts, and everything about a partition when that has come up. A
report without an offset and without members takes the group out. Between actors only: no client may rely on it.
"""

from .message import Reply, Request

NOT_COMMITTED = -1


class ReportProgress(Request, tag="report_progress", frozen=True):
    topic: str
    partition: int
    topic_id: str
    """Of an earlier topic of this name nothing is to be learned."""
    group: str
    epoch: int
    """Of the coordinator's start: what an earlier one had said arrives too late."""
    offset: int
    """What is committed, or NOT_COMMITTED."""
    leader_epoch: int | None
    """Of the partition's start that the offset was read from. One before the partition's latest: the offset holds as far
    as the log reached then, what lies behind are records that the group has not read."""
    has_members: bool
    """Whether anybody in the group is subscribed to the topic."""


class ReportProgressReply(Reply):
    is_urgent: bool
    """Producers are held up, or nearly: the next report should not wait."""
