"""The feed: the group's member, in a task on the actor's loop. Polls, commits, hands over partitions. Impure.

Owns the consumer (member.py), whose machines decide about reading and membership; it has no thread. Records are taken
from the client's thread, and verified and decoded here. The handler never runs here: it may block for as long as it
likes in a worker's thread, while heartbeats, polls and commits go on in the loop's. The client's thread keeps the
session.

Before a partition is revoked, the consumer awaits `_on_change` inside a poll: the feed posts Revoking and waits for the
machine's HandOver, so that records in progress are finished and committed by the partition's old owner. committing.py
decides how a commit is made, with or without a transaction.
"""

import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias, assert_never

from msgspec import structs

from ...transport.addresses import TopicPartition
from ...transport.aio.loops import Bridge, Flag
from ...transport.client.consuming import RunCallback
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
    ConsumerStarted,
    Damage,
    EndPoll,
    FeedEffect,
    GroupLeft,
    HandOver,
    Leave,
    Offsets,
    OwnEvent,
    PartitionsLost,
    PausePartition,
    Poll,
    ReadDamage,
    RecordsPolled,
    ResumePartition,
    Revoking,
    Rewind,
)
from .member import Member, OnChange
from .progress import Ahead, from_metadata

POLL_RECORDS = 1_000

_log = logging.getLogger("planaria.subscriber")

InOrder: TypeAlias = Poll | Commit | Rewind | ReadDamage | Leave


