"""The mirrors API group: a topic of this broker that follows a topic of another one.

    create_mirror(mirror, spec)                      -> done
    change_mirror(mirror, action | settings)         -> done            UNKNOWN_MIRROR if there is none
    list_mirrors()                                   -> each mirror, its topics and their lag
    promote_mirror(mirror, topics?)                  -> the fork of each partition, once it takes producers

All of these are answered by the controller. The others are internal: M a mirror's process, C controller, P partition.

    M: mirror_topic(topic, topic_id, partitions, config)      C: done; the topic is created, or changed, and follows
    M: fault_topic(topic, topic_id, reason)                   C: done; the topic is FAULTED, durably
    M: rejoin_topic(topic, topic_id, step, cuts)              C: the topic for records set aside; the cuts; it follows
    M: mirror_append(offset, ...) batch frames                P: log_start_offset, log_end_offset, last_epoch
    C: describe_mirror(mirror)                                M: report
    C: seal_mirror()                                          P: the fork, once every copy is acknowledged
    C: promote_partition(mirror)                              P: leader_epoch, aborted
    M: rejoin_partition(mirror)                               P: where its log differs and ends; done if it is cut

`mirror_append` appends batches as the source has them, at the end of the partition's log and nowhere else: `offset` is
that end. Another end is refused with OFFSET_OUT_OF_RANGE, which names it as `next_offset`; so two senders cannot
interleave. A partition that does not follow a mirror, or not any more, refuses with NOT_MIRRORED. A topic that follows
refuses producers, markers of transactions and the deletion of records with TOPIC_IS_MIRRORED.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from ..patterns import WILDCARD
from .data import Offset
from .message import InternalRequest, Reply, Request
from .mirrored import Cut, Fork, TopicMirror
from .topics import Bytes, PartitionCount, TopicConfig

Text = Annotated[str, Meta(max_length=4_096)]
Patterns = Annotated[tuple[Annotated[str, Meta(pattern=WILDCARD)], ...], Meta(max_length=100)]
RejoinStep = Literal["set_aside", "cut", "survey", "done"]
MirrorAction = Literal["pause", "resume", "delete"]
MAX_MIRRORS = 100


class MirrorSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A source and the part of it that is mirrored. Paths are those of every node of this broker."""

    source: Annotated[str, Meta(min_length=1, max_length=4_096)]
    """Endpoints of the source, as a client takes them."""
    topics: Patterns
    """Names of topics, or patterns with `*` and `?`."""
    groups: Patterns = ("*",)
    """Consumer groups whose offsets are copied, likewise."""
    bytes_per_second: Bytes = -1
    """Limit of the traffic from the source; -1: none."""
    key_file: Text = ""
    """The key file of the user as whom the mirror reads; empty: without authentication."""
    server_key: Text = ""
    user: Text = ""
    password_file: Text = ""
    token_file: Text = ""
    is_failback: bool = False
    """True if topics that are here already follow the source, whose topics of the same id were promoted in their place.
    Records that the source does not have are set aside first."""


