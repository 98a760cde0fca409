"""Pages of pending messages, read from the log in the order in which they were scheduled. Pure.

Owns the pages that are being read. A page ends when it is full, after FETCHES_A_PAGE fetches, or at the log's end;
the next one continues there. Called by requests.py, which ensures that listed messages are durable.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import Struct

from ...transport.addresses import partition_address
from ...transport.batch import BatchHeader, InvalidBatch, decode_records, split, verify
from ...transport.compression import Buffer
from ...transport.fetched_records import as_text
from ...transport.machine import Answered, Call, Failed, LoopEffect, Reply, Sender
from ...transport.protocol.data import Fetch, FetchReply
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


class Page(NamedTuple):
    sender: Sender
    request: ListScheduled
    offset: int
    found: list[ScheduledMessage]
    size_bytes: int = 0
    fetches: int = 0


class Listing:
    def __init__(
        self,
        address: str,
        topic: str,
        partition: int,
        schedulers: int,
        pending: PendingMessages,
        reason_of: Callable[[str, Message], str | None],
        clocks_at: Callable[[int], Clocks],
    ) -> None:
        self._address = address
        self._topic = topic
        self._partition = partition
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
        return [self._fetch(self._last_number, Page(sender, request, offset, []))]

    def handle(self, number: int, event: Answered | Failed, now: int) -> list[LoopEffect]:
        """Handle the outcome of a page's fetch."""
        page = self._pages.pop(number)
        if isinstance(event, Failed):
            return [Reply(page.sender, event.error)]
        try:
            page, is_full = self._read(page, event.payload, now)
        except InvalidBatch as error:
            return [Reply(page.sender, ProtocolError(ErrorCode.CORRUPT_LOG, str(error)).body)]
        if is_full:
            return [_reply(page, page_after(self._partition, page.offset))]
        reached = max(page.offset, event.reply.next_offset)
        page = page._replace(offset=reached, fetches=page.fetches + 1)
        if reached >= event.reply.high_watermark:
            following = self._partition + 1
            return [_reply(page, page_after(following, 0) if following < self._schedulers else None)]
        if page.fetches >= FETCHES_A_PAGE:
            return [_reply(page, page_after(self._partition, page.offset))]
        return [self._fetch(number, page)]

    def _read(self, page: Page, payload: Sequence[Buffer], now: int) -> tuple[Page, bool]:
        """Add the fetched messages to the page; return it, and True if it is full (its offset is the next to read)."""
        for frame in payload:
            for header, batch in split(frame):
                if header.next_offset <= page.offset or start_of(self._address, header) is None:
                    continue
                for offset, message in self._messages(header, batch, page, now):
                    is_full = len(page.found) >= page.request.limit or page.size_bytes >= PAGE_BYTES
                    if is_full:
                        return page._replace(offset=offset), True
                    page.found.append(message)
                    page = page._replace(size_bytes=page.size_bytes + len(message.key or b"") + 300)
        return page, False

    def _messages(
        self, header: BatchHeader, batch: Buffer, page: Page, now: int
    ) -> list[tuple[int, ScheduledMessage]]:
        verify(batch)
        found: list[tuple[int, ScheduledMessage]] = []
        for offset, (key, value, _, _) in enumerate(decode_records(batch, header), header.base_offset):
            decoded = decode_key(key or b"")
            if offset < page.offset or value is None or not isinstance(decoded, MessageKey):
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
        request = Fetch(
            topic=self._topic,
            partition=self._partition,
            offset=page.offset,
            max_bytes=FETCH_BYTES,
            format="batches",
        )
        return Call(PageCall(number), partition_address(self._topic, self._partition), request, FetchReply)


def _reply(page: Page, following: str | None) -> Reply:
    return Reply(page.sender, ListScheduledReply(messages=page.found, next=following))
