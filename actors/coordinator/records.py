"""The records of `__offsets`: everything a coordinator must remember, as changes by key.

Owns their form and its translation, but not who decides a change or when it takes effect. The newest record of a key
holds, nil deletes the key, so the topic may be compacted. Several groups share a partition; each group's batches carry
their own producer ids.

    record = key value                                  both MessagePack
    key    = ["start", group]                           value = {epoch, starter}
           | ["group", group]                                   {generation}
           | ["member", group, member_id]                       {instance_id, ..., target, held} | nil
           | ["topic", group, topic]                            {topic_id, partitions} | nil
           | ["offset", group, topic, partition]                {offset, metadata, reset_epoch, leader_epoch} | nil
           | ["pending", group, producer_id, epoch]             {offsets: [...]} | nil: the offsets a transaction moves
           | ["fence", group, producer_id]                      {epoch, ended_ms} | nil
           | ["resets", group]                                  {count, floor}
           | ["unused", group]                                  {since_ms} | nil: time since which its offsets are unused
           | ["pause", group]                                   {reason, since_ms, until_ms} | nil
           | ["share_group", group]                             settings | nil      } their meaning and form:
           | ["share", group, topic, partition]                 progress | nil      } share/records.py
    target = {topic: [partition, ...]}                  held  = [[topic, generation, [partition, ...]], ...]

`start` is the first record of every incarnation and is never deleted: the epochs of a group only rise, even when the
group is deleted and created again. Nor is `resets`, which counts resets of offsets and deletions. `topic` identifies
the topic of that name to which the offsets and the grants belong. Every prefix of the records is a state in which no
partition has two holders.
"""

from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from ...transport.addresses import TopicPartition
from ...transport.batch import Record
from ...transport.protocol.groups import AssignorName
from ...transport.protocol.message import TopicPartitions, by_topic
from ..journal.identity import Start
from ..journal.replay import InvalidRecord
from .members import Member, flattened
from .offsets import CommittedOffset
from .pending_offsets import Fence, PendingOffsets
from .share.records import ShareProgress, ShareSettings


class StartKey(Struct, frozen=True, array_like=True, tag="start"):
    group: str


class GroupKey(Struct, frozen=True, array_like=True, tag="group"):
    group: str


class MemberKey(Struct, frozen=True, array_like=True, tag="member"):
    group: str
    member_id: str


class TopicKey(Struct, frozen=True, array_like=True, tag="topic"):
    group: str
    topic: str


class OffsetKey(Struct, frozen=True, array_like=True, tag="offset"):
    group: str
    topic: str
    partition: int


class PendingKey(Struct, frozen=True, array_like=True, tag="pending"):
    group: str
    producer_id: int
    producer_epoch: int


class FenceKey(Struct, frozen=True, array_like=True, tag="fence"):
    group: str
    producer_id: int


class ResetsKey(Struct, frozen=True, array_like=True, tag="resets"):
    group: str


class UnusedKey(Struct, frozen=True, array_like=True, tag="unused"):
    group: str


class PauseKey(Struct, frozen=True, array_like=True, tag="pause"):
    group: str


class ShareGroupKey(Struct, frozen=True, array_like=True, tag="share_group"):
    group: str


class ShareKey(Struct, frozen=True, array_like=True, tag="share"):
    group: str
    topic: str
    partition: int


Key: TypeAlias = (
    StartKey
    | GroupKey
    | MemberKey
    | TopicKey
    | OffsetKey
    | PendingKey
    | FenceKey
    | ResetsKey
    | UnusedKey
    | PauseKey
    | ShareGroupKey
    | ShareKey
)


class GroupProgress(Struct, frozen=True):
    generation: int


class Resets(Struct, frozen=True):
    count: int
    """Number of resets and deletions in the group's history."""
    floor: int
    """The count at the latest deletion: the reset epoch of partitions without a committed offset."""


class Unused(Struct, frozen=True):
    since_ms: int


class Pause(Struct, frozen=True):
    """An operator's pause of the group, with times of the broker's steady clock."""

    reason: str
    since_ms: int
    until_ms: int | None


