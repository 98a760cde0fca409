"""The requests about a consumer group's offsets: committed, reset, fetched, and moved by transactions. Pure.

Owns the resets that wait for topics. Every reply waits until all earlier decisions are durable, also that of a fetch:
after a commit it must not return an earlier offset. Called by consumer_group.py.

    commit                  refused at once, or recorded and answered when durable
    reset                   likewise; waits a moment for topics and partitions not known yet (resets.py)
    fetch_offsets           UNSTABLE_OFFSETS while a transaction is about to move the requested offsets
    end_group_transaction   recorded and answered when durable
"""

from collections.abc import Callable
from typing import Any

from ...transport.addresses import TopicPartition
from ...transport.machine import LoopEffect, Reply, Sender
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.groups import (
    CommitOffsets,
    CommitOffsetsReply,
    FetchOffsets,
    FetchOffsetsReply,
    ResetOffsets,
)
from ...transport.protocol.message import Done
from ...transport.protocol.message import Reply as ReplyBody
from ...transport.protocol.transactions import EndGroupTransaction, TransactionId
from ..journal.recorder import Recorder
from .decisions import Decisions
from .memberships import SHUTTING_DOWN, Memberships
from .offsets import selected
from .records import Change
from .resets import WaitingReset, WaitingResets


class OffsetRequests:
    def __init__(
        self, decisions: Decisions, recorder: Recorder[Change, Any], memberships: Memberships
    ) -> None:
        self._decisions = decisions
        self._recorder = recorder
        self._memberships = memberships
        self._resets = WaitingResets()

    @property
    def is_waiting(self) -> bool:
        """True if resets were read and are not answered yet; falling asleep now would leave them unanswered."""
        return len(self._resets) > 0

    def forget_senders(self, is_gone: Callable[[Sender], bool]) -> None:
        self._resets.forget(is_gone)

    def close(self) -> list[LoopEffect]:
        """Refuse the waiting resets."""
        waiting, effects = self._resets.take()
        return [*effects, *(Reply(each.sender, SHUTTING_DOWN) for each in waiting)]

    def on_commit(self, sender: Sender, request: CommitOffsets, now: int) -> list[LoopEffect]:
        if request.member_id is not None:
            self._memberships.check_present(request.member_id)
            self._memberships.check_generation(request.generation)
        self._check_room(sender)
        self._decisions.offsets.commit(request)
        return self._reply(sender, CommitOffsetsReply())

    def on_reset(self, sender: Sender, request: ResetOffsets, now: int) -> list[LoopEffect]:
        self._check_room(sender)
        if self._decisions.topics.missing(request.offsets) is not None:
            return self._resets.wait(sender, request, now)
        self._decisions.offsets.reset(request.offsets)
        return self._reply(sender, Done())

    def retry_resets(self, now: int) -> list[LoopEffect]:
        """Check the waiting resets again: topics have changed, or a reset has reached its deadline."""
        waiting, effects = self._resets.take()
        for each in waiting:
            effects += self._retry_reset(each, now)
        return effects

    def _retry_reset(self, waiting: WaitingReset, now: int) -> list[LoopEffect]:
        refusal = self._decisions.topics.missing(waiting.request.offsets)
        if refusal is None:
            try:
                return self.on_reset(waiting.sender, waiting.request, now)
            except ProtocolError as error:
                refusal = error
        elif now < waiting.deadline:
            return self._resets.put_back(waiting)
        return [Reply(waiting.sender, refusal.body)]

    def on_fetch(self, sender: Sender, request: FetchOffsets, now: int) -> list[LoopEffect]:
        # From the decided state, answered once that is durable: a fetch after a commit must not return an earlier
        # offset.
        self._check_room(sender)
        partitions = request.partitions
        tps = None
        if partitions is not None:
            tps = [TopicPartition(topic, n) for topic in partitions for n in partitions[topic]]
        if request.require_stable and self._decisions.state.pending.is_touching(tps):
            message = "an open transaction will change these offsets"
            raise ProtocolError(ErrorCode.UNSTABLE_OFFSETS, message)
        self._decisions.topics.note_reading(partitions or ())
        state = self._decisions.state
        body = FetchOffsetsReply(
            offsets=selected(state.offsets, partitions, state.resets.floor),
            reset_epoch=state.resets.floor,
            topic_ids={
                topic: known
                for topic, known in state.topic_ids.items()
                if known and (partitions is None or topic in partitions)
            },
        )
        return self._reply(sender, body)

    def on_end_transaction(self, sender: Sender, request: EndGroupTransaction, now: int) -> list[LoopEffect]:
        key = TransactionId(request.producer_id, request.producer_epoch)
        self._decisions.offsets.end_transaction(key, request.committed, now)
        return self._reply(sender, Done())

    def _check_room(self, sender: Sender) -> None:
        self._recorder.check_room(sender, len(self._decisions.gathered))

    def _reply(self, sender: Sender, body: ReplyBody) -> list[LoopEffect]:
        return self._recorder.reply(sender, body, is_gathered=bool(self._decisions.gathered))
