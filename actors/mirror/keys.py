"""Keys of a mirror's calls, requests to the source, and timers. Structs only."""

from typing import TypeAlias

from msgspec import Struct

from ...transport.addresses import TopicPartition


class FetchKey(Struct, frozen=True):
    """A fetch of one partition of the source. `number` tells it from earlier ones."""

    partition: TopicPartition
    number: int


class BoundsKey(Struct, frozen=True):
    """The first or the last offset of a partition of the source."""

    partition: TopicPartition
    number: int
    is_start: bool


class TopicsKey(Struct, frozen=True):
    """The source's topics."""


class TopicKey(Struct, frozen=True):
    """The description of one of them."""

    topic: str


class GroupsKey(Struct, frozen=True):
    """The source's groups."""


class GroupKey(Struct, frozen=True):
    """The offsets of one of them."""

    group: str


class DelayedKey(Struct, frozen=True):
    """A page of the source's delayed messages."""


class AppendKey(Struct, frozen=True):
    """An append to a partition here, or the question where it ends."""

    partition: TopicPartition
    number: int


class CreateKey(Struct, frozen=True):
    """The controller makes or changes a topic."""

    topic: str
    topic_id: str


class FaultKey(Struct, frozen=True):
    topic: str


class RejoinKey(Struct, frozen=True):
    """A step of a topic that rejoins. The numbers tell it from earlier ones."""

    topic: str
    number: int
    step: int


class EnsureKey(Struct, frozen=True):
    """The controller starts the coordinator of a group."""

    group: str


class CommitKey(Struct, frozen=True):
    """A group's offsets are set here."""

    group: str


class GoOnTimer(Struct, frozen=True):
    """A partition goes on after a pause."""

    partition: TopicPartition


class DiscoverTimer(Struct, frozen=True):
    """The source's topics are listed again."""


class GroupsTimer(Struct, frozen=True):
    """The source's groups are listed again."""


class DelayedTimer(Struct, frozen=True):
    """The source's delayed messages are counted again."""


SourceKey: TypeAlias = FetchKey | BoundsKey | TopicsKey | TopicKey | GroupsKey | GroupKey | DelayedKey
CallKey: TypeAlias = AppendKey | CreateKey | FaultKey | RejoinKey | EnsureKey | CommitKey
TimerKey: TypeAlias = GoOnTimer | DiscoverTimer | GroupsTimer | DelayedTimer
