"""The copy of one partition: fetches from the source, and appends here. Pure; called by the mirror's machine.

    state       means                                             left by
    asking      the partition here is asked where it ends         its end -> fetching; an error -> waiting
    fetching    one fetch of the source is in flight              batches -> appending, and fetching the next ones
    appending   batches are on their way to the partition here    held there -> the next batches; refused -> asking
    bounding    the source has refused the offset: its first      the first lies after it -> fetching there
                and last offset are asked for                     it lies after the last -> faulted
    waiting     a pause after an error, or the rate is used up    GoOnTimer -> asking or fetching
    faulted     the source is not the one that was copied         for good; the controller stores it
    left        the partition here follows no longer              for good; the next listing decides

Fetching and appending overlap: one fetch and one append at a time, and one answer that waits for the append before it.
Invariants: batches are appended in the order of the source, each once, at the end that the partition here has named;
nothing is ever fetched beyond the source's high watermark; a source that has lost copied records is a fault, and never
a reason to start again.
"""

from typing import Literal, TypeAlias

from ...transport.addresses import TopicPartition, partition_address
from ...transport.batch import InvalidBatch, split
from ...transport.machine import Call, Payload, SetTimer
from ...transport.protocol.data import Fetch, FetchReply, ListOffsets, ListOffsetsReply
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.mirrors import MirrorAppend, MirrorAppendReply, PartitionLag
from .effects import AskSource, Effect
from .keys import AppendKey, BoundsKey, FetchKey, GoOnTimer
from .rate import Rate

State: TypeAlias = Literal["asking", "copying", "bounding", "waiting", "faulted", "left"]
FETCH_WAIT_MS = 5_000
FETCH_BYTES = 4 * 1024 * 1024
SOURCE_TIMEOUT_MS = 10_000
APPEND_TIMEOUT_MS = 10_000
FIRST_PAUSE_MS = 50
LONGEST_PAUSE_MS = 1_000
_GONE = frozenset({ErrorCode.UNKNOWN_TOPIC, ErrorCode.UNKNOWN_PARTITION})
GONE_LIMIT = 3
"""Answers in a row by which the source's topic is gone: while a broker starts, one may be premature."""


