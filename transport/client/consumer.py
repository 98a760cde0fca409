"""The consumer that programs use. Its half on the network thread is the bridge (`consumer_bridge.py`).

The halves share no state: the program's thread posts events, the network thread fills a mailbox. The machines decide:
membership and fetching on the network thread, the reader on the program's thread. Called by `Client.consumer`.
"""

import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeAlias

from ..addresses import TopicPartition
from ..protocol.errors import ErrorCode, PlanariaError, ProtocolError
from ..protocol.groups import CommitOffsets, CommitOffsetsReply, PartitionOffset
from .admin import as_offsets
from .asking import GATEWAY, Answered, Ask, Failed
from .auto_commit import AutoCommit
from .consumer_bridge import ConsumerBridge, Stopped
from .errors import Closed, CommitFailed, MemberFenced, TimedOut, error_from
from .exchange_events import Withdrawn
from .fetching import SetPaused, StartFetching, StopFetching, fetching_for
from .growth import GrowingTopics
from .iteration import Iteration
from .membership import (
    Confirmed,
    GroupTrouble,
    LeaveRequested,
    MemberIdentity,
    MemberLeft,
    Polled,
    Target,
    membership_for,
)
from .messages import Message, MessageBatch
from .network import Network
from .offset_queries import GivenOffsets, Metadata, OffsetQueries, Offsets, Partition
from .options import (
    ConsumerOptions,
    Duration,
    InvalidOption,
    Rebalanced,
    as_partition,
    as_partitions,
    check_count,
    check_offset,
    check_sources,
    wait_limit_s,
)
from .reader import Reader
from .rebalancing import CALLS, Step, no_change

Starts: TypeAlias = dict[TopicPartition, tuple[int, int | None]]


