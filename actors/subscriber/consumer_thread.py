"""The consumer thread: the group's member, on a thread of its own. Polls, commits, hands over partitions. Impure.

Owns the consumer, which no other thread touches. Before a partition is revoked, the consumer calls back on this thread,
inside a poll: the thread posts Revoking and waits for the machine's HandOver, so that records in progress are finished
and committed by the partition's old owner. The client's own thread keeps the session meanwhile. committing.py decides
how a commit is made, with or without a transaction.
"""

import itertools
import logging
import queue
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import assert_never

from msgspec import structs

from ...transport.addresses import TopicPartition
from ...transport.client.consumer import Consumer
from ...transport.client.errors import CommitFailed, CorruptData, TimedOut
from ...transport.client.messages import Message
from ...transport.lineage import lineage_of
from ...transport.protocol.errors import ErrorCode, PlanariaError, ProtocolError
from ...transport.protocol.groups import PartitionOffset
from .committing import CommitOrder, Committer, Spoiled, Undecided
from .damage import DamageTable
from .effects import (
    Commit,
    CommitRefused,
    Committed,
    CommitUncertain,
    ConsumerEffect,
    ConsumerStarted,
    Damage,
    GroupLeft,
    HandOver,
    Leave,
    Offsets,
    PartitionsLost,
    PausePartition,
    Poll,
    RecordsPolled,
    ResumePartition,
    Revoking,
    Rewind,
)
from .progress import Ahead, from_metadata
from .threads import EventQueue, WorkThread

POLL_S = 0.1
"""Longest time that an empty poll delays a commit."""
BRIEF_POLL_S = 0.01
POLL_RECORDS = 1_000

_log = logging.getLogger("planaria.subscriber")


OnPartitions = Callable[[Sequence[TopicPartition]], None]
OpenConsumer = Callable[[OnPartitions, OnPartitions], Consumer]
"""Join the group; the parameters are the callbacks for revoked and for lost partitions."""


class ConsumerThread:
    def __init__(
        self,
        open_consumer: OpenConsumer,
        max_records: int,
        inbox: EventQueue,
        commits: Committer,
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
        """Partitions whose previous owner's progress has been read, with the end offset of the records polled since."""
        self._thread = WorkThread("planaria-feed", inbox)

    def open(self) -> None:
        """Join the group; ConsumerStarted follows."""
        self._thread.order(self._open, None)

    def perform(self, effect: ConsumerEffect) -> None:
        match effect:
            case HandOver():
                self._answers.put(effect)
            case Poll():
                self._thread.order(self._poll, effect)
            case Commit():
                self._thread.order(self._commit, effect)
            case PausePartition() | ResumePartition() | Rewind():
                self._thread.order(self._steer, effect)
            case Leave():
                self._thread.order(self._leave, effect)
            case _:
                assert_never(effect)

    # Called on the consumer thread.

    def _open(self, _: None) -> ConsumerStarted:
        self._commits.prepare()
        self._consumer = self._open_consumer(self._on_revoked, self._on_lost)
        return ConsumerStarted()

    def _poll(self, effect: Poll) -> RecordsPolled:
        found = self._poll_once(effect)
        if self._damage.has_changed:
            self._inbox.post(self._damage.report())
        return found

    def _poll_once(self, effect: Poll) -> RecordsPolled:
        try:
            self._look_at_damage()
            records = self._consumer.poll(BRIEF_POLL_S if effect.is_brief else POLL_S, self._max_records)
            self._damage.read(records)
            new = self._note(records)
            lineages = {tp: lineage_of(*self._consumer._origin(tp)) for tp in new}
            return RecordsPolled(records, self._read_ahead(new), lineages)
        except CorruptData as error:
            self._on_damage(error)
            return RecordsPolled(())
        except ProtocolError as error:
            # Transient errors are waited out; a permanent one ends the actor, and the supervisor shows the reason.
            if not error.retriable:
                raise
            _log.warning("poll failed", extra={"fields": {"reason": str(error)}})
            return RecordsPolled(())

    def _note(self, records: Sequence[Message]) -> set[TopicPartition]:
        """Return the partitions that are new here or that restart.

        A partition whose offsets go back although no rewind was ordered has lost polled records (LOG_TRUNCATED): the
        machine must not mistake the records that have those offsets now for the ones it holds.
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
            self._inbox.post(PartitionsLost(cut))
        return new

    def _on_damage(self, error: CorruptData) -> None:
        """Skip the damage or stop before it. Only its partition is paused; the others are served."""
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
        """Read damaged partitions again where it is time; forget damage below the start of the log."""
        for damage in self._damage.to_look_at(monotonic()):
            if damage.tp not in self._consumer.assignment():
                continue
            with suppress(ProtocolError):  # out of range now, or deleted
                start = self._consumer.beginning_offsets([damage.tp])[TopicPartition(*damage.tp)]
                self._consumer.seek(*damage.tp, max(start, damage.offset))
                self._consumer.resume(damage.tp)

    def _read_ahead(self, new: set[TopicPartition]) -> dict[TopicPartition, Ahead]:
        """Read the progress beyond the committed offset of the previous owners of partitions that are new here."""
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
                return self._consumer._committed_offsets(sorted(tps))
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

    def _steer(self, effect: PausePartition | ResumePartition | Rewind) -> None:
        match effect:
            case Rewind(offsets=offsets):
                for key, offset in self._assigned(offsets).items():
                    self._consumer.seek(*key, offset)
                # They restart, so their previous owner's progress is read again.
                self._forget(list(offsets))
            case PausePartition(key=key):
                self._consumer.pause(*self._assigned({key: 0}))
            case ResumePartition(key=key):
                self._consumer.resume(*self._assigned({key: 0}))

    def _commit_assigned(self, order: CommitOrder) -> None:
        """Commit without the partitions revoked since the order was given: only their offsets would remain."""
        left = self._assigned(order.offsets)
        if len(left) < len(order.offsets) and order.outputs:
            raise CommitFailed(ErrorCode.NOT_ASSIGNED, "a partition has gone since the commit was ordered")
        if left:
            self._commits.commit(self._consumer, structs.replace(order, offsets=left))

    def _assigned(self, offsets: Offsets) -> Offsets:
        """Keep the offsets of partitions that have not been revoked since the order was given."""
        assigned = set(self._consumer.assignment())
        return {key: offset for key, offset in offsets.items() if key in assigned}

    def _leave(self, effect: Leave) -> GroupLeft:
        self._is_leaving = True
        self._commit_last(effect)
        with suppress(PlanariaError):  # the session times out when the broker does not answer
            self._consumer.close(leave_group=not effect.keeps_place)
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
        self._inbox.post(PartitionsLost(list(partitions)))

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        for tp in partitions:
            self._known.pop(tp, None)

    def _commit_last(self, effect: HandOver | Leave) -> None:
        """Commit for the last time. Without it the partition's next owner repeats the work done since the last commit."""
        try:
            self._commit_assigned(effect)
        except PlanariaError as error:
            _log.warning("last commit refused", extra={"fields": {"reason": str(error)}})
