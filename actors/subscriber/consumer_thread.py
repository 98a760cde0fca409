"""The feed: the group's member, on a thread of its own. Polls, commits, lets partitions go. Impure.

Owns the consumer, which no other thread touches. Before a partition goes, the consumer asks on this thread, inside a
poll: the thread posts Revoking and waits for the machine's HandOver, so that records in progress are finished and
committed by the partition's old owner. The client's own thread keeps the session meanwhile. committing.py decides how a
commit is made, with or without a transaction.
"""

import itertools
import logging
import queue
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic

from msgspec import structs

from ...transport.addresses import TopicPartition
from ...transport.client.consumer import Consumer
from ...transport.client.errors import CommitFailed, CorruptData, TimedOut
from ...transport.client.messages import Message
from ...transport.lineage import lineage_of
from ...transport.machine import Effect
from ...transport.protocol.errors import ErrorCode, PlanariaError, ProtocolError
from ...transport.protocol.groups import PartitionOffset
from .committing import CommitOrder, Committing, Spoiled, Undecided
from .damage import DamageTable
from .effects import (
    Commit,
    CommitRefused,
    Committed,
    CommitUncertain,
    ConsumerStarted,
    Damage,
    GroupLeft,
    HandOver,
    Leave,
    Lost,
    Offsets,
    Pause,
    Poll,
    Polled,
    Resume,
    Revoking,
    Rewind,
)
from .progress import Ahead, from_metadata
from .threads import Inbox, WorkThread

POLL_S = 0.1
"""How long an empty poll keeps a commit waiting."""
BRIEF_POLL_S = 0.01
POLL_RECORDS = 1_000

_log = logging.getLogger("planaria.subscriber")


OnPartitions = Callable[[Sequence[TopicPartition]], None]
OpenConsumer = Callable[[OnPartitions, OnPartitions], Consumer]
"""Joins the group, given what to call when partitions are revoked and when they are lost."""