class Consumer(OffsetQueries):
    """Read partitions, as a group member or without a group. For one thread at a time.

    An automatic commit covers the messages returned by earlier polls, never those of the latest poll. `close` counts
    as a poll. A `with` block left by an exception does not: the messages of the latest poll are then delivered again.
    """

    def __init__(
        self,
        network: Network,
        group: str | None = None,
        topics: Sequence[str] = (),
        options: ConsumerOptions | None = None,
    ) -> None:
        """Take one of three combinations.

        `group` and `topics`: a member whose partitions the group assigns. `partitions`: exactly these, with
        `group` used only for commits. `topics` alone: all their partitions, without commits.
        """
        options = options or ConsumerOptions()
        check_sources(group, topics, options.partitions)
        super().__init__(network, group, options.isolation, options.request_timeout_ms)
        interval_s = options.auto_commit_interval_ms / 1000
        self._auto_commit = AutoCommit(options.auto_commit and group is not None, interval_s, monotonic())
        self._callbacks: dict[str, Rebalanced | None] = {
            "assigned": options.on_assigned,
            "revoked": options.on_revoked,
            "lost": options.on_lost or options.on_revoked,
        }
        self._membership = None
        if group is not None and options.partitions is None:
            self._membership = membership_for(group, topics, options, uuid.uuid4().hex, random.random)
        self._is_static = options.instance_id is not None
        fetching = fetching_for(group, options, is_member=self._membership is not None)
        self._bridge = ConsumerBridge(fetching, self._membership, options.max_poll_interval_ms)
        self._begin()
        network.tell_of_end(self._bridge)
        self._growth = GrowingTopics(topics if self._membership is None else ())
        if options.partitions is not None:
            self._assign(as_partitions("partitions", options.partitions))
        elif self._membership is None:
            timeout_ms = options.request_timeout_ms
            self._assign(self._growth.partitions(lambda topic: network.partitions_of(topic, timeout_ms)))

    def _begin(self) -> None:
        self._reader = Reader()
        self._has_left = False
        self._losses = 0
        """Losses of all owned partitions that have been reported to the program."""
        self._is_closed = False
        self._refusals = 0
        """Refusals by the group that have been reported to the program."""
        self._fenced: MemberFenced | None = None
        self._iteration = Iteration()
        self._rebalancing = no_change()

    # Reading.

    def poll(self, timeout: Duration | None = 1.0, max_messages: int = 500) -> list[Message]:
        """Return at most `max_messages`, or an empty list after `timeout` (seconds or a timedelta; None: no limit).

        Raises the error that keeps a partition from being read (CorruptData, OffsetOutOfRange, NoOffset,
        UnknownTopic) once the records before it have been returned, and again at each poll that finds nothing else,
        until a `seek`. Raises the error that keeps the consumer from joining its group, and the exception of a
        rebalance callback once that rebalance is complete. MemberFenced is final: this consumer never joins again.
        """
        check_count("max_messages", max_messages)
        return self._poll(timeout, lambda: self._reader.take(max_messages))

    def poll_batches(self, timeout: Duration | None = 1.0, max_batches: int = 16) -> list[MessageBatch]:
        """Like `poll`, but return whole, verified batches. The first may begin before the position."""
        check_count("max_batches", max_batches)
        return self._poll(timeout, lambda: self._reader.take_batches(max_batches))

    def _poll(self, timeout: Duration | None, take: Callable[[], list[Any]]) -> list[Any]:
        self._refuse_when_closed()
        limit_s = wait_limit_s(timeout)
        deadline = None if limit_s is None else monotonic() + limit_s
        self._bridge.is_polling = True
        try:
            self._give_back()
            self._auto_commit.settled = self._reader.positions()
            self._commit_when_due()
            while True:
                self._open_mail()
                if self._fenced is not None:
                    raise self._fenced
                if self._is_closed or self._iteration.is_stopped:  # closed by a callback
                    return []
                self._join_when_out()
                self._follow_growth()
                self._reader.raise_trouble(is_new=True)
                taken = take()
                for item in self._reader.told():
                    self._network.post(self._bridge, item)
                if taken:
                    return taken
                self._reader.raise_trouble()
                left = None if deadline is None else deadline - monotonic()
                if not self._bridge.mailbox and (left is not None and left <= 0):
                    return []
                self._refuse_when_closed()
                self._bridge.has_mail.wait(self._growth.patience_s(left))
                self._refuse_when_closed()  # by another thread
        finally:
            self._bridge.last_poll_ms = self._network.now_ms()
            self._bridge.is_polling = False

    def stop(self) -> None:
        """End a loop over this consumer after its current message; `poll` then returns an empty list at once.

        Safe in a signal handler and from other threads. The consumer stays in its group until `close`.
        """
        self._iteration.is_stopped = True  # and no lock here: code that a signal interrupts may hold it
        self._network.post(self._bridge, Stopped())

    @property
    def is_stopped(self) -> bool:
        """True once `stop` was called."""
        return self._iteration.is_stopped

    def __iter__(self) -> Iterator[Message]:
        """Yield messages until `stop`. A message counts as read when the next one is requested, or at `close`."""
        while not self._is_closed and not self._iteration.is_stopped:
            messages = self.poll(None)
            yield from self._iteration.yield_all(messages, self._reader.epochs())

    def _give_back(self) -> None:
        """Give the messages that an iteration has not yielded back to the reader."""
        self._reader.give_back(*self._iteration.take_back())

    # Mail from the network thread.

    def _open_mail(self) -> None:
        self._bridge.has_mail.clear()
        self._finish_change()
        mailbox = self._bridge.mailbox
        while mailbox:
            match mailbox.popleft():
                case Target() as target:
                    self._losses += target.is_lost
                    self._rebalancing.begin(target, self._reader.owned)
                    self._finish_change()
                case GroupTrouble(error=error):
                    self._refusals += 1
                    refusal = error_from(error)
                    if isinstance(refusal, MemberFenced):
                        self._fenced = refusal
                    raise refusal
                case MemberLeft():
                    self._has_left = True
                case Answered(key=("commit", offsets)):
                    self._auto_commit.end()
                    self._auto_commit.committed(offsets)
                case Failed(key=("commit", _), error=error):
                    self._auto_commit.end()  # the next automatic commit covers it, unless offsets were reset
                    if self._membership is None and error.code == ErrorCode.STALE_GENERATION:
                        raise error_from(error)
                case item:
                    self._reader.accept(item)

    def _finish_change(self) -> None:
        """Perform the remaining steps of a rebalance, then raise the exception of a callback, if any."""
        change = self._rebalancing
        while (step := change.next_step) is not None:
            if step.kind in CALLS or step.kind == "commit":
                change.done(step)  # never twice
                try:
                    self._perform_for_program(step)
                except BaseException as error:  # noqa: BLE001 - raised below, when the change is complete
                    change.errors.append(error)
            else:
                self._perform(step)
                change.done(step)
            if self._is_closed:
                change.drop()
        change.raise_error()

    def _perform_for_program(self, step: Step) -> None:
        if step.kind != "commit":
            callback = self._callbacks[step.kind]
            if callback is not None and step.tps:
                callback([TopicPartition(*tp) for tp in sorted(step.tps)])
        elif self._auto_commit.is_on:
            with suppress(ProtocolError):  # fenced or out of reach: the next owner reads these messages again
                self._commit_now(self._auto_commit.settled_of(step.tps))

    def _perform(self, step: Step) -> None:
        match step.kind:
            case "release":
                self._release(step.tps & self._reader.owned)
            case "confirm":
                self._network.post(self._bridge, Confirmed(step.tps))
            case "assign":
                self._reader.remove(step.tps & self._reader.owned)  # of an interrupted step
                self._assign(step.tps)

    def _release(self, tps: frozenset[TopicPartition]) -> None:
        self._network.post(self._bridge, StopFetching(tuple(tps)))
        self._reader.remove(tps)
        self._auto_commit.forget(tps)

    def _assign(self, tps: Sequence[TopicPartition] | frozenset[TopicPartition]) -> None:
        epochs = self._reader.add(tps)
        starts: Starts = {tp: (epoch, None) for tp, epoch in epochs.items()}
        self._network.post(self._bridge, StartFetching(starts))

    def _follow_growth(self) -> None:
        """Read added partitions from their beginning: the consumer never chose to skip their records."""
        if added := self._growth.added(self._network.directory.partition_count, self._reader.owned):
            begun: Starts = {tp: (epoch, 0) for tp, epoch in self._reader.add(added).items()}
            self._network.post(self._bridge, StartFetching(begun))

    def _join_when_out(self) -> None:
        """Join again if the member is out. A refusal is raised before the next attempt."""
        if self._membership is not None and self._membership.state == "out":
            self._network.post(self._bridge, Polled(self._refusals))

    # Offsets.

    def commit(self, offsets: Message | GivenOffsets | None = None, metadata: Metadata | None = None) -> None:
        """Commit the given offsets, or the position after all returned messages, and wait until they are durable.

        An offset is that of the next message to read, by topic and partition. A message commits its partition up to
        and including itself. `metadata` is text that is stored with the offsets, by topic and partition.

        Raises CommitFailed when this member no longer owns the partitions, MemberFenced when another consumer has
        taken its place in the group, PlanariaError without a group, TimedOut.
        """
        self._refuse_when_closed()
        self._refuse_without_group()
        if isinstance(offsets, Message):
            offsets = {offsets.topic_partition: offsets.offset + 1}
        found = self._read_positions() if offsets is None else offsets
        if found:
            self._call(GATEWAY, self._commit_request(as_offsets(found, metadata)), CommitOffsetsReply)
            self._auto_commit.committed({TopicPartition(*tp): offset for tp, offset in found.items()})

    def _read_positions(self, *, without_last: bool = False) -> dict[TopicPartition, int]:
        return self._iteration.positions(self._reader.positions(), without_last=without_last)

    def _commit_now(self, offsets: Offsets) -> None:
        """Commit, also while the consumer closes."""
        if not offsets:
            return
        request = self._commit_request(as_offsets(offsets))
        self._network.call(GATEWAY, request, CommitOffsetsReply, timeout_ms=self._request_timeout_ms)
        self._auto_commit.committed(offsets)

    def _commit_request(self, offsets: list[PartitionOffset]) -> CommitOffsets:
        """Build the request. Raises CommitFailed when all partitions were lost meanwhile.

        A member that joins again must not commit the positions that it reached before.
        """
        assert self._group is not None
        identity = self._membership.identity if self._membership is not None else MemberIdentity()
        if identity.losses != self._losses:
            raise CommitFailed(ErrorCode.NOT_ASSIGNED, "the partitions have been lost")
        return CommitOffsets(
            group=self._group,
            offsets=[self._reader.stamped(item) for item in offsets],
            member_id=identity.member_id,
            generation=identity.generation,
        )

    def _commit_for_transaction(
        self, offsets: GivenOffsets | None = None, metadata: Metadata | None = None
    ) -> CommitOffsets | None:
        """Return the request that `commit` would send, for a transaction; None if there is nothing to commit.

        Raises InvalidOption with `auto_commit`, and CommitFailed when a partition was revoked after its
        messages were returned: another member processes them. With `offsets` no callback is called: the last
        poll has already reported the partitions lost by then.
        """
        self._refuse_when_closed()
        self._refuse_without_group()
        if self._auto_commit.is_on:
            raise InvalidOption("auto_commit: must be False where a transaction commits the offsets")
        if offsets is not None:
            return self._commit_request(as_offsets(offsets, metadata))
        self._open_mail()
        if lost := self._reader.take_lost():
            raise CommitFailed(ErrorCode.NOT_ASSIGNED, f"revoked since its messages were returned: {lost}")
        positions = self._read_positions()
        self._reader.mark(positions)
        return self._commit_request(as_offsets(positions)) if positions else None

    def _commit_when_due(self) -> None:
        if news := self._auto_commit.due(monotonic()):
            try:
                request = self._commit_request(as_offsets(news))
            except CommitFailed:
                return
            self._auto_commit.begin()
            # Not retried automatically: it could overwrite a newer commit of the program.
            key, timeout_ms = ("commit", news), self._request_timeout_ms
            ask = Ask(key, GATEWAY, request, CommitOffsetsReply, timeout_ms=timeout_ms, is_retried=False)
            self._network.post(self._bridge, ask)

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Continue reading at `offset`. Raises PlanariaError when the partition is not assigned to this consumer."""
        tp = self._owned_tp(topic, partition)
        check_offset(offset)
        self._give_back()
        epoch = self._reader.seek(tp, offset)
        self._network.post(self._bridge, StartFetching({tp: (epoch, offset)}))

    def seek_to_committed(self) -> None:
        """Read again the messages that were returned and not committed, usually after an aborted transaction.

        Without a committed offset, reading continues at the position where it began. Waits while a
        transaction is about to commit offsets. Raises TimedOut.
        """
        self._refuse_when_closed()
        self._open_mail()
        begun = self._reader.beginnings()
        committed = self.committed(sorted(begun))
        for (topic, partition), began in begun.items():
            self.seek(topic, partition, committed.get(TopicPartition(topic, partition), began))
        self._reader.take_lost()  # other members read those from their committed offsets

    def position(self, topic: str, partition: int, timeout: Duration | None = None) -> int:
        """Return the offset of the next message. Waits until it is known where reading starts.

        `timeout` is in seconds or a timedelta; None: without limit. Raises TimedOut.
        """
        tp = self._owned_tp(topic, partition)
        limit_s = wait_limit_s(timeout)
        deadline = None if limit_s is None else monotonic() + limit_s
        while True:
            found = self._read_positions().get(tp)
            if found is not None:
                return found
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                raise TimedOut(f"the start of {topic}/{partition} is not known after {limit_s} s")
            self._bridge.has_mail.wait(left)
            self._refuse_when_closed()
            self._open_mail()
            if tp not in self._reader.owned:
                raise PlanariaError(f"{topic}/{partition} has been revoked")
            self._reader.raise_trouble(tp)

    def _origin(self, tp: TopicPartition) -> tuple[str | None, int | None]:
        """Return the topic id and the group's reset epoch of a position, as far as they are known."""
        return self._reader.origin(tp)

    # Flow.

    def pause(self, *partitions: Partition) -> None:
        """Return no messages of these partitions until `resume`. They stay assigned."""
        self._set_paused(partitions, True)

    def resume(self, *partitions: Partition) -> None:
        """Return messages of these partitions again, from where reading was paused."""
        self._set_paused(partitions, False)

    def _set_paused(self, partitions: Sequence[Partition], is_paused: bool) -> None:
        tps = tuple(self._owned_tp(*tp) for tp in as_partitions("partitions", partitions))
        self._give_back()
        for tp in tps:
            self._reader.set_paused(tp, is_paused)
        self._network.post(self._bridge, SetPaused(tps, is_paused))

    def paused(self) -> list[TopicPartition]:
        """Return the paused partitions of this consumer."""
        self._network.refuse_when_inherited()
        return [TopicPartition(*tp) for tp in sorted(self._reader.paused())]

    def assignment(self) -> list[TopicPartition]:
        """Return the partitions that this consumer owned at the last poll."""
        self._network.refuse_when_inherited()
        return [TopicPartition(*tp) for tp in sorted(self._reader.owned)]

    def _owned_tp(self, topic: str, partition: int) -> TopicPartition:
        self._refuse_when_closed()
        tp = as_partition("partition", (topic, partition))
        if tp not in self._reader.owned:
            raise PlanariaError(f"{topic}/{partition} is not assigned to this consumer")
        return tp

    # Closing.

    def close(self, *, leave_group: bool | None = None) -> None:
        """Commit the returned messages (with `auto_commit`) and leave the group.

        A static member leaves only with `leave_group`. Otherwise its partitions stay reserved for a consumer
        that joins with the same `instance_id` within the session timeout (as in Kafka, KIP-345).
        """
        self._end(self._read_positions(), leave_group)

    def _end(self, positions: Offsets, leave_group: bool | None = None) -> None:
        if self._is_closed or self._network.is_inherited:
            return
        self._is_closed = True
        self._network.end_calls(self)
        try:
            news = self._auto_commit.news(positions)
            if self._auto_commit.is_on and news:
                with suppress(ProtocolError):  # fenced or out of reach: these messages are delivered again
                    self._commit_now(news)
        finally:
            self._leave(not self._is_static if leave_group is None else leave_group)
            self._bridge.has_mail.set()  # wakes a poll in another thread, which then finds the consumer closed

    def _leave(self, is_told: bool) -> None:
        self._network.post(self._bridge, StopFetching(tuple(self._reader.owned)))
        if self._membership is not None:
            self._network.post(self._bridge, LeaveRequested(is_told))
            while not self._has_left and self._network.is_running:
                self._bridge.has_mail.wait(1.0)
                self._bridge.has_mail.clear()
                while self._bridge.mailbox:
                    self._has_left |= isinstance(self._bridge.mailbox.popleft(), MemberLeft)
        self._network.post(self._network.owner, Withdrawn(self._bridge))
        self._network.forget(self)

    def _refuse_when_closed(self) -> None:
        if self._is_closed:
            raise Closed("the consumer is closed")
        self._network.refuse_when_closed()

    def _refuse_without_group(self) -> None:
        if self._group is None:
            raise PlanariaError("a consumer without a group has nowhere to commit to")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._iteration.messages:
            self._end(self._read_positions(without_last=True))
        else:
            self._end(self._auto_commit.settled)
