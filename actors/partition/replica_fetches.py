"""Fetches of followers: each is compared with the leader's log, then read, or parked until more is written. Pure.

    leader epoch of the fetch            answer
    lower, higher than the leader's      FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH
    the same, from an unknown replica    UNKNOWN_LEADER_EPOCH: the leader may not know of it yet

    the follower's log                                       answer
    ends below the leader's start                            OFFSET_OUT_OF_RANGE, with the start as `next_offset`
    has a batch that the leader's has not                    `diverging`: where the follower cuts, by leader epochs
    ends before the leader's                                 the batches from there on, as they are on disk
    ends with the leader's                                   parked, until the next write or `max_wait_ms`

Divergence is found by epochs and never by the high watermark (KIP-101, KIP-279): the follower names the epoch of its
last batch, and the leader knows where that epoch ended in its own log. Called by `replicas.py`.
"""

from collections import deque
from collections.abc import Collection

from ...transport.machine import Received, Reply, SetTimer
from ...transport.protocol.data import Fetch
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import MAX_FRAME_BYTES
from ...transport.protocol.replication import Diverging, ReplicaFetch, ReplicaFetchReply
from ..log.epochs import NO_EPOCH, EpochTable
from .effects import Effect, Read, ReadDone
from .replication import Watermarks
from .timers import ReplicaFetchesExpire
from .views import ReplicaView

PARKED_LIMIT = 100
CLOSED_KEPT = 64


class ReplicaFetches:
    def __init__(self, leader_epoch: int, watermarks: Watermarks, epochs: EpochTable) -> None:
        self._leader_epoch = leader_epoch
        self._watermarks = watermarks
        self._epochs = epochs
        self.view = ReplicaView(watermarks, PARKED_LIMIT)
        self._timer_at: int | None = None
        self._closed: deque[bytes] = deque(maxlen=CLOSED_KEPT)
        """The connections that have ended last. A fetch that is read after its connection's end has no follower."""

    def on_disconnected(self, connection: bytes) -> list[Received]:
        """Take out the fetches of a closed connection."""
        self._closed.append(connection)
        return self.view.parked.forget_connection(connection)

    def is_left(self, received: Received) -> bool:
        """Return True if the connection of a fetch has ended before it was read."""
        return received.sender.route[0] in self._closed

    def refusal(self, request: ReplicaFetch, is_replica: bool) -> ProtocolError | None:
        """Return the reason why a fetch is not of this leader, or lies below its log."""
        refusal = self.epoch_refusal(request.leader_epoch)
        if refusal is not None:
            return refusal
        if not is_replica:
            message = f"{request.replica} with the data directory {request.data_id} is no replica that is known here"
            return ProtocolError(ErrorCode.UNKNOWN_LEADER_EPOCH, message)
        start = self._watermarks.log_start_offset
        if request.fetch_offset < start:
            message = f"the leader's log begins at {start}, after {request.fetch_offset}"
            return ProtocolError(ErrorCode.OFFSET_OUT_OF_RANGE, message, next_offset=start)
        return None

    def epoch_refusal(self, leader_epoch: int) -> ProtocolError | None:
        """Return the reason why a request under this epoch is not of this leader."""
        if leader_epoch < self._leader_epoch:
            message = f"this is the leader of epoch {self._leader_epoch}, the request is of {leader_epoch}"
            return ProtocolError(ErrorCode.FENCED_LEADER_EPOCH, message)
        if leader_epoch > self._leader_epoch:
            message = f"this is the leader of epoch {self._leader_epoch}, and knows of no {leader_epoch}"
            return ProtocolError(ErrorCode.UNKNOWN_LEADER_EPOCH, message)
        return None

    def divergence(self, request: ReplicaFetch) -> Diverging | None:
        """Return where the follower's log differs from this one, if it does."""
        log_end_offset = self._watermarks.written_offset
        if request.last_epoch == NO_EPOCH:
            is_beyond = request.fetch_offset > log_end_offset
            return Diverging(NO_EPOCH, log_end_offset) if is_beyond else None
        epoch, end_offset = self._epochs.end_of(request.last_epoch, log_end_offset)
        is_same = epoch == request.last_epoch and request.fetch_offset <= end_offset
        return None if is_same else Diverging(epoch, end_offset)

    def is_at_end(self, request: ReplicaFetch) -> bool:
        """Return True if the follower's log is this one: then there is no refusal and no divergence.

        This is the usual fetch of a follower in sync, and needs the fewest steps.
        """
        return (
            request.leader_epoch == self._leader_epoch
            and request.fetch_offset == self._watermarks.written_offset
            and request.last_epoch == self._epochs.last
        )

    def serve(self, received: Received, request: ReplicaFetch, now: int) -> list[Effect]:
        """Answer a fetch whose follower has a part of this log, or park it at the end."""
        end_offset = self._watermarks.written_offset
        if request.fetch_offset < end_offset:
            return [Read(received, min(request.max_bytes, MAX_FRAME_BYTES), end_offset, is_final=True)]
        if request.max_wait_ms == 0:
            return [self.reply(received)]
        deadline = now + request.max_wait_ms
        evicted = self.view.parked.park(received, deadline, 0)
        effects: list[Effect] = [] if evicted is None else [self.reply(evicted)]
        if self._timer_at is None or deadline < self._timer_at:
            effects.append(self._timer(deadline))
        return effects

    def on_written(self) -> list[Read]:
        """Take out the parked fetches, each with its read: there is more."""
        waiting = self.view.advance(0)
        end_offset = self.view.end_offset
        return [
            Read(
                received,
                min(replica_fetch_of(received).max_bytes, MAX_FRAME_BYTES),
                end_offset,
                is_final=True,
            )
            for received in waiting
        ]

    def on_read_done(self, done: ReadDone) -> list[Effect]:
        return [self.reply(done.read.received, done)]

    def on_timer(self, now: int) -> list[Effect]:
        self._timer_at = None
        effects: list[Effect] = [self.reply(received) for received in self.view.parked.expire(now)]
        deadline = self.view.parked.next_deadline()
        return effects if deadline is None else [*effects, self._timer(deadline)]

    def _timer(self, deadline: int) -> Effect:
        """Set the timer, at or before the earliest deadline. An answered fetch leaves it set; it then has no effect."""
        self._timer_at = deadline
        return SetTimer(ReplicaFetchesExpire(), deadline)

    def answer(self, nodes: Collection[str]) -> list[Effect]:
        """Answer the parked fetches of these nodes as they are, so that their followers fetch again."""
        if not nodes:
            return []
        taken = self.view.parked.take_out(lambda received: replica_fetch_of(received).replica in nodes)
        return [self.reply(received) for received in taken]

    def fail_all(self, error: ProtocolError) -> list[Effect]:
        return [Reply(received.sender, error.body) for received in self.view.parked.drain()]

    def reply(
        self, received: Received, done: ReadDone | None = None, diverging: Diverging | None = None
    ) -> Reply:
        body = ReplicaFetchReply(
            leader_epoch=self._leader_epoch,
            high_watermark=self._watermarks.high_watermark,
            log_start_offset=self._watermarks.log_start_offset,
            diverging=diverging,
        )
        return Reply(received.sender, body, [done.batches] if done is not None and len(done.batches) else ())


def replica_fetch_of(received: Received) -> ReplicaFetch:
    assert isinstance(received.request, ReplicaFetch)
    return received.request


def offset_of(received: Received) -> int:
    """Return the offset at which a fetch, of a client or of a follower, is read."""
    request = received.request
    return request.offset if isinstance(request, Fetch) else replica_fetch_of(received).fetch_offset
