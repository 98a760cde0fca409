"""The keys of the controller's calls and timers. Pure."""

from typing import TypeAlias

from msgspec import Struct

from ...transport.addresses import Address, TopicPartition


class CommandCall(Struct, frozen=True):
    """A start or stop of a child, by the supervisor."""

    address: Address
    number: int


class DescriptionCall(Struct, frozen=True):
    """The description of one partition."""

    number: int
    partition: int


class DescriptionTimer(Struct, frozen=True):
    """End of the wait for partitions of a topic that is described."""

    number: int


class GroupDeletion(Struct, frozen=True):
    """A coordinator is to delete its group's state."""

    group: str


class OrphanSearch(Struct, frozen=True):
    """The running children, from the supervisor."""


class EraCall(Struct, frozen=True):
    """The highest era of producer ids that a partition has seen."""

    address: Address


class WatchTimer(Struct, frozen=True):
    """End of a parked watch of the catalog."""

    number: int


class RemainsTimer(Struct, frozen=True):
    """The end of a deletion, which could not be saved, is repeated."""

    topic: str


class ClusterCall(Struct, frozen=True):
    """A call that only a node of a cluster makes."""


class RoleCall(ClusterCall, frozen=True):
    """A replica takes its role."""

    partition: TopicPartition
    incarnation: int
    revision: int


class LocateCall(ClusterCall, frozen=True):
    """The supervisor takes the locations of leaders."""


class StopWatch(ClusterCall, frozen=True):
    """The state of a stop that the supervisor was asked for; and the timer that begins the watch again."""


class ConclusionCall(ClusterCall, frozen=True):
    """The supervisor learns the end of a stop's preparation."""


class LogEndCall(ClusterCall, frozen=True):
    """The end of one replica's log, for an unclean election."""

    number: int
    node: str


class LivenessCall(ClusterCall, frozen=True):
    """The leader of a partition on another node learns that a replica's node is taken for dead, or lives."""

    partition: TopicPartition
    node: str
    number: int


class MirrorCall(Struct, frozen=True):
    """A partition of a mirrored topic takes no more copies, and names its fork; or it leads as a promoted one."""

    topic: str
    partition: int
    is_promotion: bool = False


class MirrorReportCall(Struct, frozen=True):
    """The figures of a mirror's process, for a list of all mirrors."""

    number: int
    mirror: str


class PromotionTimer(Struct, frozen=True):
    """Topics that are sealed go on to be promoted."""


class ClusterTick(Struct, frozen=True):
    """Suspicions are judged again."""


class NodesWatchTimer(Struct, frozen=True):
    """End of a parked watch of the nodes."""

    number: int


CallKey: TypeAlias = (
    CommandCall
    | DescriptionCall
    | GroupDeletion
    | OrphanSearch
    | EraCall
    | RoleCall
    | LocateCall
    | StopWatch
    | ConclusionCall
    | LogEndCall
    | LivenessCall
    | MirrorCall
    | MirrorReportCall
)
TimerKey: TypeAlias = (
    DescriptionTimer | WatchTimer | RemainsTimer | PromotionTimer | ClusterTick | NodesWatchTimer | StopWatch
)
