"""Progress reports: the group sends its offset, and if it has members, to the partitions of its topics.

Owns the last acknowledged report of each partition. Reports the durable state alone, and only to partitions of topics
whose configuration asks for it (`transport/protocol/progress.py`). Called by machine.py.

    a start, a topic newly asking, a partition that came up   everything is reported again, also an empty state
    commits, members come and go, of a share group: the first
    record that is not done                                   reported at most every REPORT_INTERVAL_MS; a partition has
                                                              one report in flight; an urgent one waits for its answer
    a report fails                                            repeated after the interval, or when the partition is up
    the coordinator stops                                     due reports are sent at once: a deleted group sends its last
"""

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from ...transport.addresses import TopicPartition, partition_address
from ...transport.machine import Answered, Call, Failed, LoopEffect, LoopEvent, PeerUp, SetTimer, TimerFired
from ...transport.protocol.errors import ErrorCode
from ...transport.protocol.progress import NOT_COMMITTED, ReportProgress, ReportProgressReply
from ...transport.protocol.topics import CatalogTopic
from .records import Change, MemberKey, OffsetKey, ShareKey, TopicKey
from .state import GroupState

REPORT_INTERVAL_MS = 100
TIMEOUT_MS = 5_000


class ProgressTimer(Struct, frozen=True):
    """The next round of reports."""


class ProgressCall(Struct, frozen=True):
    """The report to one partition."""

    tp: TopicPartition


class ReportedProgress(Struct, frozen=True):
    """The content of a report."""

    offset: int
    leader_epoch: int | None
    has_members: bool