class Copying:
    def __init__(self, partition: TopicPartition, topic_id: str, rate: Rate) -> None:
        self.partition = partition
        self.topic_id = topic_id
        self.state: State = "asking"
        self.fault = ""
        self.error = ""
        """The last error, until something has been copied again."""
        self.log_end_offset = -1
        """Everything below it is held here."""
        self.source_high_watermark = -1
        self.skipped = 0
        self.copied_bytes = 0
        self._rate = rate
        self._position = -1
        """The next offset to fetch."""
        self._last_epoch = -1
        """Leader epoch of the last batch before it."""
        self._number = 0
        self._fetch: FetchKey | None = None
        self._append: AppendKey | None = None
        self._held: tuple[FetchReply, Payload, int] | None = None
        """An answer that waits for the append before it, with its size."""
        self._start_offset = 0
        self._failures = self._gone = 0
        self._behind_since: int | None = None

    # -- figures

    def lag(self, now: int) -> PartitionLag:
        lag_bytes = self._held[2] if self._held is not None else 0
        behind_ms = -1
        if self.source_high_watermark >= 0:
            behind_ms = 0 if self._behind_since is None else now - self._behind_since
        return PartitionLag(
            partition=self.partition.partition,
            log_end_offset=self.log_end_offset,
            source_high_watermark=self.source_high_watermark,
            lag_bytes=lag_bytes,
            behind_ms=behind_ms,
            skipped=self.skipped,
        )

    def _measure(self, now: int) -> None:
        """Note since when the copy has been incomplete."""
        if self.log_end_offset >= self.source_high_watermark:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = now

    # -- going on

    def go_on(self, now: int) -> list[Effect]:
        """Ask the partition here where it ends, which begins everything again."""
        self._fetch = self._append = self._held = None
        self.state = "asking"
        return [self._call(self._request(-1), ())]

    def on_timer(self, now: int) -> list[Effect]:
        if self.state == "waiting":
            return self.go_on(now)
        return self._next_fetch(now) if self.state == "copying" else []

    def _pause(self, error: ErrorBody, now: int) -> list[Effect]:
        self._fetch = self._append = self._held = None
        self.state, self.error = "waiting", f"{error.code}: {error.message}"
        pause_ms = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS << min(self._failures, 10))
        self._failures += 1
        return [SetTimer(GoOnTimer(self.partition), now + pause_ms)]

    def stop(self) -> None:
        """Copy no more: another partition of the topic has met a fault."""
        self._fetch = self._append = self._held = None
        self.state = "faulted"

    def _fail(self, reason: str) -> list[Effect]:
        self._fetch = self._append = self._held = None
        self.state, self.fault = "faulted", f"partition {self.partition.partition}: {reason}"
        return []

    # -- the source

    def _next_fetch(self, now: int) -> list[Effect]:
        if self._fetch is not None or self._held is not None:
            return []
        at = self._rate.free_at(now)
        if at > now:
            return [SetTimer(GoOnTimer(self.partition), at)]
        self._number += 1
        self._fetch = FetchKey(self.partition, self._number)
        request = Fetch(
            topic=self.partition.topic,
            partition=self.partition.partition,
            offset=self._position,
            max_bytes=FETCH_BYTES,
            max_wait_ms=FETCH_WAIT_MS,
            format="batches",
            isolation="read_uncommitted",
            topic_id=self.topic_id,
            leader_epoch=self._last_epoch if self._last_epoch >= 0 else None,
        )
        return [AskSource(self._fetch, request, FetchReply, FETCH_WAIT_MS + SOURCE_TIMEOUT_MS)]

    def on_fetched(self, key: FetchKey, reply: FetchReply, payload: Payload, now: int) -> list[Effect]:
        if key != self._fetch:
            return []
        self._fetch, self._gone = None, 0
        self.source_high_watermark = max(reply.high_watermark, self._position)
        self._measure(now)
        size_bytes = sum(map(len, payload))
        self._rate.take(size_bytes, now)
        if not size_bytes:
            self._failures, self.error = 0, ""
            # The partition learns the source's ends also while nothing is written there: a promotion names them.
            heard = self._append_now(reply, payload, 0) if self._append is None else []
            return [*heard, *self._next_fetch(now)]
        if self._append is not None:
            self._held = (reply, payload, size_bytes)
            return []
        return [*self._append_now(reply, payload, size_bytes), *self._next_fetch(now)]

    def on_source_failed(self, key: FetchKey | BoundsKey, error: ErrorBody, now: int) -> list[Effect]:
        if key != self._fetch and not (self.state == "bounding" and key.number == self._number):
            return []
        if error.code == ErrorCode.UNKNOWN_TOPIC_ID:
            found = error.topic_id
            return self._fail(
                f"the source's topic was created again: {self.topic_id} was copied, it is {found} now"
            )
        if error.code == ErrorCode.LOG_TRUNCATED:
            return self._fail(
                f"the source has lost records that were copied: here up to {self._position}, there another log from"
                f" {error.next_offset} on"
            )
        if error.code in _GONE:
            self._gone += 1
            if self._gone >= GONE_LIMIT:
                return self._fail(f"the source no longer has this partition: {error.message}")
        if error.code == ErrorCode.OFFSET_OUT_OF_RANGE and isinstance(key, FetchKey) and self._append is None:
            return self._bound(is_start=True)
        return self._pause(error, now)

    def _bound(self, *, is_start: bool) -> list[Effect]:
        self._fetch, self.state = None, "bounding"
        self._number += 1
        request = ListOffsets(
            topic=self.partition.topic,
            partition=self.partition.partition,
            at="earliest" if is_start else "latest",
        )
        key = BoundsKey(self.partition, self._number, is_start)
        return [AskSource(key, request, ListOffsetsReply, SOURCE_TIMEOUT_MS)]

    def on_bounds(self, key: BoundsKey, reply: ListOffsetsReply, now: int) -> list[Effect]:
        if self.state != "bounding" or key.number != self._number:
            return []
        if reply.topic_id != self.topic_id:
            return self._fail(
                f"the source's topic was created again: {self.topic_id} was copied, it is {reply.topic_id} now"
            )
        if key.is_start:
            if reply.offset <= self._position:
                return self._bound(is_start=False)
            # An empty copy begins where the source begins.
            self.skipped += reply.offset - self._position if self.log_end_offset > self._start_offset else 0
            self._position, self.state = reply.offset, "copying"
            return self._next_fetch(now)
        if reply.offset < self._position:
            return self._fail(
                f"the source has lost records that were copied: it ends at {reply.offset}, the copy at {self._position}"
            )
        self.state = "copying"
        return self._next_fetch(now)

    # -- the partition here

    def _request(
        self, offset: int, high_watermark: int = -1, start_offset: int = 0, leader_epoch: int = -1
    ) -> MirrorAppend:
        topic, partition = self.partition
        return MirrorAppend(
            topic=topic,
            topic_id=self.topic_id,
            partition=partition,
            offset=offset,
            source_high_watermark=high_watermark,
            source_start_offset=start_offset,
            source_leader_epoch=leader_epoch,
        )

    def _call(self, request: MirrorAppend, payload: Payload) -> Call:
        self._number += 1
        self._append = AppendKey(self.partition, self._number)
        return Call(
            self._append,
            partition_address(*self.partition),
            request,
            MirrorAppendReply,
            payload=payload,
            timeout_ms=APPEND_TIMEOUT_MS,
        )

    def _append_now(self, reply: FetchReply, payload: Payload, size_bytes: int) -> list[Effect]:
        try:
            headers = [header for frame in payload for header, _ in split(frame)]
        except InvalidBatch as error:
            return self._fail(f"the source sent a batch that cannot be read: {error}")
        epoch = reply.leader_epoch if isinstance(reply.leader_epoch, int) else -1
        request = self._request(self.log_end_offset, reply.high_watermark, reply.log_start_offset, epoch)
        if headers:
            self._position, self._last_epoch = headers[-1].next_offset, headers[-1].leader_epoch
        self.copied_bytes += size_bytes
        return [self._call(request, payload)]

    def on_appended(self, key: AppendKey, reply: MirrorAppendReply, now: int) -> list[Effect]:
        if key != self._append:
            return []
        self._append = None
        self._start_offset, self.log_end_offset = reply.log_start_offset, reply.log_end_offset
        self._measure(now)
        if self.state == "asking":
            self.state = "copying"
            self._position, self._last_epoch = reply.log_end_offset, reply.last_epoch
            return self._next_fetch(now)
        self._failures, self.error = 0, ""
        held, self._held = self._held, None
        effects = [] if held is None else self._append_now(*held)
        return [*effects, *self._next_fetch(now)]

    def on_append_failed(self, key: AppendKey, error: ErrorBody, now: int) -> list[Effect]:
        if key != self._append:
            return []
        if error.code in (ErrorCode.NOT_MIRRORED, ErrorCode.UNKNOWN_TOPIC_ID):
            self._fetch = self._append = self._held = None
            self.state, self.error = "left", error.message
            return []
        return self._pause(error, now)