class Feed:
    def __init__(
        self,
        member_of: Callable[[OnChange], Member],
        max_records: int,
        bridge: Bridge,
        post: Callable[[OwnEvent], None],
        commits: Committer,
        *,
        skips_damage: bool = False,
    ) -> None:
        """`member_of` makes the group's member. `post` delivers an event to the machine, in a later turn."""
        self._consumer = member_of(self._on_change)
        self._commits = commits
        self._max_records = min(max_records, POLL_RECORDS)
        self._post = post
        self._orders: deque[InOrder] = deque()
        self._has_orders = Flag(bridge)
        self._hand_over: HandOver | None = None
        self._may_hand_over = Flag(bridge)
        self._is_leaving = False
        self._skips_damage = skips_damage
        self._damage = DamageTable()
        self._known: dict[TopicPartition, int] = {}
        """Partitions whose previous owner's progress has been read, with the end offset of the records polled since."""

    def perform(self, effect: FeedEffect) -> None:
        match effect:
            case EndPoll():
                self._consumer.end_poll()
            case HandOver():
                self._hand_over = effect
                self._may_hand_over.set_here()
            case PausePartition(key=key):
                if self._keeps(key):
                    self._consumer.pause(key)
            case ResumePartition(key=key):
                if self._keeps(key):
                    self._consumer.resume(key)
            case Poll() | Commit() | Rewind() | ReadDamage() | Leave():
                self._orders.append(effect)
                self._has_orders.set_here()
            case _:
                assert_never(effect)

    async def run(self) -> None:
        """Join the group, then perform the orders one after another, until the last one leaves it."""
        await self._commits.prepare()
        await self._consumer.__aenter__()
        self._post(ConsumerStarted())
        while not self._is_leaving:
            while not self._orders:
                self._has_orders.clear()
                await self._has_orders.wait()
            order = self._orders.popleft()
            match order:
                case Poll():
                    self._post(await self._poll())
                case Commit():
                    self._post(await self._commit(order))
                case Rewind(offsets=offsets):
                    self._rewind(offsets)
                case ReadDamage():
                    await self._read_damage()
                case Leave():
                    self._post(await self._leave(order))
                case _:
                    assert_never(order)

    async def _poll(self) -> RecordsPolled:
        found = await self._poll_once()
        if self._damage.has_changed:
            self._post(self._damage.report())
        return found

    async def _poll_once(self) -> RecordsPolled:
        try:
            records = await self._consumer.poll(None, self._max_records)
            self._damage.read(records)
            new = self._note(records)
            lineages = {tp: lineage_of(*self._consumer.origin(tp)) for tp in new}
            return RecordsPolled(records, await self._read_ahead(new), lineages)
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
            self._post(PartitionsLost(cut))
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
        if self._damage.stand(damage):
            _log.critical("partition paused", extra={"fields": {"reason": str(error)}})

    async def _read_damage(self) -> None:
        """Read damaged partitions again, but not below the start of the log."""
        for damage in self._damage.standing():
            with suppress(ProtocolError):  # out of range now, or deleted
                start = await self._consumer.beginning_of(damage.tp)
                if damage.tp in self._consumer.assignment():
                    self._consumer.seek(*damage.tp, max(start, damage.offset))
                    self._consumer.resume(damage.tp)

    async def _read_ahead(self, new: set[TopicPartition]) -> dict[TopicPartition, Ahead]:
        """Read the progress beyond the committed offset of the previous owners of partitions that are new here."""
        if not new:
            return {}
        committed = await self._read_committed(new)
        found = {(item.topic, item.partition): item for item in committed}
        return {
            tp: from_metadata(found[tp].offset, found[tp].metadata)
            for tp in new & found.keys()
            if found[tp].metadata
        }

    async def _read_committed(self, tps: set[TopicPartition]) -> list[PartitionOffset]:
        while True:
            try:
                return await self._consumer.offsets_committed(sorted(tps))
            except PlanariaError as error:
                _log.warning("progress cannot be read", extra={"fields": {"reason": str(error)}})
                if not self._commits.is_exact:
                    return []
                if not (
                    isinstance(error, ProtocolError) and (error.retriable or isinstance(error, TimedOut))
                ):
                    raise

    async def _commit(self, effect: Commit) -> Committed | CommitRefused | CommitUncertain:
        try:
            await self._commit_assigned(effect)
        except Undecided as error:
            return CommitUncertain(effect.offsets, str(error))
        except Spoiled as error:
            return CommitRefused(effect.offsets, str(error), is_spoiled=True)
        except PlanariaError as error:
            return CommitRefused(effect.offsets, str(error))
        return Committed(effect.offsets)

    def _rewind(self, offsets: Offsets) -> None:
        for key, offset in self._assigned(offsets).items():
            self._consumer.seek(*key, offset)
        # They restart, so their previous owner's progress is read again.
        self._forget(list(offsets))

    async def _commit_assigned(self, order: CommitOrder) -> None:
        """Commit without the partitions revoked since the order was given: only their offsets would remain."""
        left = self._assigned(order.offsets)
        if len(left) < len(order.offsets) and order.outputs:
            raise CommitFailed(ErrorCode.NOT_ASSIGNED, "a partition was revoked before the commit")
        if left:
            await self._commits.commit(self._consumer, structs.replace(order, offsets=left))

    def _keeps(self, tp: TopicPartition) -> bool:
        """Return True if the partition is assigned to this member, which does not leave."""
        return not self._is_leaving and tp in self._consumer.assignment()

    def _assigned(self, offsets: Offsets) -> Offsets:
        """Keep the offsets of partitions that have not been revoked since the order was given."""
        assigned = set(self._consumer.assignment())
        return {key: offset for key, offset in offsets.items() if key in assigned}

    async def _leave(self, effect: Leave) -> GroupLeft:
        self._is_leaving = True
        await self._commit_last(effect)
        with suppress(PlanariaError):  # the session times out when the broker does not answer
            await self._consumer.close(leave_group=not effect.keeps_place)
        return GroupLeft()

    async def _on_change(self, change: RunCallback) -> None:
        """Take part in a change of the assignment, inside a poll or the end."""
        if change.kind == "revoked" and not self._is_leaving:
            await self._on_revoked(change.tps)
        elif change.kind == "lost":
            self._drop(change.tps)
            self._post(PartitionsLost(change.tps))

    async def _on_revoked(self, partitions: list[TopicPartition]) -> None:
        self._drop(partitions)
        self._may_hand_over.clear()
        self._post(Revoking(partitions))
        await self._may_hand_over.wait()
        assert self._hand_over is not None
        await self._commit_last(self._hand_over)

    def _drop(self, partitions: Sequence[TopicPartition]) -> None:
        self._forget(partitions)
        self._damage.gone(partitions)

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        for tp in partitions:
            self._known.pop(tp, None)

    async def _commit_last(self, effect: HandOver | Leave) -> None:
        """Commit for the last time. Without it the partition's next owner repeats the work done since the last commit."""
        try:
            await self._commit_assigned(effect)
        except PlanariaError as error:
            _log.warning("last commit refused", extra={"fields": {"reason": str(error)}})