class ProgressReports:
    def __init__(self, durable: GroupState) -> None:
        self._state = durable
        self._tracked: dict[str, CatalogTopic] = {}
        self._sharing: frozenset[str] = frozenset()
        """Topics in use by members of a share group."""
        self._subscribed = self._subscriptions()
        self._acknowledged: dict[TopicPartition, ReportedProgress] = {}
        """The last report each partition has acknowledged."""
        self._in_flight: dict[TopicPartition, ReportedProgress] = {}
        self._due: dict[TopicPartition, None] = {}
        """Partitions that may need a report."""
        self._is_resting = False
        """True between two rounds."""
        self._are_topics_known = False

    def set_topics(self, topics: Mapping[str, CatalogTopic]) -> None:
        self._are_topics_known = True
        before = self._tracked
        self._tracked = {name: tracked for name, tracked in topics.items() if tracked.tracks_groups}
        for tp in [tp for tp in self._acknowledged if self._is_other(tp[0], before)]:
            del self._acknowledged[tp]
        for name in self._tracked:
            self._look_at(name)

    def _is_other(self, topic: str, before: Mapping[str, CatalogTopic]) -> bool:
        now = self._tracked.get(topic)
        return now is None or now.topic_id != before[topic].topic_id

    def on_durable(self, changes: Iterable[Change]) -> None:
        """Note the partitions that these applied changes concern."""
        if not self._tracked:
            return
        are_members_changed = False
        for change in changes:
            key = change.key
            if isinstance(key, OffsetKey | ShareKey) and key.topic in self._tracked:
                self._due[TopicPartition(key.topic, key.partition)] = None
            elif isinstance(key, TopicKey) and key.topic in self._tracked:
                self._look_at(key.topic)
            are_members_changed = are_members_changed or isinstance(key, MemberKey)
        if are_members_changed:
            self._on_members()

    def on_sharing(self, topics: Callable[[], frozenset[str]]) -> None:
        """Update the topics whose records members of a share group hold or wait for; `topics` is called lazily."""
        if self._tracked and not self._is_resting and topics() != self._sharing:
            self._sharing = topics()
            self._on_members()

    def _on_members(self) -> None:
        before, self._subscribed = self._subscribed, self._subscriptions()
        for topic in (before ^ self._subscribed) & self._tracked.keys():
            self._look_at(topic)

    def _subscriptions(self) -> frozenset[str]:
        return self._sharing.union(*(member.topics for member in self._state.members.values()))

    def _look_at(self, topic: str) -> None:
        self._due.update(
            (TopicPartition(topic, number), None) for number in range(self._tracked[topic].partitions)
        )

    def handle(self, event: LoopEvent, now: int) -> list[LoopEffect]:
        match event:
            case TimerFired(key=ProgressTimer()):
                self._is_resting = False
            case Answered(key=ProgressCall(tp=tp)) | Failed(key=ProgressCall(tp=tp)):
                return self._on_outcome(tp, event)
            case PeerUp() if (up := event.address.topic_partition) is not None:
                if up.topic in self._tracked:
                    self._acknowledged.pop(up, None)
                    self._due[up] = None
        return []

    def _on_outcome(self, tp: TopicPartition, event: Answered | Failed) -> list[LoopEffect]:
        report = self._in_flight.pop(tp)
        if tp[0] not in self._tracked:
            return []
        if isinstance(event, Failed):
            # A partition that is down gets its report when it comes up.
            if event.error.code != ErrorCode.PARTITION_OFFLINE:
                self._due[tp] = None
            return []
        self._acknowledged[tp] = report
        return self._report(tp) if event.reply.is_urgent and tp in self._due else []

    @property
    def is_current(self) -> bool:
        """Return True if every partition that asks for reports has the current one."""
        return self._are_topics_known and all(
            self._acknowledged.get(TopicPartition(name, number))
            == self._progress(TopicPartition(name, number), tracked)
            for name, tracked in self._tracked.items()
            for number in range(tracked.partitions)
        )

    def flush(self, now: int, *, at_once: bool = False) -> list[LoopEffect]:
        """Send the due reports; `at_once` even between two rounds."""
        if not self._due or (self._is_resting and not at_once):
            return []
        self._is_resting = True
        effects = [effect for tp in list(self._due) for effect in self._report(tp)]
        return [*effects, SetTimer(ProgressTimer(), now + REPORT_INTERVAL_MS)]

    def _report(self, tp: TopicPartition) -> list[LoopEffect]:
        if tp in self._in_flight:
            return []
        del self._due[tp]
        topic, partition = tp
        tracked = self._tracked.get(topic)
        if tracked is None or not 0 <= partition < tracked.partitions:
            return []
        report = self._progress(tp, tracked)
        if self._acknowledged.get(tp) == report:
            return []
        self._in_flight[tp] = report
        request = ReportProgress(
            topic=topic,
            partition=partition,
            topic_id=tracked.topic_id,
            group=self._state.group,
            epoch=self._state.start.epoch,
            offset=report.offset,
            leader_epoch=report.leader_epoch,
            has_members=report.has_members,
        )
        address = partition_address(topic, partition)
        return [Call(ProgressCall(tp), address, request, ReportProgressReply, timeout_ms=TIMEOUT_MS)]

    def _progress(self, tp: TopicPartition, tracked: CatalogTopic) -> ReportedProgress:
        return ReportedProgress(*self._offset(tp, tracked), tracked.topic in self._subscribed)

    def _offset(self, tp: TopicPartition, tracked: CatalogTopic) -> tuple[int, int | None]:
        """Return the offset, with the leader epoch from which it was read."""
        # Progress of an earlier topic of this name stays until its removal is durable.
        shared = self._state.shares.get(tp)
        if shared is not None:
            is_of_this = shared.topic_id == tracked.topic_id
            return (shared.start, shared.leader_epoch) if is_of_this else (NOT_COMMITTED, None)
        committed = self._state.offsets.get(tp)
        is_of_this = self._state.topic_ids.get(tracked.topic, tracked.topic_id) == tracked.topic_id
        if committed is None or not is_of_this:
            return NOT_COMMITTED, None
        return committed.offset, committed.leader_epoch