class Mirror(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mirror as it is stored."""

    spec: MirrorSpec
    version: int = 1
    """Rises with each change."""
    is_paused: bool = False


class PartitionLag(Struct, frozen=True, kw_only=True):
    partition: int
    log_end_offset: int = -1
    source_high_watermark: int = -1
    """-1: not known yet."""
    lag_bytes: int = -1
    """Bytes that were read and are not appended yet."""
    behind_ms: int = -1
    """Time for which the copy has been incomplete; 0: it is complete as of the last answer of the source."""
    skipped: int = 0
    """Offsets that the source had deleted before they were copied."""


class MirroredTopic(Struct, frozen=True, kw_only=True):
    topic: str
    state: str
    """rejoining, following, sealed, promoted, faulted; refused: it is not mirrored, for a reason."""
    reason: str = ""
    partitions: list[PartitionLag] = []
    forks: list[Fork] = []
    diverged: str = ""
    """The topic with the records that were set aside when it rejoined; empty: there were none."""


class MirrorReport(Struct, frozen=True, kw_only=True):
    """A mirror as it is listed."""

    mirror: str
    spec: MirrorSpec
    state: Literal["running", "paused", "unreachable", "starting"]
    reason: str = ""
    last_contact_ms: int = -1
    """Time of the source's last answer, in ms since the epoch."""
    copied_bytes: int = 0
    """Bytes appended by the mirror's present process."""
    topics: list[MirroredTopic] = []
    groups: list[str] = []
    """Groups whose offsets have been copied."""
    groups_not_copied: dict[str, str] = {}
    """Groups whose state is not copied, with the reason."""
    delayed: dict[str, int] = field(default_factory=dict)
    """Delayed messages that waited at the source when they were last counted, by topic: they are not copied."""
    delayed_at_ms: int = -1
    """The time of that count, in ms since the epoch; -1: the source has not answered, or refuses to list them."""


class CreateMirror(Request, tag="create_mirror", frozen=True):
    mirror: str
    spec: MirrorSpec


class ChangeMirror(Request, tag="change_mirror", frozen=True):
    mirror: str
    action: MirrorAction | None = None
    """`resume` also lets topics that are FAULTED try again. `delete` leaves its topics as ordinary ones of which only
    those promoted are written: the others stay read-only until they are promoted or deleted."""
    bytes_per_second: Bytes | None = None


class ListMirrors(Request, tag="list_mirrors", frozen=True):
    pass


class ListMirrorsReply(Reply, kw_only=True):
    mirrors: list[MirrorReport]
    left: dict[str, list[MirroredTopic]] = field(default_factory=dict)
    """By the name of a mirror that is not here any more, its topics that take no producers."""


class PromoteMirror(Request, tag="promote_mirror", frozen=True):
    mirror: str
    topics: list[str] | None = None
    """None: all of them."""


class PromotedTopic(Struct, frozen=True, kw_only=True):
    topic: str
    forks: list[Fork]


class PromoteMirrorReply(Reply, kw_only=True):
    topics: list[PromotedTopic]


MIRROR_REQUESTS: tuple[type[Request], ...] = (CreateMirror, ChangeMirror, ListMirrors, PromoteMirror)


class MirrorTopic(InternalRequest, tag="mirror_topic", frozen=True):
    mirror: str
    topic: str
    topic_id: str
    partitions: PartitionCount
    config: TopicConfig
    forks: tuple[Fork, ...] = ()
    """Those of the source's topic, if it was promoted."""
    followed: tuple[Fork, ...] = ()
    """Those of the topic that the source's one rejoins or follows, if that was promoted."""
    is_decided: bool = False
    """True if the source's topic follows that one, or is being cut for it."""
    sites: dict[str, int] = field(default_factory=dict)
    """The sites in producer ids that the source knows, by the ids of catalogs."""


class FaultTopic(InternalRequest, tag="fault_topic", frozen=True):
    mirror: str
    topic: str
    topic_id: str
    reason: str


class RejoinTopic(InternalRequest, tag="rejoin_topic", frozen=True):
    """Answered by the description of the topic that the step is about."""

    mirror: str
    topic: str
    topic_id: str
    step: RejoinStep
    """set_aside: a topic is needed for records that the source does not have. cut: all of them are set aside. survey: a
    log has more than was set aside, so nothing is cut yet. done: the topic follows from now on."""
    cuts: tuple[Cut, ...] = ()
    diverged_id: str = ""
    """The id of the topic in which this attempt has set records aside; empty: there were none."""


class DescribeMirror(InternalRequest, tag="describe_mirror", frozen=True):
    mirror: str


class DescribeMirrorReply(Reply):
    report: MirrorReport
    """As its process knows it."""


class MirrorAppend(InternalRequest, tag="mirror_append", frozen=True):
    topic: str
    topic_id: str
    partition: int
    offset: Annotated[int, Meta(ge=-1)]
    """The end of the partition's log, as the sender knows it; -1, without batches: the sender asks for it."""
    source_high_watermark: int = -1
    source_start_offset: Offset = 0
    """The log begins no earlier than the source's."""
    source_leader_epoch: int = -1
    """That of the source's leader, -1 if unknown. It may be far above those of its batches: each start takes one."""


class MirrorAppendReply(Reply, kw_only=True):
    log_start_offset: int
    log_end_offset: int
    last_epoch: int
    """Leader epoch of the log's last batch, -1 without batches."""


class SealMirror(InternalRequest, tag="seal_mirror", frozen=True):
    """The partition takes no more copies, and answers when all are acknowledged."""

    topic: str
    topic_id: str
    partition: int


class SealMirrorReply(Reply, kw_only=True):
    fork: Fork
    leader_epoch: int
    """The epoch of the leader that has answered. The fork of one that leads no more, and does not know, is not valid."""


class PromotePartition(InternalRequest, tag="promote_partition", frozen=True):
    topic: str
    topic_id: str
    partition: int
    mirror: TopicMirror


class PromotePartitionReply(Reply, kw_only=True):
    leader_epoch: int


class RejoinPartition(InternalRequest, tag="rejoin_partition", frozen=True):
    """The partition does not accept producers, and names its records that the promoted topic does not have.

    It answers once all replicas in sync have the same log. With `cuts`, that is once their logs are cut.
    """

    topic: str
    topic_id: str
    partition: int
    mirror: TopicMirror


class RejoinPartitionReply(Reply, kw_only=True):
    cut_offset: int
    """The first offset that may differ from the promoted topic's."""
    log_start_offset: int
    log_end_offset: int
    last_epoch: int
    """The highest leader epoch that the partition has taken, or that a batch of its has."""
    is_done: bool
    """True if nothing is left to set aside, or to cut."""


REQUESTS_TO_CONTROLLER: tuple[type[Request], ...] = (
    *MIRROR_REQUESTS,
    MirrorTopic,
    FaultTopic,
    RejoinTopic,
)
REQUESTS_TO_PARTITION: tuple[type[Request], ...] = (
    MirrorAppend,
    SealMirror,
    PromotePartition,
    RejoinPartition,
)
