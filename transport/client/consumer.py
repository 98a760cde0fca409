"""The consumer that programs use, for threads: posts to the network thread, waits for its mail, runs the callbacks.

Its machine (`consuming.py`) decides the effect of each call. Called by `Client.consumer`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from time import monotonic
from types import TracebackType
from typing import Any, Self

from ..addresses import TopicPartition
from ..calls.events import Withdrawn
from ..protocol.errors import ProtocolError
from ..protocol.groups import CommitOffsets
from ..tracing import receiving, settling
from .assigned_partitions import AssignedPartitions
from .commits import CommitFirst, GivenOffsets, Metadata, Offsets, Partition, commit_call
from .consumer_bridge import Stopped
from .consuming import Action
from .errors import TimedOut
from .gate import Bell
from .messages import Message, MessageBatch
from .network import Network
from .offset_queries import OffsetQueries
from .options import (
    ConsumerOptions,
    Duration,
    Rebalanced,
    as_partition,
    check_count,
    wait_limit_s,
)


class Consumer(AssignedPartitions, OffsetQueries):
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
        starts: Mapping[TopicPartition, int | None] | None = None,
    ) -> None:
        """Take one of four combinations.

        `group` and `topics`: a member whose partitions the group assigns. `partitions`: exactly these, with
        `group` used only for commits. `topics` alone: all their partitions, without commits. `starts`: exactly these
        partitions, from an offset (None: from where `auto_offset_reset` says), without commits.
        """
        options = options or ConsumerOptions()
        self._has_mail = Bell()
        OffsetQueries.__init__(self, network, group, options.isolation, options.request_timeout_ms)
        AssignedPartitions.__init__(self, network, group, topics, options, starts, self._has_mail)
        self._callbacks: dict[str, Rebalanced | None] = {
            "assigned": options.on_assigned,
            "revoked": options.on_revoked,
            "lost": options.on_lost or options.on_revoked,
        }
        timeout_ms = options.request_timeout_ms
        followed = self._machine.growth.topics
        self._begin_reading({topic: network.partitions_of(topic, timeout_ms) for topic in followed})

    # Reading.

    @receiving
    def poll(self, timeout: Duration | None = 1.0, max_messages: int = 500) -> list[Message]:
        """Return at most `max_messages`, or an empty list after `timeout` (seconds or a timedelta; None: no limit).

        Raises the error that keeps a partition from being read (CorruptData, OffsetOutOfRange, NoOffset,
        UnknownTopic) once the records before it have been returned, and again at each poll that finds nothing else,
        until a `seek`. Raises the error that keeps the consumer from joining its group, and the exception of a
        rebalance callback once that rebalance is complete. MemberFenced is final: this consumer never joins again.
        """
        return self._poll(timeout, self._taking(max_messages))

    def poll_batches(self, timeout: Duration | None = 1.0, max_batches: int = 16) -> list[MessageBatch]:
        """Like `poll`, but return whole, verified batches. The first may begin before the position."""
        check_count("max_batches", max_batches)
        return self._poll(timeout, lambda: self._machine.reader.take_batches(max_batches))

    def _poll(self, timeout: Duration | None, take: Callable[[], list[Any]]) -> list[Any]:
        self._refuse_when_closed()
        limit_s = wait_limit_s(timeout)
        deadline = None if limit_s is None else monotonic() + limit_s
        machine, bridge = self._machine, self._bridge
        bridge.is_polling = True
        try:
            machine.begin_poll()
            while True:
                self._catch_up()
                if machine.growth.is_followed:
                    machine.follow_growth(self._network.topics.partition_count)
                try:
                    found = machine.found(take, monotonic())
                finally:
                    if machine.posts:
                        self._post()
                if found is not None:
                    return found
                left_s = None if deadline is None else deadline - monotonic()
                if not bridge.mailbox and (left_s is not None and left_s <= 0):
                    return []
                self._refuse_when_closed()
                left_s = machine.commits.longest_wait_s(machine.growth.longest_wait_s(left_s), monotonic())
                self._network.wait(self._has_mail, left_s)
                self._refuse_when_closed()  # by another thread
        finally:
            bridge.last_poll_ms = self._network.now_ms()
            bridge.is_polling = False

    def _catch_up(self) -> None:
        """Take the mail, and perform the actions that follow from it."""
        self._has_mail.clear()
        self._machine.accept(self._bridge.mailbox)
        try:
            while (action := self._machine.next_action()) is not None:
                self._post()
                error = None
                try:
                    self._perform(action)
                except BaseException as raised:  # noqa: BLE001 - raised when the change is complete
                    error = raised
                self._machine.performed(action, error)
        finally:
            if self._machine.posts:
                self._post()

    def _perform(self, action: Action) -> None:
        """Run a callback, or commit: also while the consumer closes."""
        if isinstance(action, CommitFirst):
            self._network.exchange(commit_call(action.request, self._request_timeout_ms))
        elif (callback := self._callbacks[action.kind]) is not None:
            callback(action.tps)

    def stop(self) -> None:
        """End a loop over this consumer after its current message; `poll` then returns an empty list at once.

        Safe in a signal handler and from other threads. The consumer stays in its group until `close`.
        """
        self._machine.is_stopped = True  # and no lock here: code that a signal interrupts may hold it
        self._network.post(self._bridge, Stopped())

    def __iter__(self) -> Iterator[Message]:
        """Yield messages until `stop`. A message counts as read when the next one is requested, or at `close`."""
        while not self._machine.is_closed and not self._machine.is_stopped:
            yield from self._machine.yield_all(self.poll(None))

    # Offsets.

    def commit(self, offsets: Message | GivenOffsets | None = None, metadata: Metadata | None = None) -> None:
        """Commit the given offsets, or the position after all returned messages, and wait until they are durable.

        An offset is that of the next message to read, by topic and partition. A message commits its partition up to
        and including itself. `metadata` is text that is stored with the offsets, by topic and partition.

        Raises CommitFailed when this member no longer owns the partitions, MemberFenced when another consumer has
        taken its place in the group, PlanariaError without a group, TimedOut.
        """
        self._refuse_when_closed()
        self._machine.accept(self._bridge.mailbox)
        action = self._machine.commit_of(offsets, metadata)
        if action is not None:
            with settling("commit", self):
                self._network.exchange(commit_call(action.request, self._request_timeout_ms), self)
            self._machine.performed(action, None)

    def _commit_for_transaction(
        self, offsets: GivenOffsets | None = None, metadata: Metadata | None = None
    ) -> CommitOffsets | None:
        """Return the request that `commit` would send, for a transaction; None if there is nothing to commit.

        Raises InvalidOption with `auto_commit`, and CommitFailed when a partition was revoked after its
        messages were returned: another member processes them. With `offsets` no callback is called: the last
        poll has already reported the partitions lost by then.
        """
        self._refuse_when_closed()
        self._machine.commits.check(is_in_transaction=True)
        if offsets is None:
            self._catch_up()
        else:
            self._machine.accept(self._bridge.mailbox)
        return self._machine.commit_for_transaction(offsets, metadata)

    def seek_to_time(self, time: datetime | int, partitions: Iterable[Partition] | None = None) -> None:
        """Continue at the first message of a time or later, in these partitions or in all assigned ones (None).

        Where no message is that recent, reading continues at the end of the log. `time` is a datetime, local without a
        zone, or milliseconds since the epoch. Raises PlanariaError when no partition is assigned (yet), TimedOut.
        """
        wanted = self._assigned_or(partitions)
        # The ends first: a message that is appended between the two requests is then found by its time.
        ends = self.end_offsets(wanted)
        for tp, found in self.offsets_for_times(dict.fromkeys(ends, time)).items():
            self.seek(*tp, found if found >= 0 else ends[tp])

    def seek_to_committed(self) -> None:
        """Read again the messages that were returned and not committed, usually after an aborted transaction.

        Without a committed offset, reading continues at the position where it began. Waits while a
        transaction is about to commit offsets. Raises TimedOut.
        """
        self._refuse_when_closed()
        self._catch_up()
        begun = self._machine.reader.beginnings()
        committed = self.committed(sorted(begun))
        self._refuse_when_closed()
        self._machine.rewind(begun, committed)
        self._post()

    def position(self, topic: str, partition: int, timeout: Duration | None = None) -> int:
        """Return the offset of the next message. Waits until it is known where reading starts.

        `timeout` is in seconds or a timedelta; None: without limit. Raises TimedOut.
        """
        self._refuse_when_closed()
        tp = as_partition("partition", (topic, partition))
        self._machine.check_owned(tp)
        limit_s = wait_limit_s(timeout)
        deadline = None if limit_s is None else monotonic() + limit_s
        while True:
            found = self._machine.known_position(tp)
            if found is not None:
                return found
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                raise TimedOut(f"the start of {topic}/{partition} is not known after {limit_s} s")
            self._network.wait(self._has_mail, left)
            self._refuse_when_closed()
            self._catch_up()

    # Closing.

    def close(self, *, leave_group: bool | None = None) -> None:
        """Commit the returned messages (with `auto_commit`) and leave the group.

        A static member leaves only with `leave_group`. Otherwise its partitions stay reserved for a consumer
        that joins with the same `instance_id` within the session timeout (as in Kafka, KIP-345).
        """
        self._end(self._machine.positions(), leave_group)

    def _end(self, positions: Offsets, leave_group: bool | None = None) -> None:
        if self._machine.is_closed or self._network.is_lost:
            return
        action = self._machine.close(positions)
        self._network.end_calls(self)
        try:
            if action is not None:
                with suppress(ProtocolError):  # fenced or out of reach: these messages are delivered again
                    self._perform(action)
        finally:
            self._leave(self._options.instance_id is None if leave_group is None else leave_group)
            self._has_mail.set()  # wakes a poll in another thread, which then finds the consumer closed

    def _leave(self, is_notified: bool) -> None:
        self._machine.leave(is_notified=is_notified)
        self._post()
        while self._machine.state != "left" and self._network.is_running:
            self._network.wait(self._has_mail, 1.0)
            self._has_mail.clear()
            self._machine.accept(self._bridge.mailbox)
        self._network.post(self._network.owner, Withdrawn(self._bridge))
        self._network.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._end(self._machine.settled_positions())