class KnownTopic(Struct, frozen=True, omit_defaults=True):
    topic_id: str
    """Empty if the topic did not exist when the group subscribed to it."""
    partitions: int = 0
    """Number of partitions the group knows; later ones are read from their beginning."""


class Change(Struct, frozen=True):
    """One record, decoded. `value` None deletes."""

    key: Key
    value: (
        Start
        | GroupProgress
        | Member
        | KnownTopic
        | CommittedOffset
        | PendingOffsets
        | Fence
        | Resets
        | Unused
        | Pause
        | ShareSettings
        | ShareProgress
        | None
    )


HeldRun: TypeAlias = tuple[str, int, list[int]]


class _MemberValue(Struct, omit_defaults=True):
    topics: list[str]
    session_timeout_ms: int
    generation: int
    instance_id: str | None = None
    client_id: str = ""
    assignor: AssignorName | None = None
    replaced: str | None = None
    target: TopicPartitions = {}
    held: list[HeldRun] = []


_encode = msgspec.msgpack.Encoder().encode
_decode_key = msgspec.msgpack.Decoder(Key).decode
_VALUES: dict[type[Any], msgspec.msgpack.Decoder[Any]] = {
    StartKey: msgspec.msgpack.Decoder(Start),
    GroupKey: msgspec.msgpack.Decoder(GroupProgress),
    MemberKey: msgspec.msgpack.Decoder(_MemberValue),
    TopicKey: msgspec.msgpack.Decoder(KnownTopic),
    OffsetKey: msgspec.msgpack.Decoder(CommittedOffset),
    PendingKey: msgspec.msgpack.Decoder(PendingOffsets),
    FenceKey: msgspec.msgpack.Decoder(Fence),
    ResetsKey: msgspec.msgpack.Decoder(Resets),
    UnusedKey: msgspec.msgpack.Decoder(Unused),
    PauseKey: msgspec.msgpack.Decoder(Pause),
    ShareGroupKey: msgspec.msgpack.Decoder(ShareSettings),
    ShareKey: msgspec.msgpack.Decoder(ShareProgress),
}


def encode(change: Change) -> Record:
    value = change.value
    if value is None:
        return (_encode(change.key), None, 0, None)
    return (_encode(change.key), _encode(_stored(value) if isinstance(value, Member) else value), 0, None)


def decode(key: bytes | None, value: bytes | None, group: str) -> Change | None:
    """Return the change a record stands for; None if it is another group's. Raises InvalidRecord."""
    try:
        decoded = _decode_key(key or b"")
        if decoded.group != group:
            return None
        if value is None:
            return Change(decoded, None)
        content = _VALUES[type(decoded)].decode(value)
    except msgspec.MsgspecError as error:
        raise InvalidRecord(f"record {key!r} cannot be read: {error}") from error
    if isinstance(content, _MemberValue):
        assert isinstance(decoded, MemberKey)
        content = _restored(decoded.member_id, content)
    return Change(decoded, content)


def _stored(member: Member) -> _MemberValue:
    runs: dict[tuple[str, int], list[int]] = {}
    for (topic, partition), generation in sorted(member.held.items()):
        runs.setdefault((topic, generation), []).append(partition)
    return _MemberValue(
        topics=list(member.topics),
        session_timeout_ms=member.session_timeout_ms,
        generation=member.generation,
        instance_id=member.instance_id,
        client_id=member.client_id,
        assignor=member.assignor,
        replaced=member.replaced,
        target=by_topic(member.target),
        held=[(topic, generation, partitions) for (topic, generation), partitions in runs.items()],
    )


def _restored(member_id: str, value: _MemberValue) -> Member:
    return Member(
        member_id=member_id,
        instance_id=value.instance_id,
        client_id=value.client_id,
        topics=tuple(value.topics),
        session_timeout_ms=value.session_timeout_ms,
        assignor=value.assignor,
        replaced=value.replaced,
        generation=value.generation,
        target=flattened(value.target),
        held={
            TopicPartition(topic, partition): generation
            for topic, generation, partitions in value.held
            for partition in partitions
        },
    )
