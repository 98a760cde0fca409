"""Pages of pending messages, read from the log in the order in which they were scheduled. Pure.

Owns the pages that are being read. A page ends when it is full, after FETCHES_A_PAGE fetches, or at the log's end;
the next one continues there. Called by requests.py, which ensures that listed messages are durable.
"""

from collections.abc import Callable

from msgspec import Struct

from ...transport.addresses import Address, TopicPartition
from ...transport.batch import InvalidBatch
from ...transport.fetched_records import as_text
from ...transport.log_access.reader import Fetched, PartitionReader, StoredBatch
from ...transport.machine import Answered, Call, Failed, LoopEffect, Reply, Sender
from ...transport.protocol.delayed import ListScheduled, ListScheduledReply, ScheduledMessage, page_after
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ..journal.identity import start_of
from ..journal.room import check_share
from .pending_messages import Clocks, PendingMessages, digest_of, offset_of, wait_ms
from .records import Message, MessageKey, decode_key, decode_message

FETCH_BYTES = 1024 * 1024
FETCHES_A_PAGE = 4
PAGE_BYTES = 512 * 1024
"""Maximum bytes of keys and ids in one page."""
MAX_PAGES = 32
"""Maximum number of pages being read; shared by the connections (journal/room.py)."""


class PageCall(Struct, frozen=True):
    """The fetch of a page, by the page's number."""

    number: int


class Page(Struct, eq=False):
    sender: Sender
    request: ListScheduled
    reader: PartitionReader
    found: list[ScheduledMessage]
    size_bytes: int = 0
    fetches: int = 0
    next_offset: int | None = None
    """Offset at which the next page begins, when this one is full."""


class Listing:
    def __init__(
        self,
        address: Address,
        tp: TopicPartition,
        schedulers: int,
        pending: PendingMessages,
        reason_of: Callable[[str, Message], str | None],
        clocks_at: Callable[[int], Clocks],
    ) -> None:
        self._address = address
        self._tp = tp
        self._schedulers = schedulers
        self._pending = pending
        self._reason_of = reason_of
        self._clocks_at = clocks_at
        self._pages: dict[int, Page] = {}
        self._last_number = 0

    def begin(self, sender: Sender, request: ListScheduled, offset: int) -> list[LoopEffect]:
        """Begin a page. Raises ProtocolError."""
        own = sum(page.sender.route[0] == sender.route[0] for page in self._pages.values())
        check_share(own, len(self._pages), MAX_PAGES, "lists are being made")
        self._last_number += 1
        reader = PartitionReader(self._tp, offset, isolation="read_uncommitted")
        return [self._fetch(self._last_number, Page(sender, request, reader, []))]

    def handle(self, number: int, event: Answered | Failed, now: int) -> list[LoopEffect]:
        """Handle the outcome of a page's fetch."""
        page = self._pages.pop(number)
        if isinstance(event, Failed):
            return [Reply(page.sender, event.error)]
        partition = self._tp.partition
        fetched = page.reader.on_fetched(event.reply, event.payload)
        page.fetches += 1
        try:
            self._read(page, fetched, now)
        except InvalidBatch as error:
            return [Reply(page.sender, ProtocolError(ErrorCode.CORRUPT_LOG, str(error)).body)]
        if page.next_offset is not None:
            return [_reply(page, page_after(partition, page.next_offset))]
        if fetched.is_at_end:
            following = partition + 1
            return [_reply(page, page_after(following, 0) if following < self._schedulers else None)]
        if page.fetches >= FETCHES_A_PAGE:
            return [_reply(page, page_after(partition, fetched.next_offset))]
        return [self._fetch(number, page)]

    def _read(self, page: Page, fetched: Fetched, now: int) -> None:
        """Add the fetched messages to the page, until it is full."""
        for batch in fetched.batches():
            if start_of(self._address, batch.header) is None:
                continue
            for offset, message in self._messages(batch, page, fetched.offset, now):
                if len(page.found) >= page.request.limit or page.size_bytes >= PAGE_BYTES:
                    page.next_offset = offset
                    return
                page.found.append(message)
                page.size_bytes += len(message.key or b"") + 300

    def _messages(
        self, batch: StoredBatch, page: Page, first_offset: int, now: int
    ) -> list[tuple[int, ScheduledMessage]]:
        found: list[tuple[int, ScheduledMessage]] = []
        for offset, (key, value, _, _) in enumerate(batch.records(), batch.header.base_offset):
            decoded = decode_key(key or b"")
            if offset < first_offset or value is None or not isinstance(decoded, MessageKey):
                continue
            entry = self._pending.find(digest_of(decoded.scheduled_id))
            if entry is None or offset_of(entry) != offset:
                continue
            message = decode_message(value)
            if page.request.topic in (None, message.topic):
                found.append((offset, self._described(decoded.scheduled_id, message, entry, now)))
        return found

    def _described(self, scheduled_id: str, message: Message, entry: int, now: int) -> ScheduledMessage:
        clocks = self._clocks_at(now)
        left_ms = wait_ms(entry, clocks)
        return ScheduledMessage(
            scheduled_id=scheduled_id,
            topic=message.topic,
            partition=message.partition,
            key=message.key,
            key_text=as_text(message.key),
            deliver_at_ms=clocks.wall_ms + left_ms,
            scheduled_at_ms=message.scheduled_at_ms,
            size_bytes=message.size_bytes,
            reason=self._reason_of(scheduled_id, message) if left_ms <= 0 else None,
        )

    def _fetch(self, number: int, page: Page) -> Call:
        self._pages[number] = page
        return page.reader.fetch(PageCall(number), max_bytes=FETCH_BYTES)


def _reply(page: Page, following: str | None) -> Reply:
    return Reply(page.sender, ListScheduledReply(messages=page.found, next=following))
