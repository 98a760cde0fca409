"""The machine of a mirror: which topics of the source are copied, and the copy of each partition. Pure.

Owns nothing that lasts. Where a copy ends is in the log of the partition here, which topics are copied and why one is
not is in the controller's catalog; so a mirror that is killed begins again by asking, and two mirrors of one name, while
a node is taken for dead, cannot do harm: the partition takes a batch at its end or not at all.

    topic       means                                                 left by
    described   the source has been asked for its configuration       the answer -> made
    made        the controller creates it here, or changes it         done -> copied, rejoining; NOT_MIRRORED -> promoted;
                                                                      any other refusal -> refused
    rejoining   it was the source: records that the other side lacks  done, or an error -> described again
                are set aside (`rejoining.py`)
    copied      each partition has a `Copying`                        faulted by one of them; left -> described again
    refused     it cannot be copied: a topic of this name is here,    asked again with each listing
                or the source follows this broker (a loop)
    faulted     the source is not the one that was copied             a change of the mirror by an operator (`resume`)
    promoted    it takes producers here                               for good

    event                       effects
    Started, DiscoverTimer      the source's topics are listed; the chosen ones that are new, or have grown, are described
    GroupsTimer, DelayedTimer   `group_offsets.py`, `delayed.py`
    DescribeMirror              the figures
    others                      the partition, topic or group that asked goes on
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import assert_never

from ...transport.addresses import CONTROLLER, TopicPartition, is_internal
from ...transport.machine import (
    Answered,
    Call,
    Connected,
    Disconnected,
    Failed,
    Received,
    Reply,
    SetTimer,
    Stop,
    StopRequested,
    TimerFired,
    WallClockStepped,
)
from ...transport.protocol.control import PeerDown, PeersAsleep, PeerUp
from ...transport.protocol.data import FetchReply, ListOffsetsReply
from ...transport.protocol.delayed import ListScheduledReply
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.groups import DescribeGroupReply, ListGroupsReply
from ...transport.protocol.message import Done
from ...transport.protocol.mirrored import TopicMirror
from ...transport.protocol.mirrors import (
    DescribeMirror,
    DescribeMirrorReply,
    FaultTopic,
    MirroredTopic,
    MirrorReport,
    MirrorSpec,
    MirrorTopic,
)
from ...transport.protocol.topics import DescribeTopic, DescribeTopicReply, ListTopics, ListTopicsReply
from .chosen_topic import ChosenTopic
from .copying import Copying
from .delayed import DelayedMessages
from .effects import AskSource, Effect, Event, SourceAnswered, SourceFailed, Started
from .group_offsets import GroupOffsets
from .keys import (
    AppendKey,
    BoundsKey,
    CallKey,
    CommitKey,
    CreateKey,
    DelayedKey,
    DelayedTimer,
    DiscoverTimer,
    EnsureKey,
    FaultKey,
    FetchKey,
    GoOnTimer,
    GroupKey,
    GroupsKey,
    GroupsTimer,
    RejoinKey,
    TimerKey,
    TopicKey,
    TopicsKey,
)
from .rate import Rate
from .rejoining import Rejoining

DISCOVER_MS = 1_000
DESCRIBE_AGAIN_MS = 30_000
"""Time after which a topic is described again: its configuration may have changed."""
TIMEOUT_MS = 10_000
CREATE_TIMEOUT_MS = 60_000
UNREACHABLE_MS = 10_000
"""Time without an answer after which the source is reported as unreachable."""
NO_MIRROR = TopicMirror(mirror="", state="sealed")
"""In place of that of an ordinary topic."""


class MirrorMachine:
    """The mirror `name`."""

    def __init__(self, name: str, spec: MirrorSpec) -> None:
        self._name = name
        self._spec = spec
        self._rate = Rate(spec.bytes_per_second)
        self._topics: dict[str, ChosenTopic] = {}
        self._copies: dict[TopicPartition, Copying] = {}
        self._groups = GroupOffsets(spec.groups, self._end_of)
        self._delayed = DelayedMessages(self._is_chosen)
        self._last_contact: int | None = None
        self._began_at = 0
        self._error = ""
        self._sites: dict[str, int] = {}
        """The sites in producer ids that the source knows."""
        self._wall_offset_ms = 0

    @property
    def copies(self) -> dict[TopicPartition, Copying]:
        return self._copies

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Started():
                self._began_at = now
                return [*self._list(), *self._groups.start(), *self._delayed.start()]
            case SourceAnswered():
                self._last_contact, self._error = now, ""
                return self._on_source(event, now)
            case SourceFailed():
                return self._on_source_failed(event, now)
            case Answered():
                return self._on_answered(event, now)
            case Failed():
                return self._on_failed(event, now)
            case TimerFired(key=key):
                return self._on_timer(key, now)
            case WallClockStepped():
                self._wall_offset_ms = event.offset_ms
                return []
            case StopRequested():
                return [Stop("asked to stop")]
            case Received(sender=sender, request=DescribeMirror()):
                return [Reply(sender, DescribeMirrorReply(report=self.report(now)))]
            case Received() | PeerUp() | PeerDown() | PeersAsleep() | Connected() | Disconnected():
                return []
        assert_never(event)

    def _on_timer(self, key: TimerKey, now: int) -> list[Effect]:
        match key:
            case GoOnTimer(partition=partition):
                copying = self._copies.get(partition)
                return [] if copying is None else copying.on_timer(now)
            case DiscoverTimer():
                return self._list()
            case GroupsTimer():
                return self._groups.start()
            case DelayedTimer():
                return self._delayed.start()
        assert_never(key)

    # -- the source

    def _on_source(self, event: SourceAnswered, now: int) -> list[Effect]:
        key, reply = event.key, event.reply
        match key:
            case FetchKey():
                assert isinstance(reply, FetchReply)
                return self._settle(
                    key.partition, self._copies[key.partition].on_fetched(key, reply, event.payload, now)
                )
            case BoundsKey():
                assert isinstance(reply, ListOffsetsReply)
                return self._settle(key.partition, self._copies[key.partition].on_bounds(key, reply, now))
            case TopicsKey():
                assert isinstance(reply, ListTopicsReply)
                return self._on_topics(reply, now)
            case TopicKey():
                assert isinstance(reply, DescribeTopicReply)
                return self._on_described(reply, now)
            case GroupsKey():
                assert isinstance(reply, ListGroupsReply)
                return self._groups.on_groups(reply, now)
            case GroupKey():
                assert isinstance(reply, DescribeGroupReply)
                return self._groups.on_group(reply, now)
            case DelayedKey():
                assert isinstance(reply, ListScheduledReply)
                return self._delayed.on_page(reply, now)
        assert_never(key)

    def _on_source_failed(self, event: SourceFailed, now: int) -> list[Effect]:
        key, error = event.key, event.error
        if isinstance(key, DelayedKey):
            return self._delayed.on_failed(now)  # its right may be missing: that concerns no topic
        self._error = f"{error.code}: {error.message}"
        match key:
            case FetchKey() | BoundsKey():
                copying = self._copies[key.partition]
                return self._settle(key.partition, copying.on_source_failed(key, error, now))
            case TopicsKey():
                return [SetTimer(DiscoverTimer(), now + DISCOVER_MS)]
            case TopicKey():
                self._topics[key.topic].is_asked = False
                return []
            case GroupsKey():
                return self._groups.pause(now)
            case GroupKey():
                return self._groups.next(now)
        assert_never(key)

    def _list(self) -> list[Effect]:
        return [AskSource(TopicsKey(), ListTopics(), ListTopicsReply, TIMEOUT_MS)]

    def _on_topics(self, reply: ListTopicsReply, now: int) -> list[Effect]:
        effects: list[Effect] = [SetTimer(DiscoverTimer(), now + DISCOVER_MS)]
        self._sites = reply.sites or {}
        for found in reply.topics:
            if is_internal(found.topic) or not self._is_chosen(found.topic):
                continue
            topic = self._topics.setdefault(found.topic, ChosenTopic())
            if topic.is_asked or topic.state in ("faulted", "promoted", "rejoining"):
                continue
            is_old = topic.state != "copied" or now - topic.described_at >= DESCRIBE_AGAIN_MS
            if is_old or topic.partitions != found.partitions:
                topic.is_asked = True
                request = DescribeTopic(topic=found.topic)
                effects.append(AskSource(TopicKey(found.topic), request, DescribeTopicReply, TIMEOUT_MS))
        return effects

    def _is_chosen(self, topic: str) -> bool:
        return any(fnmatchcase(topic, pattern) for pattern in self._spec.topics)

    def _on_described(self, reply: DescribeTopicReply, now: int) -> list[Effect]:
        topic = self._topics[reply.topic]
        topic.described_at, topic.partitions = now, len(reply.partitions)
        if topic.state == "copied" and topic.topic_id != reply.topic_id:
            topic.is_asked = False
            reason = f"the source's topic was created again: {topic.topic_id} was copied, it is {reply.topic_id} now"
            return self._fault(reply.topic, reason)
        topic.is_compacted = "compact" in reply.config.cleanup
        found = reply.mirror if isinstance(reply.mirror, TopicMirror) else NO_MIRROR
        follows = found.state in ("rejoining", "following", "faulted")
        request = MirrorTopic(
            mirror=self._name,
            topic=reply.topic,
            topic_id=reply.topic_id,
            partitions=len(reply.partitions),
            config=reply.config,
            forks=found.forks if found.is_writable else (),
            followed=found.source_forks if follows else (),
            is_decided=found.state != "rejoining" or bool(found.cuts),
            sites=self._sites,
        )
        key = CreateKey(reply.topic, reply.topic_id)
        return [Call(key, CONTROLLER, request, DescribeTopicReply, timeout_ms=CREATE_TIMEOUT_MS)]

    # -- this broker

    def _on_answered(self, event: Answered, now: int) -> list[Effect]:
        key: CallKey = event.key
        match key:
            case AppendKey():
                copying = self._copies[key.partition]
                return self._settle(key.partition, copying.on_appended(key, event.reply, now))
            case CreateKey():
                return self._on_made(key, event.reply, now)
            case FaultKey():
                return []
            case RejoinKey():
                return self._on_rejoined(key, event)
            case EnsureKey():
                return self._groups.on_ensured(key.group)
            case CommitKey():
                return self._groups.on_committed(key.group, now)
        assert_never(key)

    def _on_failed(self, event: Failed, now: int) -> list[Effect]:
        key: CallKey = event.key
        match key:
            case AppendKey():
                copying = self._copies[key.partition]
                return self._settle(key.partition, copying.on_append_failed(key, event.error, now))
            case CreateKey():
                return self._on_not_made(key, event.error)
            case FaultKey():
                topic = self._topics[key.topic]
                return [self._fault_call(key.topic, topic)] if event.error.retriable else []
            case RejoinKey():
                return self._on_not_rejoined(key, event.error)
            case EnsureKey() | CommitKey():
                return self._groups.on_not_committed(key.group, event.error, now)
        assert_never(key)

    def _on_made(self, key: CreateKey, reply: DescribeTopicReply, now: int) -> list[Effect]:
        topic = self._topics[key.topic]
        if isinstance(reply.mirror, TopicMirror) and reply.mirror.state == "rejoining":
            return self._rejoin(topic, reply) if topic.is_stored else self._look_again(key.topic, topic)
        topic.state, topic.reason, topic.topic_id, topic.is_asked = "copied", "", key.topic_id, False
        effects: list[Effect] = []
        for number in range(topic.partitions):
            partition = TopicPartition(key.topic, number)
            found = self._copies.get(partition)
            if found is None or found.topic_id != key.topic_id or found.state == "left":
                self._copies[partition] = copying = Copying(partition, key.topic_id, self._rate)
                effects += copying.go_on(now)
        return effects

    def _look_again(self, name: str, topic: ChosenTopic) -> list[Effect]:
        """Describe the source's topic once more, now that it is stored that this one rejoins it: it may rejoin this one,
        and each of two sides that look after they have stored that is seen by the other, or sees it."""
        topic.is_stored = topic.is_asked = True
        return [AskSource(TopicKey(name), DescribeTopic(topic=name), DescribeTopicReply, TIMEOUT_MS)]

    def _rejoin(self, topic: ChosenTopic, reply: DescribeTopicReply) -> list[Effect]:
        topic.state, topic.topic_id, topic.is_asked = "rejoining", reply.topic_id, False
        topic.rejoined += 1
        compacts = topic.is_compacted or "compact" in reply.config.cleanup
        topic.rejoining = Rejoining(self._name, topic.rejoined, reply, compacts=compacts)
        return topic.rejoining.start()

    def _on_rejoined(self, key: RejoinKey, event: Answered) -> list[Effect]:
        topic = self._topics[key.topic]
        rejoining = topic.rejoining
        if rejoining is None or not rejoining.is_current(key):
            return []
        effects = rejoining.on_answered(event)
        topic.reason = ""
        if rejoining.state == "over":
            topic.state, topic.rejoining = "described", None
        return effects

    def _on_not_rejoined(self, key: RejoinKey, error: ErrorBody) -> list[Effect]:
        """Begin again with the next listing: every step asks how far the last one came."""
        topic = self._topics[key.topic]
        if topic.rejoining is not None and topic.rejoining.is_current(key):
            topic.state, topic.rejoining = "described", None
            topic.reason = f"{error.code}: {error.message}"
        return []

    def _on_not_made(self, key: CreateKey, error: ErrorBody) -> list[Effect]:
        topic = self._topics[key.topic]
        topic.is_asked = False
        if error.code == ErrorCode.UNKNOWN_TOPIC_ID:
            topic.topic_id = str(error.topic_id)
            return self._fault(key.topic, error.message)
        if error.code == ErrorCode.CONFLICT:
            topic.state, topic.reason = "faulted", error.message
        elif error.code == ErrorCode.NOT_MIRRORED:
            topic.state, topic.reason = "promoted", ""
        elif not error.retriable:
            topic.state, topic.reason = "refused", error.message
        return []

    def _settle(self, partition: TopicPartition, effects: Sequence[Effect]) -> list[Effect]:
        """Act upon the state that a copy has reached."""
        copying = self._copies[partition]
        topic = self._topics[partition.topic]
        if copying.state == "faulted" and topic.state != "faulted":
            return [*effects, *self._fault(partition.topic, copying.fault)]
        if copying.state == "left" and topic.state == "copied":
            topic.state = "described"  # the next listing learns why
        return [*effects]

    def _fault(self, name: str, reason: str) -> list[Effect]:
        """Stop copying a topic, and have the reason stored."""
        topic = self._topics[name]
        topic.state, topic.reason = "faulted", reason
        for partition in [each for each in self._copies if each.topic == name]:
            self._copies[partition].stop()
        return [self._fault_call(name, topic)]

    def _fault_call(self, name: str, topic: ChosenTopic) -> Call:
        request = FaultTopic(mirror=self._name, topic=name, topic_id=topic.topic_id, reason=topic.reason)
        return Call(FaultKey(name), CONTROLLER, request, Done, timeout_ms=TIMEOUT_MS)

    def _end_of(self, partition: TopicPartition) -> tuple[str, int] | None:
        copying, topic = self._copies.get(partition), self._topics.get(partition.topic)
        if copying is None or topic is None or topic.state != "copied" or copying.log_end_offset < 0:
            return None  # of a topic that was promoted, the groups go on here
        return copying.topic_id, copying.log_end_offset

    # -- the report

    def report(self, now: int) -> MirrorReport:
        silent_since = self._began_at if self._last_contact is None else self._last_contact
        is_silent = now - silent_since >= UNREACHABLE_MS or (self._last_contact is None and bool(self._error))
        topics = [
            MirroredTopic(
                topic=name,
                state="following" if topic.state in ("copied", "described") else topic.state,
                reason=topic.reason or self._error_in(name),
                partitions=[
                    copying.lag(now) for partition, copying in self._copies.items() if partition.topic == name
                ],
            )
            for name, topic in sorted(self._topics.items())
        ]
        return MirrorReport(
            mirror=self._name,
            spec=self._spec,
            state="unreachable" if is_silent else "starting" if self._last_contact is None else "running",
            reason=self._error,
            last_contact_ms=self._at(self._last_contact),
            copied_bytes=sum(copying.copied_bytes for copying in self._copies.values()),
            topics=topics,
            groups=self._groups.copied,
            groups_not_copied=self._groups.not_copied,
            delayed=self._delayed.counts,
            delayed_at_ms=self._at(self._delayed.counted_at),
        )

    def _at(self, at: int | None) -> int:
        return -1 if at is None else at + self._wall_offset_ms

    def _error_in(self, topic: str) -> str:
        errors = [copying.error for partition, copying in self._copies.items() if partition.topic == topic]
        return next((error for error in errors if error), "")
