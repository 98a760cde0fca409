"""Fetches: each is read, parked, or refused because its offset does not exist.

    offset                               answer
    below log_start_offset               OFFSET_OUT_OF_RANGE, naming the bounds
    below the high watermark             Read; parked if less than `min_bytes` is there and it may wait
    at the high watermark                parked; empty at once if it may not wait
    beyond the high watermark            OFFSET_OUT_OF_RANGE
    read up to in an earlier epoch       LOG_TRUNCATED when those records are no longer here (divergence.py)

For readers of committed records the last stable offset replaces the high watermark, except that offsets between the
two are not out of range: such a fetch waits. The reply lists the aborted transactions.

Owns the parked fetches and their timer. Pure; called by the partition's machine.
"""

from ...transport.fetched_records import MAX_INLINE_BYTES, decode_for_json
from ...transport.machine import Effect, Payload, Received, Reply, SetTimer
from ...transport.protocol.data import AbortedTransaction, Fetch, FetchedRecord, FetchReply
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import MAX_FRAME_BYTES
from ..log.transactions import Transactions
from .effects import Compare, Compared, Read, ReadDone
from .parked import ParkedFetches
from .replication import Watermarks

PARKED_TIMER = "parked"
SEARCH_TIMER = "search"


class Fetches:
    def __init__(
        self,
        topic_id: str,
        leader_epoch: int,
        watermarks: Watermarks,
        transactions: Transactions,
        parked: ParkedFetches,
    ) -> None:
        """Start without fetches. `parked` holds those of committed records; the others get a list of the same size."""
        self._topic_id = topic_id
        self._leader_epoch = leader_epoch
        self._watermarks = watermarks
        self._transactions = transactions
        self._parked = parked
        self._uncommitted = ParkedFetches(parked.limit)
        self._stable_offset = self.last_stable_offset
        self._stable_bytes = 0
        """The number of visible bytes when last no transaction was open."""
        self._timer_at: int | None = None
        self._searching: list[Read] = []
        """Fetches of damaged stretches, each of a request that the turn's bounds and the client's own wait bound."""

    @property
    def is_busy(self) -> bool:
        """True while a fetch waits for records or for the end of a search."""
        return bool(len(self._parked) or len(self._uncommitted) or self._searching)

    @property
    def last_stable_offset(self) -> int:
        stable_offset = self._transactions.last_stable_offset(self._watermarks.high_watermark)
        # Retention may have deleted the beginning of an open transaction: readers still start at the log's start.
        return max(stable_offset, self._watermarks.log_start_offset)

    def on_fetch(self, asked: Received, now: int, visible_bytes: int) -> list[Effect]:
        request = fetch_of(asked)
        if request.leader_epoch is not None and request.leader_epoch < self._leader_epoch:
            return [Compare(asked, request.leader_epoch)]
        return self._start(asked, now, visible_bytes)

    def on_compared(self, event: Compared, now: int, visible_bytes: int) -> list[Effect]:
        asked, found = event.asked, event.divergence
        if found is None:
            return self._start(asked, now, visible_bytes)
        request = fetch_of(asked)
        message = (
            f"the log was cut since epoch {request.leader_epoch}, in which the reader came to offset"
            f" {request.offset}: from offset {found} on it holds other records"
        )
        error = ProtocolError(ErrorCode.LOG_TRUNCATED, message, next_offset=found)
        return [Reply(asked.sender, error.body)]

    def _start(self, asked: Received, now: int, visible_bytes: int) -> list[Effect]:
        request = fetch_of(asked)
        if request.max_wait_ms == 0 or request.min_bytes == 0:
            return self._read(asked, is_final=True)
        if self._end_for(request) <= request.offset <= self._watermarks.high_watermark:
            return self._park(asked, now, self._bytes_for(request, visible_bytes) + min_bytes(request))
        return self._read(asked, is_final=False)

    def _end_for(self, request: Fetch) -> int:
        is_committed = request.isolation == "read_committed"
        return self.last_stable_offset if is_committed else self._watermarks.high_watermark

    def _bytes_for(self, request: Fetch, visible_bytes: int) -> int:
        return self._stable_bytes if request.isolation == "read_committed" else visible_bytes

    def on_read_done(self, done: ReadDone, now: int, visible_bytes: int) -> list[Effect]:
        asked, request = done.read.asked, fetch_of(done.read.asked)
        missing_bytes = min_bytes(request) - len(done.batches)
        # A read that stopped early for a reason of its own (a segment's end) has more to return, so the fetch is not
        # short.
        has_read_all = done.next_offset == done.read.up_to_offset
        if missing_bytes > 0 and has_read_all and not done.read.is_final:
            return self._park(asked, now, self._bytes_for(request, visible_bytes) + missing_bytes)
        if wants_records(asked):
            return [self._answer_inline(done)]
        return [self._answer(asked, done.next_offset, [done.batches] if len(done.batches) else [])]

    def on_read_unfinished(self, read: Read, now: int) -> list[Effect]:
        """Continue a long search through damage later, after other requests have had their turn."""
        self._searching.append(read)
        return [SetTimer(SEARCH_TIMER, now)]

    def on_search_timer(self, now: int) -> list[Effect]:
        """Continue one search, so that a turn searches once, however many fetches wait."""
        if not self._searching:
            return []
        read, *self._searching = self._searching
        again: list[Effect] = [SetTimer(SEARCH_TIMER, now)] if self._searching else []
        return [read, *again]

    def on_visible(self, visible_bytes: int) -> list[Effect]:
        """Wake fetches after the high watermark has moved."""
        stable_offset = self.last_stable_offset
        awake = self._uncommitted.wake(visible_bytes)
        if stable_offset == self._watermarks.high_watermark:
            self._stable_bytes = visible_bytes
            awake += self._parked.wake(visible_bytes)
        elif stable_offset > self._stable_offset:
            awake += self._parked.drain()  # the number of bytes is unknown
        self._stable_offset = stable_offset
        return [effect for asked in awake for effect in self._read(asked, is_final=True)]

    def on_timer(self, now: int) -> list[Effect]:
        self._timer_at = None
        expired = self._parked.expire(now) + self._uncommitted.expire(now)
        effects = [effect for asked in expired for effect in self._read(asked, is_final=True)]
        return effects + self._set_timer()

    def on_cancel(self, cancel: Received) -> list[Effect]:
        """Drop waiting fetches that the requester has cancelled. Their timer, if it is set, has no effect."""
        self._parked.cancel(cancel)
        self._uncommitted.cancel(cancel)
        return []

    def on_disconnected(self, connection: bytes) -> list[Effect]:
        self._parked.forget_connection(connection)
        self._uncommitted.forget_connection(connection)
        return []

    def send_away(self, error: ProtocolError) -> list[Effect]:
        """Fail all waiting fetches."""
        waiting = self._parked.drain() + self._uncommitted.drain() + [read.asked for read in self._searching]
        self._searching = []
        return [Reply(asked.sender, error.body) for asked in waiting]

    def _read(self, asked: Received, is_final: bool) -> list[Effect]:
        request, marks = fetch_of(asked), self._watermarks
        if not marks.log_start_offset <= request.offset <= marks.high_watermark:
            held = f"offsets {marks.log_start_offset} to {marks.high_watermark} (exclusive) are here"
            error = ProtocolError(ErrorCode.OFFSET_OUT_OF_RANGE, f"{held}, not {request.offset}")
            return [Reply(asked.sender, error.body)]
        end_offset = self._end_for(request)
        if request.offset >= end_offset:
            return [self._answer(asked, request.offset, [])]
        limit_bytes = MAX_INLINE_BYTES if wants_records(asked) else MAX_FRAME_BYTES
        return [Read(asked, min(request.max_bytes, limit_bytes), end_offset, is_final)]

    def _park(self, asked: Received, now: int, wake_at_bytes: int) -> list[Effect]:
        request = fetch_of(asked)
        parked = self._parked if request.isolation == "read_committed" else self._uncommitted
        evicted = parked.park(asked, now + request.max_wait_ms, wake_at_bytes)
        effects = [] if evicted is None else self._read(evicted, is_final=True)
        return effects + self._set_timer()

    def _set_timer(self) -> list[Effect]:
        """Set one timer, at or before the earliest deadline. A woken fetch leaves it set; it then has no effect."""
        deadlines = (self._parked.next_deadline(), self._uncommitted.next_deadline())
        deadline = min((at for at in deadlines if at is not None), default=None)
        if deadline is None or (self._timer_at is not None and self._timer_at <= deadline):
            return []
        self._timer_at = deadline
        return [SetTimer(PARKED_TIMER, deadline)]

    def _answer_inline(self, done: ReadDone) -> Reply:
        asked, request = done.read.asked, fetch_of(done.read.asked)
        try:
            records, next_offset = decode_for_json(
                done.batches,
                request.offset,
                request.max_records,
                request.max_bytes,
                done.next_offset,
                self._aborted(request, done.next_offset),
            )
        except ProtocolError as error:
            return Reply(asked.sender, error.body)
        return self._answer(asked, next_offset, [], records)

    def _answer(
        self, asked: Received, next_offset: int, payload: Payload, records: list[FetchedRecord] | None = None
    ) -> Reply:
        request, marks = fetch_of(asked), self._watermarks
        if records is None and wants_records(asked):
            records = []
        body = FetchReply(
            topic=request.topic,
            partition=request.partition,
            log_start_offset=marks.log_start_offset,
            high_watermark=marks.high_watermark,
            next_offset=next_offset,
            records=records,
            last_stable_offset=self.last_stable_offset,
            topic_id=self._topic_id,
            leader_epoch=self._leader_epoch,
        )
        if payload and (aborted := self._aborted(request, next_offset)):
            body.aborted = aborted
        return Reply(asked.sender, body, payload)

    def _aborted(self, request: Fetch, next_offset: int) -> list[AbortedTransaction]:
        if request.isolation != "read_committed":
            return []
        return self._transactions.aborted_between(request.offset, next_offset)


def fetch_of(asked: Received) -> Fetch:
    assert isinstance(asked.request, Fetch)
    return asked.request


def min_bytes(request: Fetch) -> int:
    """Return the number of bytes worth waking for: no more than may be returned."""
    return max(1, min(request.min_bytes, request.max_bytes))


def wants_records(asked: Received) -> bool:
    """True if the records go into the header: as requested, or by default as the requester's encoding suggests."""
    chosen = fetch_of(asked).format
    return chosen == "records" or (chosen is None and asked.sender.is_json)
