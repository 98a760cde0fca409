"""The effects of the controller's machine and the events that answer them. Pure.

    Propose          decisions are recorded in the metadata store (`metadata/store.py`) -> Changed, then Outcome
    RemoveTopic      the files of a topic that no process has open are deleted          -> TopicRemoved | TopicNotRemoved
    ReadOutput       a part of the output of a deployment's workers is read             -> OutputRead

Loaded is the first event: the catalog is loaded, and its processes have to be started. TurnEnds follows the events of
each turn, and the events of the store that it leads to.
"""

from typing import TypeAlias

from msgspec import Struct

from ...transport.addresses import TopicPartition
from ...transport.machine import LoopEffect, LoopEvent, Sender
from ...transport.protocol.deployments import ReadDeploymentOutput, ReadDeploymentOutputReply
from ...transport.protocol.errors import ErrorBody
from ..metadata.store import Propose, StoreEvent
from .catalog import TopicEntry
from .cluster.disk import DiskState, KeepDisk

RETRY_MS = 500
"""The delay before the controller repeats a failed request."""


class Loaded(Struct, frozen=True):
    pass


class TurnEnds(Struct, frozen=True):
    """All events of the turn are handled: their decisions may be proposed together."""


class RemoveTopic(Struct, frozen=True):
    topic: str
    topic_id: str


class MakeReplica(Struct, frozen=True):
    """Make the folder of a partition whose copy this node is to hold."""

    entry: TopicEntry
    partition: int


class RemoveReplica(Struct, frozen=True):
    """Delete the files of a partition that this node holds no more, and that no process has open."""

    partition: TopicPartition


class RemoveRemains(Struct, frozen=True):
    """Delete the files of a topic that was deleted, or of one partition that was moved, while this node was away."""

    topic: str
    topic_id: str
    partition: int | None = None
    """None: all of the topic."""


class LookForReplica(Struct, frozen=True):
    """See whether the folder of a replica that does not start is there -> ReplicaLost if not."""

    partition: TopicPartition
    topic_id: str


class ReplicaLost(Struct, frozen=True):
    """The folder of a replica is missing, or is another topic's."""

    partition: TopicPartition


class DiskKept(Struct, frozen=True):
    state: DiskState


class TopicRemoved(Struct, frozen=True):
    topic: str


class TopicNotRemoved(Struct, frozen=True):
    topic: str
    error: ErrorBody


class ReadOutput(Struct, frozen=True):
    sender: Sender
    request: ReadDeploymentOutput
    node: str
    """This node."""


class OutputRead(Struct, frozen=True):
    sender: Sender
    reply: ReadDeploymentOutputReply | ErrorBody


OwnEvent: TypeAlias = (
    Loaded | TurnEnds | StoreEvent | TopicRemoved | TopicNotRemoved | ReplicaLost | DiskKept | OutputRead
)
OwnEffect: TypeAlias = (
    Propose
    | RemoveTopic
    | MakeReplica
    | RemoveReplica
    | RemoveRemains
    | LookForReplica
    | KeepDisk
    | ReadOutput
)
Event: TypeAlias = LoopEvent | OwnEvent
Effect: TypeAlias = LoopEffect | OwnEffect
