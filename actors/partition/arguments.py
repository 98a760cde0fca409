"""The arguments with which a partition starts: those of its child spec, and the log as it was opened."""

from collections.abc import Sequence

import msgspec

from ...transport.actor import built_early
from ...transport.protocol.topics import TopicConfig
from ..log.producers import ProducerStates
from .effects import Loss


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
    idle_ms: int = 0
    """The partition sleeps after this time without traffic; 0: never."""


class OpenedLog(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the log at its opening."""

    leader_epoch: int
    log_start_offset: int
    log_end_offset: int
    size_bytes: int
    producers: ProducerStates
    losses: Sequence[Loss] = ()
    lost_files: Sequence[str] = ()
    """Descriptions of files beside the segments that are missing or damaged."""
