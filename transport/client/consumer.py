"""The consumer that programs hold. Its half on the network thread is the courier (`consumer_bridge.py`).

The halves share no state: the program's thread posts events, the network thread fills a mailbox. Decisions are made by
the machines: membership and fetching there, the reader here. Called by `Client.consumer`.
"""

import random
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeAlias

from ..addresses import TopicPartition
from ..protocol.errors import ErrorCode, PlanariaError, ProtocolError
from ..protocol.groups import (
    CommitOffsets,
    CommitOffsetsReply,
    PartitionOffset,
)
from .admin import as_offsets
from .asking import GATEWAY, Answered, Ask, Failed
from .auto_commit import AutoCommit
from .consumer_bridge import ConsumerBridge
from .errors import Closed, CommitFailed, MemberFenced, TimedOut, error_from
from .exchange_events import Withdrawn
from .fetching import (
    SetPaused,
    StartFetching,
    StopFetching,
    fetching_for,
)
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
from .offset_queries import OffsetQueries
from .options import ConsumerOptions, InvalidOption, Rebalanced, check_count, check_offset, wait_limit_s
from .reader import Reader
from .rebalancing import CALLS, Step, no_change

GROWTH_CHECK_S = 0.5
Offsets: TypeAlias = Mapping[TopicPartition, int]