class ConsumerThread:
    def __init__(
        self,
        open_consumer: OpenConsumer,
        max_records: int,
        inbox: Inbox,
        commits: Committing,
        *,
        skips_damage: bool = False,
    ) -> None:
        self._open_consumer = open_consumer
        self._commits = commits
        self._max_records = min(max_records, POLL_RECORDS)
        self._inbox = inbox
        self._consumer: Consumer
        self._answers: queue.SimpleQueue[HandOver] = queue.SimpleQueue()
        self._is_leaving = False
        self._skips_damage = skips_damage
        self._damage = DamageTable()
        self._known: dict[TopicPartition, int] = {}
        """Partitions of which the last owner's progress has been read, and the end of what was polled since."""
        self._thread = WorkThread("planaria-feed", inbox)

    def open(self) -> None:
        """Join the group; Started follows."""
        self._thread.order(self._open, None)

    def perform(self, effect: Effect) -> None:
        match effect:
            case HandOver():
                self._answers.put(effect)
            case Poll():
                self._thread.order(self._poll, effect)
            case Commit():
                self._thread.order(self._commit, effect)
            case Pause() | Resume() | Rewind():
                self._thread.order(self._steer, effect)
            case Leave():
                self._thread.order(self._leave, effect)
            case _:
                raise AssertionError(f"no effect of the feed's: {effect!r}")

    # On the feed's thread.

    def _open(self, _: None) -> ConsumerStarted:
        self._commits.prepare()
        self._consumer = self._open_consumer(self._on_revoked, self._on_lost)
        return ConsumerStarted()

    def _poll(self, effect: Poll) -> Polled:
        found = self._poll_once(effect)
        if self._damage.is_news:
            self._inbox.post(self._damage.tell())
        return found

    def _poll_once(self, effect: Poll) -> Polled:
        try:
            self._look_at_damage()
            records = self._consumer.poll(BRIEF_POLL_S if effect.is_brief else POLL_S, self._max_records)
            self._damage.read(records)
            new = self._note(records)
            lineages = {tp: lineage_of(*self._consumer.origin(tp)) for tp in new}
            return Polled(records, self._read_ahead(new), lineages)
        except CorruptData as error:
            self._on_damage(error)
            return Polled(())
        except ProtocolError as error:
            # What may pass is waited for; what will not ends the actor, and the supervisor shows why.
            if not error.retriable:
                raise
            _log.warning("poll failed", extra={"fields": {"reason": str(error)}})
            return Polled(())

    def _note(self, records: Sequence[Message]) -> set[TopicPartition]:
        """The partitions that are new here, or begin anew.

        One that goes back although nobody told it to has lost what was polled (LOG_TRUNCATED): the machine must not
        take what has those offsets now for what it holds.
        """
        new: set[TopicPartition] = set()
        cut: list[TopicPartition] = []
        for tp, group in itertools.groupby(
            records, lambda record: TopicPartition(record.topic, record.partition)
        ):
            polled = list(group)
            end = self._known.get(tp)
            if end is None or polled[0].offset < end:
                new.add(tp)
                cut += [] if end is None else [tp]
            self._known[tp] = polled[-1].offset + 1
        if cut:
            self._inbox.post(Lost(cut))
        return new

    def _on_damage(self, error: CorruptData) -> None:
        """Go past it, or stop in front of it. The other partitions are served: a paused one is not complained of."""
        tp = TopicPartition(error.topic, error.partition)
        damage = Damage(*tp, error.offset, error.next_offset, str(error))
        if self._skips_damage and error.next_offset is not None:
            self._damage.skip(structs.replace(damage, is_skipped=True))
            _log.critical("damaged records skipped", extra={"fields": {"reason": str(error)}})
            self._consumer.seek(*tp, error.next_offset)
            return
        self._consumer.pause(tp)
        if self._damage.stand(damage, monotonic()):
            _log.critical("partition paused", extra={"fields": {"reason": str(error)}})

    def _look_at_damage(self) -> None:
        """Try again where it is time; what lies below the start of the log by now is not waited for."""
        for damage in self._damage.to_look_at(monotonic()):
            if damage.tp not in self._consumer.assignment():
                continue
            with suppress(ProtocolError):  # out of reach now, or deleted
                start = self._consumer.beginning_offsets([damage.tp])[TopicPartition(*damage.tp)]
                self._consumer.seek(*damage.tp, max(start, damage.offset))
                self._consumer.resume(damage.tp)

    def _read_ahead(self, new: set[TopicPartition]) -> dict[TopicPartition, Ahead]:
        """What the last owners of partitions that are new here had done beyond what they had committed."""
        if not new:
            return {}
        committed = self._read_committed(new)
        found = {(item.topic, item.partition): item for item in committed}
        return {
            tp: from_metadata(found[tp].offset, found[tp].metadata)
            for tp in new & found.keys()
            if found[tp].metadata
        }

    def _read_committed(self, tps: set[TopicPartition]) -> list[PartitionOffset]:
        while True:
            try:
                return self._consumer.committed_with_metadata(sorted(tps))
            except PlanariaError as error:
                _log.warning("progress cannot be read", extra={"fields": {"reason": str(error)}})
                if not self._commits.is_exact:
                    return []
                if not (
                    isinstance(error, ProtocolError) and (error.retriable or isinstance(error, TimedOut))
                ):
                    raise

    def _commit(self, effect: Commit) -> Committed | CommitRefused | CommitUncertain:
        try:
            self._commit_assigned(effect)
        except Undecided as error:
            return CommitUncertain(effect.offsets, str(error))
        except Spoiled as error:
            return CommitRefused(effect.offsets, str(error), is_spoiled=True)
        except PlanariaError as error:
            return CommitRefused(effect.offsets, str(error))
        return Committed(effect.offsets)

    def _steer(self, effect: Pause | Resume | Rewind) -> None:
        match effect:
            case Rewind(offsets=offsets):
                for key, offset in self._assigned(offsets).items():
                    self._consumer.seek(*key, offset)
                # They begin anew, and so does what is known of their last owner's progress.
                self._forget(list(offsets))
            case Pause(key=key):
                self._consumer.pause(*self._assigned({key: 0}))
            case Resume(key=key):
                self._consumer.resume(*self._assigned({key: 0}))

    def _commit_assigned(self, order: CommitOrder) -> None:
        """Without those that have gone since the order was given: nothing is left of these but their offsets."""
        left = self._assigned(order.offsets)
        if len(left) < len(order.offsets) and order.outputs:
            raise CommitFailed(ErrorCode.NOT_ASSIGNED, "a partition has gone since the commit was ordered")
        if left:
            self._commits.commit(self._consumer, structs.replace(order, offsets=left))

    def _assigned(self, offsets: Offsets) -> Offsets:
        """Those of partitions that have not gone since the order was given."""
        assigned = set(self._consumer.assignment())
        return {key: offset for key, offset in offsets.items() if key in assigned}

    def _leave(self, effect: Leave) -> GroupLeft:
        self._is_leaving = True
        self._commit_last(effect)
        with suppress(PlanariaError):  # the session ends by itself when nobody answers
            self._consumer.close(leave_group=True)
        return GroupLeft()

    def _on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        if self._is_leaving:
            return
        self._inbox.post(Revoking(list(partitions)))
        self._forget(partitions)
        self._damage.gone(partitions)
        self._commit_last(self._answers.get())

    def _on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._forget(partitions)
        self._damage.gone(partitions)
        self._inbox.post(Lost(list(partitions)))

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        for tp in partitions:
            self._known.pop(tp, None)

    def _commit_last(self, effect: HandOver | Leave) -> None:
        """Without it the partition's next owner repeats what was done since the last commit."""
        try:
            self._commit_assigned(effect)
        except PlanariaError as error:
            _log.warning("last commit refused", extra={"fields": {"reason": str(error)}})
