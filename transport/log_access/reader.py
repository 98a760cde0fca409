"""The position of one reader in the log of one partition, its requests, and the records in their replies. Pure.

Owns the position: an offset, the id of the topic that the offset belongs to, and the leader epoch under which it was
reached. Topic id and leader epoch travel with each fetch, so a partition refuses to continue in another topic of the
name, or behind records that it has lost. Must never move past a batch that it did not return. The owner of a reader
sends one request at a time and decides the meaning of a refusal; retriable ones leave the position as it is.

    outcome                 offset                    topic id              leader epoch
    fetch answered          `next_offset`             the reply's           the reply's
    list_offsets answered   the one found             the reply's, if new   the reply's; unknown if it has none
    LOG_TRUNCATED           the end of what is left   kept                  unknown
    seek                    the given one             kept                  unknown

Batches are returned as the leader stores them, unopened: a reader that copies the log appends them as they are, others
open those that concern them. Called by the client's machines and the actors'.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import UNSET, Struct

from ..addresses import Address, TopicPartition, partition_address
from ..batch import BatchHeader, Record, decode_records, split, verify_stored
from ..compression import Buffer
from ..machine import Call
from ..protocol.data import Fetch, FetchReply, Isolation, ListOffsets, ListOffsetsReply
from ..protocol.errors import ErrorBody

REQUEST_TIMEOUT_MS = 5_000


class StoredBatch(NamedTuple):
    """A batch as it lies on the leader's disk. Nothing of it has been checked."""

    header: BatchHeader
    frame: memoryview

    def verify(self) -> None:
        """Check head and body against their checksums. Raises InvalidBatch."""
        verify_stored(self.frame)

    def records(self) -> list[Record]:
        """Verify the batch and decode its records. Raises InvalidBatch and CodecUnavailable."""
        self.verify()
        return decode_records(self.frame, self.header)


class Fetched(NamedTuple):
    """The reply to a fetch: runs of whole batches from the position before it to the one after it."""

    offset: int
    """The position before. The first batch may begin earlier."""
    next_offset: int
    frames: Sequence[Buffer]
    is_at_end: bool
    """True if the log had no more to read when it answered."""
    aborted: frozenset[tuple[int, int]] = frozenset()
    """Producer ids and epochs of the aborted transactions in it."""

    @property
    def has_moved(self) -> bool:
        """Return True if the position has moved, perhaps past a gap that compaction has left."""
        return self.next_offset > self.offset

    def batches(self) -> Iterator[StoredBatch]:
        """Yield the batches that end behind the position before. Raises InvalidBatch as `batches_from` does."""
        return batches_from(self.offset, self.frames)


def batches_from(offset: int, frames: Iterable[Buffer]) -> Iterator[StoredBatch]:
    """Yield the batches in these runs that end behind the offset. Raises InvalidBatch if their lengths are impossible."""
    for frame in frames:
        for header, batch in split(frame):
            if header.next_offset > offset:
                yield StoredBatch(header, batch)


class PartitionReader(Struct, eq=False):
    tp: TopicPartition
    offset: int | None = None
    """The next offset to read; None until it is located."""
    topic_id: str | None = None
    """Id of the topic that the offset belongs to; None: any topic of the name."""
    leader_epoch: int | None = None
    """Leader epoch under which the offset was reached, if known."""
    isolation: Isolation = "read_committed"

    @property
    def address(self) -> Address:
        return partition_address(*self.tp)

    def fetch(
        self,
        key: Any,
        *,
        max_bytes: int,
        min_bytes: int = 1,
        max_wait_ms: int = 0,
        request_timeout_ms: int = REQUEST_TIMEOUT_MS,
        is_retried: bool = False,
        is_endless: bool = False,
    ) -> Call:
        """Return the request for the batches at the position; it waits up to `max_wait_ms` for `min_bytes` of them."""
        assert self.offset is not None, "the position has been located"
        topic, partition = self.tp
        request = Fetch(
            topic=topic,
            partition=partition,
            offset=self.offset,
            max_bytes=max_bytes,
            min_bytes=min_bytes,
            max_wait_ms=max_wait_ms,
            format="batches",
            isolation=self.isolation,
            topic_id=self.topic_id,
            leader_epoch=self.leader_epoch,
        )
        return Call(
            key,
            self.address,
            request,
            FetchReply,
            timeout_ms=max_wait_ms + request_timeout_ms,
            is_retried=is_retried,
            is_endless=is_endless,
        )

    def on_fetched(self, reply: FetchReply, frames: Sequence[Buffer]) -> Fetched:
        """Move behind the batches fetched."""
        assert self.offset is not None
        before, self.offset = self.offset, max(self.offset, reply.next_offset)
        if reply.topic_id is not UNSET:
            self.topic_id = reply.topic_id
        if reply.leader_epoch is not UNSET:
            self.leader_epoch = reply.leader_epoch
        is_committed = self.isolation == "read_committed" and reply.last_stable_offset >= 0
        end = reply.last_stable_offset if is_committed else reply.high_watermark
        aborted = () if reply.aborted is UNSET else reply.aborted
        left_out = frozenset((each.producer_id, each.producer_epoch) for each in aborted)
        return Fetched(before, self.offset, frames, self.offset >= end, left_out)

    def locate(
        self,
        key: Any,
        at: Literal["earliest", "latest"] | int,
        *,
        request_timeout_ms: int = REQUEST_TIMEOUT_MS,
        is_retried: bool = False,
        is_endless: bool = False,
    ) -> Call:
        """Return the request for the offset at a point of the log; `on_located` takes its reply."""
        topic, partition = self.tp
        request = ListOffsets(topic=topic, partition=partition, at=at, isolation=self.isolation)
        return Call(
            key,
            self.address,
            request,
            ListOffsetsReply,
            timeout_ms=request_timeout_ms,
            is_retried=is_retried,
            is_endless=is_endless,
        )

    def on_located(self, reply: ListOffsetsReply) -> int:
        """Move to the offset found, and return it."""
        if self.topic_id is None and reply.topic_id is not UNSET:
            self.topic_id = reply.topic_id
        self.seek(reply.offset, None if reply.leader_epoch is UNSET else reply.leader_epoch)
        return reply.offset

    def on_truncated(self, error: ErrorBody) -> int:
        """Move to the records that replaced those lost (LOG_TRUNCATED), and return the position before."""
        assert self.offset is not None
        assert error.next_offset is not UNSET
        before = self.offset
        self.seek(error.next_offset)
        return before

    def seek(self, offset: int | None, leader_epoch: int | None = None) -> None:
        """Move to an offset that was not reached by reading on. Without an epoch its origin is unknown."""
        self.offset, self.leader_epoch = offset, leader_epoch