class Consumer(OffsetQueries):
    """Reads partitions, as a member of a group or by itself; for one thread at a time.

    Automatic commits cover what earlier polls returned, never the messages just handed out. `close` counts as such a
    poll; a `with` block that ends by an exception does not: what was handed out last is then delivered again.
    """

    def __init__(
        self,
        network: Network,
        group: str | None = None,
        topics: Sequence[str] = (),
        options: ConsumerOptions | None = None,
    ) -> None:
        """Either `group` and `topics`: a member, whose partitions the group decides; or `partitions`: exactly these, with
        `group` only as the place to commit to; or `topics` alone: all their partitions, uncommitted.
        """
        options = options or ConsumerOptions()
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
        network.tell_of_end(self)
        self._followed = dict.fromkeys(topics if group is None and options.partitions is None else (), 0)
        """Topics of which all partitions are read, as many as there are, and how many there were."""
        if self._membership is None:
            self._assign(self._free_standing(topics, options.partitions))

    def on_network_end(self, error: PlanariaError) -> None:
        self._bridge.has_mail.set()

    def _begin(self) -> None:
        self._reader = Reader()
        self._has_left = False
        self._losses = 0
        """How many losses of all that was owned the program has heard of."""
        self._is_closed = False
        self._refusals = 0
        """How many refusals of the group the program has heard of."""
        self._fenced: MemberFenced | None = None
        self._iteration = Iteration()
        self._rebalancing = no_change()

    def _free_standing(
        self, topics: Sequence[str], partitions: Sequence[TopicPartition] | None
    ) -> list[TopicPartition]:
        if partitions is not None:
            return [TopicPartition(topic, partition) for topic, partition in partitions]
        return [
            TopicPartition(topic, partition)
            for topic in topics
            for partition in range(self._network.partitions_of(topic, self._request_timeout_ms))
        ]

    # Reading.

    def poll(self, timeout: float | None = 1.0, max_messages: int = 500) -> list[Message]:
        """Wait up to `timeout` seconds (None: for ever) for messages; at most `max_messages`, empty when none came.

        Raises what keeps a partition from being read (CorruptData, OffsetOutOfRange, NoOffset, UnknownTopic): once what
        lies before it has been handed out, then at each poll that finds nothing else, until a `seek`. Raises what keeps
        the group from being joined, and what a callback raised, when the rebalance it was called in is complete.
        MemberFenced is final: this consumer never joins again.
        """
        check_count("max_messages", max_messages)
        return self._poll(timeout, lambda: self._reader.take(max_messages))

    def poll_batches(self, timeout: float | None = 1.0, max_batches: int = 16) -> list[MessageBatch]:
        """As `poll`, in whole batches, verified and not decoded; the first may begin before the position."""
        check_count("max_batches", max_batches)
        return self._poll(timeout, lambda: self._reader.take_batches(max_batches))

    def _poll(self, timeout: float | None, take: Callable[[], list[Any]]) -> list[Any]:
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
                if self._is_closed:  # by a callback
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
                self._bridge.has_mail.wait(self._patience_s(left))
                self._refuse_when_closed()  # by another thread
        finally:
            self._bridge.last_poll_ms = self._network.now_ms()
            self._bridge.is_polling = False

    def __iter__(self) -> Iterator[Message]:
        """Messages without end. One that was yielded counts as read when the next is asked for, or at `close`."""
        while not self._is_closed:
            messages = self.poll(None)
            yield from self._iteration.yield_all(messages, self._reader.epochs())

    def _give_back(self) -> None:
        """What an iteration has not yielded is to be read again."""
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
        """Perform the steps that are left of a rebalance; raises what a callback raised, once they are done."""
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
                self._reader.remove(step.tps & self._reader.owned)  # of a step that was interrupted
                self._assign(step.tps)

    def _release(self, tps: frozenset[TopicPartition]) -> None:
        self._network.post(self._bridge, StopFetching(tuple(tps)))
        self._reader.remove(tps)
        self._auto_commit.forget(tps)

    def _assign(self, tps: Sequence[TopicPartition] | frozenset[TopicPartition]) -> None:
        epochs = self._reader.add(tps)
        starts: dict[TopicPartition, tuple[int, int | None]] = {
            tp: (epoch, None) for tp, epoch in epochs.items()
        }
        self._network.post(self._bridge, StartFetching(starts))

    def _follow_growth(self) -> None:
        """Partitions that a topic was given since are read from their beginning: nobody chose to pass what is there."""
        for topic, known in self._followed.items():
            count = self._network.directory.partition_count(topic) or 0
            if count > known:
                self._followed[topic] = count
                added = {TopicPartition(topic, number) for number in range(known, count)} - self._reader.owned
                epochs = self._reader.add(added)
                self._network.post(
                    self._bridge, StartFetching({tp: (epoch, 0) for tp, epoch in epochs.items()})
                )

    def _patience_s(self, left_s: float | None) -> float | None:
        """How long to wait for mail: a topic that grows sends none."""
        if not self._followed:
            return left_s
        return GROWTH_CHECK_S if left_s is None else min(left_s, GROWTH_CHECK_S)

    def _join_when_out(self) -> None:
        """Only what the mail has told counts: who was refused hears of it before it asks again."""
        if self._membership is not None and self._membership.state == "out":
            self._network.post(self._bridge, Polled(self._refusals))

    # Offsets.

    def commit(
        self, offsets: Offsets | None = None, metadata: Mapping[TopicPartition, str] | None = None
    ) -> None:
        """Commit and wait: the given offsets, or everything handed out so far; `metadata` goes with them.

        Raises CommitFailed when the partitions are not this member's any more, MemberFenced when its place in the
        group is somebody else's.
        """
        self._refuse_when_closed()
        self._refuse_without_group()
        self._commit_now(self._read_positions() if offsets is None else offsets, metadata)

    def _read_positions(self, *, without_last: bool = False) -> dict[TopicPartition, int]:
        return self._iteration.positions(self._reader.positions(), without_last=without_last)

    def _commit_now(self, offsets: Offsets, metadata: Mapping[TopicPartition, str] | None = None) -> None:
        if not offsets:
            return
        request = self._commit_request(as_offsets(offsets, metadata))
        self._network.call(GATEWAY, request, CommitOffsetsReply, timeout_ms=self._request_timeout_ms)
        self._auto_commit.committed(offsets)

    def _commit_request(self, offsets: list[PartitionOffset]) -> CommitOffsets:
        """Raises CommitFailed when all was lost meanwhile: who joins anew must not commit what was reached before."""
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

    def commit_request(
        self, offsets: Offsets | None = None, metadata: Mapping[TopicPartition, str] | None = None
    ) -> CommitOffsets | None:
        """What `commit` would ask, for a transaction; None for nothing. Raises InvalidOption with `auto_commit`.

        Raises CommitFailed when a partition went since its messages were handed out: somebody else handles them. With
        `offsets` no callback is called: of what was not lost by now the caller has heard in its last poll.
        """
        self._refuse_when_closed()
        self._refuse_without_group()
        if self._auto_commit.is_on:
            raise InvalidOption("auto_commit: must be False where a transaction commits the offsets")
        if offsets is not None:
            return self._commit_request(as_offsets(offsets, metadata))
        self._open_mail()
        if lost := self._reader.take_lost():
            raise CommitFailed(ErrorCode.NOT_ASSIGNED, f"taken away since it was handed out: {lost}")
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
            # Not tried again by itself: a commit that the program makes meanwhile would be undone by this older one.
            ask = Ask(
                ("commit", news),
                GATEWAY,
                request,
                CommitOffsetsReply,
                timeout_ms=self._request_timeout_ms,
                is_retried=False,
            )
            self._network.post(self._bridge, ask)

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Go on reading from `offset`."""
        tp = self._owned_tp(topic, partition)
        check_offset(offset)
        self._give_back()
        epoch = self._reader.seek(tp, offset)
        self._network.post(self._bridge, StartFetching({tp: (epoch, offset)}))

    def seek_to_committed(self) -> None:
        """Read again what was handed out and not committed, above all after a transaction was aborted.

        Where nothing is committed, reading goes on from where it began. Waits while a transaction is about to move the
        offsets. Raises TimedOut.
        """
        self._refuse_when_closed()
        self._open_mail()
        begun = self._reader.beginnings()
        committed = self.committed(sorted(begun))
        for (topic, partition), began in begun.items():
            self.seek(topic, partition, committed.get(TopicPartition(topic, partition), began))
        self._reader.take_lost()  # others have those, from where they are committed

    def position(self, topic: str, partition: int, timeout: float | None = None) -> int:
        """The offset of the next message; waits until the start is known. Raises TimedOut."""
        tp = self._owned_tp(topic, partition)
        limit_s = wait_limit_s(timeout)
        deadline = None if limit_s is None else monotonic() + limit_s
        while True:
            found = self._read_positions().get(tp)
            if found is not None:
                return found
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                raise TimedOut(f"the start of {topic}/{partition} is not known after {timeout} s")
            self._bridge.has_mail.wait(left)
            self._refuse_when_closed()
            self._open_mail()
            if tp not in self._reader.owned:
                raise PlanariaError(f"{topic}/{partition} has been taken away")
            self._reader.raise_trouble(tp)

    def origin(self, tp: TopicPartition) -> tuple[str | None, int | None]:
        """The topic id and the group's reset epoch that a position belongs to, as far as they are known."""
        return self._reader.origin(tp)

    # Flow.

    def pause(self, *partitions: TopicPartition) -> None:
        """Hand out nothing of these partitions until `resume`; they stay assigned."""
        self._set_paused(partitions, True)

    def resume(self, *partitions: TopicPartition) -> None:
        self._set_paused(partitions, False)

    def _set_paused(self, partitions: Sequence[TopicPartition], is_paused: bool) -> None:
        tps = tuple(self._owned_tp(topic, partition) for topic, partition in partitions)
        self._give_back()
        for tp in tps:
            self._reader.set_paused(tp, is_paused)
        self._network.post(self._bridge, SetPaused(tps, is_paused))

    def paused(self) -> list[TopicPartition]:
        return [TopicPartition(*tp) for tp in sorted(self._reader.paused())]

    def assignment(self) -> list[TopicPartition]:
        """What this consumer owns, as of the last poll."""
        return [TopicPartition(*tp) for tp in sorted(self._reader.owned)]

    def _owned_tp(self, topic: str, partition: int) -> TopicPartition:
        self._refuse_when_closed()
        if (topic, partition) not in self._reader.owned:
            raise PlanariaError(f"{topic}/{partition} is not assigned to this consumer")
        return TopicPartition(topic, partition)

    # The end.

    def close(self, *, leave_group: bool | None = None) -> None:
        """Commit what was handed out (with `auto_commit`), and leave the group.

        A static member does not leave unless told to by `leave_group`: its partitions stay reserved for whoever comes
        back as the same `instance_id` within the session timeout (as in Kafka, KIP-345).
        """
        self._end(self._read_positions(), leave_group)

    def _end(self, positions: Offsets, leave_group: bool | None = None) -> None:
        if self._is_closed or self._network.is_inherited:
            return
        self._is_closed = True
        try:
            news = self._auto_commit.news(positions)
            if self._auto_commit.is_on and news:
                with suppress(ProtocolError):  # fenced or out of reach: these messages are delivered again
                    self._commit_now(news)
        finally:
            self._leave(not self._is_static if leave_group is None else leave_group)
            self._bridge.has_mail.set()  # for a poll in another thread, which finds the consumer closed

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
