"""Results of calls about mirrors; see descriptions.py. Pure."""

from msgspec import Struct


class MirrorFork(Struct, frozen=True, kw_only=True):
    """The end of the part of a promoted partition that it has in common with its source."""

    partition: int
    offset: int
    """The first offset that was not copied."""
    leader_epoch: int
    """The highest leader epoch below it, -1 without batches."""
    first_epoch: int
    """The lowest leader epoch of the promoted partition."""
    source_high_watermark: int
    """The source's as last reported, -1 if unknown. The records between the two were not copied."""
    heard_at_ms: int
    """The time of that report in milliseconds since the epoch, -1 if unknown."""


class MirrorCut(Struct, frozen=True, kw_only=True):
    """The records of a former source's partition that are given up, after they have been set aside."""

    partition: int
    offset: int
    """The first of them."""
    end_offset: int
    """The end of the log when all of them were set aside."""
    last_epoch: int
    """The highest leader epoch that this side had taken then."""
    is_whole: bool
    """True if every record is given up, also those before the first one: the topic is compacted."""


class TopicMirror(Struct, frozen=True, kw_only=True):
    """The mirror that fills a topic, or filled it until it was promoted."""

    mirror: str
    state: str
    """rejoining, following, faulted, sealed, or promoted."""
    reason: str
    """The reason of a fault."""
    forks: list[MirrorFork]
    """One for each partition, once it is promoted."""
    source_forks: list[MirrorFork] = []
    """Those of the source's topic, if it was promoted."""
    cuts: list[MirrorCut] = []
    """While it rejoins: the records that are being removed."""
    given_up: list[MirrorCut] = []
    """Those of earlier fail-backs."""
    diverged: str = ""
    """The topic with the records that were set aside when it rejoined; empty: there were none."""


class MirrorLag(Struct, frozen=True, kw_only=True):
    """A partition that is copied. -1: not known yet."""

    partition: int
    log_end_offset: int
    source_high_watermark: int
    lag_bytes: int
    """Bytes that were read from the source and are not appended yet."""
    behind_ms: int
    """Time for which the copy has been incomplete; 0: it is complete as of the last answer of the source."""
    skipped: int
    """Offsets that the source had deleted before they were copied."""


class MirroredTopic(Struct, frozen=True, kw_only=True):
    """A topic of a mirror."""

    topic: str
    state: str
    """rejoining, following, sealed, promoted, faulted; refused: it is not copied, for a reason."""
    reason: str
    partitions: list[MirrorLag]
    """Empty while the topic is not copied."""
    forks: list[MirrorFork]
    """One for each partition, once it is promoted."""
    diverged: str
    """The topic with the records that were set aside when it rejoined; empty: there were none."""


class MirrorDescription(Struct, frozen=True, kw_only=True):
    """A mirror: topics of another broker that are copied to this one."""

    mirror: str
    source: str
    """Endpoints of the other broker."""
    topic_patterns: list[str]
    group_patterns: list[str]
    bytes_per_second: int
    """Limit of the traffic; -1: none."""
    failback: bool
    """True if topics of this broker follow those that were promoted in their place."""
    state: str
    """running, paused, unreachable or starting."""
    reason: str
    last_contact_ms: int
    """Time of the source's last answer in milliseconds since the epoch; -1: there was none."""
    copied_bytes: int
    """Bytes appended by the mirror's present process."""
    topics: list[MirroredTopic]
    groups: list[str]
    """Groups whose offsets have been copied."""
    groups_not_copied: dict[str, str]
    """Groups whose state is not copied, with the reason."""
    delayed: dict[str, int]
    """Delayed messages that waited at the source when they were last counted, by topic: they are not copied."""
    delayed_at_ms: int
    """The time of that count in milliseconds since the epoch; -1: not known."""
