"""Promotions: a topic that is copied here becomes one that takes producers. Pure; called by `mirrors.py`.

    sealed, durably -> each partition names its fork -> promoted, durably, with the forks -> each partition leads in an
    epoch beyond those of its source, and has aborted the source's open transactions -> the requester is answered

In a cluster every controller goes on with all topics that are sealed, so that a promotion
outlives any node: the partitions name one fork each, and of several writes of it one is made. The controller that was
asked waits until the partitions lead, wherever they are.
"""

from collections.abc import Callable

from msgspec.structs import replace

from ...transport.addresses import is_internal, partition_address
from ...transport.machine import Call, Reply, Sender, SetTimer
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.mirrored import Fork, TopicMirror
from ...transport.protocol.mirrors import (
    PromotedTopic,
    PromoteMirror,
    PromoteMirrorReply,
    PromotePartition,
    PromotePartitionReply,
    SealMirror,
    SealMirrorReply,
)
from .catalog import Catalog, TopicEntry
from .decisions import Decisions, FollowUp
from .effects import RETRY_MS, Effect
from .keys import MirrorCall, PromotionTimer
from .rejoins import with_topic_mirror
from .topics import Topics

ATTEMPT_MS = 5_000


class Promotions:
    def __init__(self, decisions: Decisions, topics: Topics) -> None:
        self._decisions = decisions
        self._topics = topics
        self.leader_epoch_of: Callable[[str, int], int | None] = lambda *_: None
        """Set in a cluster: the leader epoch of a partition, by its newest record."""
        self._forks: dict[str, dict[int, Fork]] = {}
        """By topic that is being promoted, the forks so far."""
        self._leading: dict[str, set[int]] = {}
        """By promoted topic, the partitions that do not lead again yet."""
        self._promotions: list[tuple[Sender, set[str], list[str]]] = []
        """Requesters, the topics that each waits for, and all that it asked for."""

    def on_promote(self, sender: Sender, request: PromoteMirror) -> list[Effect]:
        latest = self._decisions.latest
        all_topics = sorted(entry.topic for entry in mirrored_by(latest, request.mirror))
        chosen = [topic for topic in all_topics if not is_internal(topic)]
        topics = chosen if request.topics is None else request.topics
        unknown = [topic for topic in topics if topic not in all_topics]
        if not all_topics and request.mirror not in latest.mirrors:
            message = f"there is no mirror {request.mirror!r}: mirror list shows all of them"
            raise ProtocolError(ErrorCode.UNKNOWN_MIRROR, message)
        if not topics or unknown:
            names = ", ".join(map(repr, unknown)) or "any topic"
            message = f"mirror {request.mirror!r} has not copied {names}: mirror status shows its topics"
            raise ProtocolError(ErrorCode.NOT_MIRRORED, message)
        catalog, waiting = latest, set()
        for topic in topics:
            mirror = latest.topics[topic].mirror
            assert mirror is not None
            if mirror.state == "rejoining":
                message = f"{topic} is rejoining: its mirror completes that, even without the source"
                raise ProtocolError(ErrorCode.CONFLICT, message, retriable=True)
            if mirror.state != "promoted":
                waiting.add(topic)
            if mirror.state in ("following", "faulted"):
                catalog = with_topic_mirror(catalog, topic, replace(mirror, state="sealed"))
        self._promotions.append((sender, waiting, topics))
        if catalog is latest:
            return self._answer_promotions()
        return self._decisions.decide(catalog, FollowUp("mirror_sealed", request.mirror, sender))

    def on_refused(self, sender: Sender) -> None:
        """Forget a requester whose change was not made, and which has been answered."""
        self._promotions = [each for each in self._promotions if each[0] != sender]

    def drive(self) -> list[Effect]:
        """Go on with the topics that are sealed."""
        effects: list[Effect] = []
        for entry in self._decisions.durable.topics.values():
            is_sealed = entry.mirror is not None and entry.mirror.state == "sealed"
            if not is_sealed:
                self._forks.pop(entry.topic, None)
            elif entry.topic not in self._forks:
                self._forks[entry.topic] = {}
                effects += self._topics.configure(entry)
                effects += [_seal(entry, partition) for partition in range(entry.partitions)]
        return effects

    def on_answered(self, key: MirrorCall, reply: SealMirrorReply | PromotePartitionReply) -> list[Effect]:
        if not isinstance(reply, SealMirrorReply):
            left = self._leading.get(key.topic, set())
            left.discard(key.partition)
            return self._finish(key.topic) if not left else []
        forks = self._forks.get(key.topic)
        entry = self._decisions.latest.topics.get(key.topic)
        if forks is None or entry is None or entry.mirror is None:
            return []
        if self.leader_epoch_of(key.topic, key.partition) not in (None, reply.leader_epoch):
            return [_seal(entry, key.partition)]  # another one leads by now, which may have more
        forks[key.partition] = reply.fork
        if len(forks) < entry.partitions:
            return []
        ordered = tuple(forks[partition] for partition in range(entry.partitions))
        promoted = replace(entry.mirror, state="promoted", reason="", forks=ordered)
        catalog = with_topic_mirror(self._decisions.latest, key.topic, promoted)
        return self._decisions.decide(catalog, FollowUp("mirror_promoted", key.topic))

    def on_failed(self, key: MirrorCall, error: ErrorBody, now: int) -> list[Effect]:
        """Give up: the topic was deleted, or created again. If it was promoted, that will be known here soon."""
        if error.code == ErrorCode.NOT_MIRRORED:
            return self.on_not_promoted(key.topic, now)
        self._forks.pop(key.topic, None)
        self._leading.pop(key.topic, None)
        return self._finish(key.topic)

    def on_not_promoted(self, topic: str, now: int) -> list[Effect]:
        """Begin again with a topic whose forks were not stored, unless another controller has stored them."""
        self._forks.pop(topic, None)
        return [SetTimer(PromotionTimer(), now + RETRY_MS)]

    def on_topic(self, topic: str) -> list[Effect]:
        """Act upon a change of a topic that another controller has made."""
        entry = self._decisions.durable.topics.get(topic)
        is_promoted = entry is not None and entry.mirror is not None and entry.mirror.state == "promoted"
        if is_promoted and any(topic in waiting for _, waiting, _ in self._promotions):
            return [*self.apply_promoted(topic), *self.drive()]
        return self.drive()

    def apply_promoted(self, topic: str) -> list[Effect]:
        self._forks.pop(topic, None)
        entry = self._decisions.durable.topics.get(topic)
        if entry is None or entry.mirror is None:
            return self._finish(topic)
        self._leading[topic] = set(range(entry.partitions))
        return [
            *self._topics.configure(entry),
            *(_promote(entry, entry.mirror, partition) for partition in range(entry.partitions)),
        ]

    def _finish(self, topic: str) -> list[Effect]:
        for _, waiting, _ in self._promotions:
            waiting.discard(topic)
        return self._answer_promotions()

    def _answer_promotions(self) -> list[Effect]:
        done = [each for each in self._promotions if not each[1]]
        self._promotions = [each for each in self._promotions if each[1]]
        durable = self._decisions.durable.topics
        effects: list[Effect] = []
        for sender, _, topics in done:
            found = [
                PromotedTopic(topic=topic, forks=list(entry.mirror.forks))
                for topic in topics
                if (entry := durable.get(topic)) is not None and entry.mirror is not None
            ]
            effects.append(Reply(sender, PromoteMirrorReply(topics=found)))
        return effects


def mirrored_by(catalog: Catalog, mirror: str, *states: str) -> list[TopicEntry]:
    return [
        entry
        for entry in catalog.topics.values()
        if entry.mirror is not None
        and entry.mirror.mirror == mirror
        and (not states or entry.mirror.state in states)
    ]


def _seal(entry: TopicEntry, partition: int) -> Call:
    request = SealMirror(topic=entry.topic, topic_id=entry.topic_id, partition=partition)
    key, address = MirrorCall(entry.topic, partition), partition_address(entry.topic, partition)
    return Call(key, address, request, SealMirrorReply, timeout_ms=ATTEMPT_MS, is_endless=True)


def _promote(entry: TopicEntry, mirror: TopicMirror, partition: int) -> Call:
    request = PromotePartition(topic=entry.topic, topic_id=entry.topic_id, partition=partition, mirror=mirror)
    key, address = (
        MirrorCall(entry.topic, partition, is_promotion=True),
        partition_address(entry.topic, partition),
    )
    return Call(key, address, request, PromotePartitionReply, timeout_ms=ATTEMPT_MS, is_endless=True)
