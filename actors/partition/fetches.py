"""Fetches: each is read, parked, or refused because its offset does not exist.

    offset                               answer
    below log_start_offset               OFFSET_OUT_OF_RANGE, naming the bounds
    below the high watermark             Read; parked if less than `min_bytes` is there and it may wait
    at the high watermark                parked; empty at once if it may not wait
    beyond the high watermark            OFFSET_OUT_OF_RANGE
    read up to in an earlier epoch       LOG_TRUNCATED when those records are no longer here (divergence.py)

For readers of committed records the last stable offset replaces the high watermark, except that offsets between the
two are not out of range: such a fetch waits. The reply lists the aborted transactions. `views.py` has the difference.

Owns the timer of the parked fetches, and the searches. Pure; called by the partition's machine.
"""

from ...transport.fetched_records import MAX_INLINE_BYTES, decode_for_json
from ...transport.machine import Payload, Received, Reply, SetTimer
from ...transport.protocol.data import Fetch, FetchedRecord, FetchReply
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import MAX_FRAME_BYTES
from .effects import Compare, Compared, Effect, Read, ReadDone
from .replication import Watermarks
from .timers import FetchesExpire, SearchContinues
from .views import Views


class Fetches:
    def __init__(self, topic_id: str, leader_epoch: int, watermarks: Watermarks, views: Views) -> None:
        self._topic_id = topic_id
        self.leader_epoch = leader_epoch
        """The epoch that belongs to the offsets of replies. A mirror's is that of its last batch."""
        self._watermarks = watermarks
        self.views = views
        self._timer_at: int | None = None
        self._searching: list[Read] = []
        """Fetches of damaged stretches, each of a request that the turn's bounds and the client's own wait bound."""

    @property
    def is_busy(self) -> bool:
        """True while a fetch waits for records or for the end of a search."""
        return bool(self._searching) or self.parked_count > 0

    @property
    def parked_count(self) -> int:
        return sum(len(view.parked) for view in self.views.all)

    def on_fetch(self, received: Received, now: int) -> list[Effect]:
        request = fetch_of(received)
        if request.leader_epoch is not None and request.leader_epoch < self.leader_epoch:
            return [Compare(received, request.leader_epoch)]
        return self._start(received, now)

    def on_compared(self, event: Compared, now: int) -> list[Effect]:
        received, found = event.received, event.divergence
        if found is None:
            return self._start(received, now)
        request = fetch_of(received)
        message = (
            f"the log was cut since epoch {request.leader_epoch}, in which the reader came to offset"
            f" {request.offset}: from offset {found} on it has other records"
        )
        error = ProtocolError(ErrorCode.LOG_TRUNCATED, message, next_offset=found)
        return [Reply(received.sender, error.body)]

    def _start(self, received: Received, now: int) -> list[Effect]:
        request = fetch_of(received)
        if request.max_wait_ms == 0 or request.min_bytes == 0:
            return self._read(received, is_final=True)
        view = self.views.of(request.isolation)
        if view.end_offset <= request.offset <= view.known_offset:
            return self._park(received, now, min_bytes(request))
        return self._read(received, is_final=False)

    def on_read_done(self, done: ReadDone, now: int) -> list[Effect]:
        received, request = done.read.received, fetch_of(done.read.received)
        missing_bytes = min_bytes(request) - len(done.batches)
        # A read that stopped early for a reason of its own (a segment's end) has more to return, so the fetch is not
        # short.
        has_read_all = done.next_offset == done.read.up_to_offset
        if missing_bytes > 0 and has_read_all and not done.read.is_final:
            return self._park(received, now, missing_bytes)
        if wants_records(received):
            return [self._answer_inline(done)]
        return [self._answer(received, done.next_offset, [done.batches] if len(done.batches) else [])]

    def on_read_unfinished(self, read: Read, now: int) -> list[Effect]:
        """Continue a long search through damage later, after other requests have had their turn."""
        self._searching.append(read)
        return [SetTimer(SearchContinues(), now)]

    def on_search_timer(self, now: int) -> list[Effect]:
        """Continue one search, so that a turn searches once, however many fetches wait."""
        if not self._searching:
            return []
        read, *self._searching = self._searching
        again: list[Effect] = [SetTimer(SearchContinues(), now)] if self._searching else []
        return [read, *again]

    def on_visible(self, visible_bytes: int) -> list[Effect]:
        """Wake fetches after the high watermark has moved."""
        effects: list[Effect] = []
        for view in self.views.all:
            for received in view.advance(visible_bytes):
                effects += self._read(received, is_final=True)
        return effects

    def on_timer(self, now: int) -> list[Effect]:
        self._timer_at = None
        expired = [received for view in self.views.all for received in view.parked.expire(now)]
        effects = [effect for received in expired for effect in self._read(received, is_final=True)]
        return effects + self._set_timer()

    def on_cancel(self, cancel: Received) -> list[Effect]:
        """Drop waiting fetches that the requester has cancelled. Their timer, if it is set, has no effect."""
        for view in self.views.all:
            view.parked.cancel(cancel)
        return []

    def on_disconnected(self, connection: bytes) -> list[Effect]:
        for view in self.views.all:
            view.parked.forget_connection(connection)
        return []

    def fail_all(self, error: ProtocolError) -> list[Effect]:
        """Fail all waiting fetches."""
        waiting = [received for view in self.views.all for received in view.parked.drain()]
        waiting += [read.received for read in self._searching]
        self._searching = []
        return [Reply(received.sender, error.body) for received in waiting]

    def _read(self, received: Received, is_final: bool) -> list[Effect]:
        request = fetch_of(received)
        view = self.views.of(request.isolation)
        log_start_offset = self._watermarks.log_start_offset
        if not log_start_offset <= request.offset <= view.known_offset:
            held = f"offsets {log_start_offset} to {view.known_offset} (exclusive) are here"
            error = ProtocolError(ErrorCode.OFFSET_OUT_OF_RANGE, f"{held}, not {request.offset}")
            return [Reply(received.sender, error.body)]
        end_offset = view.end_offset
        if request.offset >= end_offset:
            return [self._answer(received, request.offset, [])]
        limit_bytes = MAX_INLINE_BYTES if wants_records(received) else MAX_FRAME_BYTES
        return [Read(received, min(request.max_bytes, limit_bytes), end_offset, is_final)]

    def _park(self, received: Received, now: int, missing_bytes: int) -> list[Effect]:
        """Park a fetch until so many more bytes have become visible to it, or its own time is over."""
        request = fetch_of(received)
        view, deadline = self.views.of(request.isolation), now + request.max_wait_ms
        evicted = view.parked.park(received, deadline, view.visible_bytes + missing_bytes)
        effects = [] if evicted is None else self._read(evicted, is_final=True)
        return effects + self._set_timer()

    def _set_timer(self) -> list[Effect]:
        """Set one timer, at or before the earliest deadline. A woken fetch leaves it set; it then has no effect."""
        deadlines = [view.parked.next_deadline() for view in self.views.all]
        deadline = min((at for at in deadlines if at is not None), default=None)
        if deadline is None or (self._timer_at is not None and self._timer_at <= deadline):
            return []
        self._timer_at = deadline
        return [SetTimer(FetchesExpire(), deadline)]

    def _answer_inline(self, done: ReadDone) -> Reply:
        received, request = done.read.received, fetch_of(done.read.received)
        try:
            records, next_offset = decode_for_json(
                done.batches,
                request.offset,
                request.max_records,
                request.max_bytes,
                done.next_offset,
                self.views.of(request.isolation).aborted_between(request.offset, done.next_offset),
            )
        except ProtocolError as error:
            return Reply(received.sender, error.body)
        return self._answer(received, next_offset, [], records)

    def _answer(
        self,
        received: Received,
        next_offset: int,
        payload: Payload,
        records: list[FetchedRecord] | None = None,
    ) -> Reply:
        request, marks = fetch_of(received), self._watermarks
        if records is None and wants_records(received):
            records = []
        body = FetchReply(
            topic=request.topic,
            partition=request.partition,
            log_start_offset=marks.log_start_offset,
            high_watermark=marks.high_watermark,
            next_offset=next_offset,
            records=records,
            last_stable_offset=self.views.committed.end_offset,
            topic_id=self._topic_id,
            leader_epoch=self.leader_epoch,
        )
        if payload and (
            aborted := self.views.of(request.isolation).aborted_between(request.offset, next_offset)
        ):
            body.aborted = aborted
        return Reply(received.sender, body, payload)


def fetch_of(received: Received) -> Fetch:
    assert isinstance(received.request, Fetch)
    return received.request


def min_bytes(request: Fetch) -> int:
    """Return the number of bytes worth waking for: no more than may be returned."""
    return max(1, min(request.min_bytes, request.max_bytes))


def wants_records(received: Received) -> bool:
    """True if the records go into the header: as requested, or by default as the requester's encoding suggests."""
    chosen = fetch_of(received).format
    return chosen == "records" or (chosen is None and received.sender.is_json)
