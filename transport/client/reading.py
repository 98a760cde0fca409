"""Bounded reads for programs: the points of the logs at which they begin and end, and the loop for threads.

Asks the broker for offsets and waits. `bounded.py` decides when a partition is finished. Called by `access.py`.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from msgspec import UNSET, Struct

from ..addresses import TopicPartition, partition_address
from ..protocol.data import Isolation, ListOffsets, ListOffsetsReply
from ..times import past_ms
from .bounded import BoundedRead, Part, Span
from .consumer import Consumer
from .messages import Message
from .network import Network
from .options import ConsumerOptions, InvalidOption, check_name, check_offset
from .schedule import milliseconds_at

Point: TypeAlias = str | datetime | timedelta | int | Mapping[int, int]
"""A point of a topic: "beginning", "now", a time, a duration before now, or an offset by partition."""

RECHECK_S = 2.0
"""Time without a message after which the ends of the logs are requested again."""
EARLIEST_MS = 100_000_000_000
"""The year 1973: a smaller number is taken for an offset, given in the wrong form."""


class Reading(Struct, frozen=True):
    """The arguments of `read`, checked."""

    topic: str
    since: Any
    """None: the beginning. Otherwise milliseconds since the epoch, or a dict of offsets."""
    until: Any
    """None: the end."""
    partitions: Sequence[int] | None
    isolation: Isolation
    request_timeout_ms: int

    @property
    def options(self) -> ConsumerOptions:
        return ConsumerOptions(
            auto_offset_reset="earliest",
            isolation=self.isolation,
            auto_commit=False,
            request_timeout_ms=self.request_timeout_ms,
        )

    def spans(self, network: Network) -> dict[TopicPartition, Span]:
        """Ask the broker for the offsets. Raises UnknownTopic, ProtocolError with UNKNOWN_PARTITION, TimedOut."""
        count = network.partitions_of(self.topic, self.request_timeout_ms)
        numbers = range(count) if self.partitions is None else self.partitions
        return {TopicPartition(self.topic, number): self._span(network, number) for number in numbers}

    def _span(self, network: Network, number: int) -> Span:
        # The end first: a message that is appended between the requests is then beyond it.
        last = self.ask(network, number, "latest")
        end = last.offset
        if isinstance(self.until, int):
            found = self.ask(network, number, self.until).offset
            end = end if found < 0 else min(found, end)
        elif self.until is not None:
            end = min(self.until.get(number, end), end)
        topic_id = None if last.topic_id is UNSET else last.topic_id
        if isinstance(self.since, int):
            found = self.ask(network, number, self.since).offset
            return Span(end if found < 0 else found, end, topic_id)
        return Span(None if self.since is None else self.since.get(number), end, topic_id)

    def ask(self, network: Network, number: int, at: Any) -> ListOffsetsReply:
        return network.call(
            partition_address(self.topic, number),
            ListOffsets(topic=self.topic, partition=number, at=at, isolation=self.isolation),
            ListOffsetsReply,
            timeout_ms=self.request_timeout_ms,
        )

    def lowered(self, network: Network, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Return these ends, or the present ones where a power failure has taken records since."""
        return {tp: min(end, self.ask(network, tp.partition, "latest").offset) for tp, end in ends.items()}


def reading(
    topic: str,
    since: Point,
    until: Point,
    partitions: Sequence[int] | None,
    isolation: Isolation,
    request_timeout_ms: int,
) -> Reading:
    """Check the arguments of `read`. Raises InvalidOption."""
    check_name("topic", topic)
    now_ms = time.time_ns() // 1_000_000
    if isolation not in ("read_committed", "read_uncommitted"):
        raise InvalidOption(f"isolation: {isolation!r} is unknown; choose read_committed or read_uncommitted")
    begin = None if since == "beginning" else _point("since", since, now_ms)
    end = None if until == "now" else _point("until", until, now_ms)
    for number in partitions or ():
        check_offset(number)
    return Reading(topic, begin, end, partitions, isolation, request_timeout_ms)


def _point(name: str, given: Any, now_ms: int) -> int | dict[int, int]:
    if isinstance(given, Mapping):
        for number, offset in given.items():
            check_offset(number)
            check_offset(offset)
        return dict(given)
    if isinstance(given, timedelta):
        return now_ms - given // timedelta(milliseconds=1)
    if isinstance(given, datetime):
        return milliseconds_at(given)
    if isinstance(given, int) and not isinstance(given, bool) and given >= EARLIEST_MS:
        return given
    found = now_ms if given == "now" else past_ms(given, now_ms) if isinstance(given, str) else None
    if found is None:
        ends = '"beginning"' if name == "since" else '"now"'
        raise InvalidOption(
            f"{name}: {given!r} is neither {ends}, a time (a datetime, milliseconds since 1970, text like"
            ' "2026-01-31T12:00"), a duration ("24h", a timedelta) nor offsets by partition, as in {0: 17}'
        )
    return found


def messages_of_spans(
    network: Network,
    what: Reading,
    spans: Mapping[TopicPartition, Span],
    keep: Callable[[Consumer], Consumer],
) -> Generator[Message, None, None]:
    """Yield the messages of a bounded read whose offsets are known."""
    read = BoundedRead(spans)
    if not read.starts:
        return
    with closing(keep(Consumer(network, options=what.options, starts=read.starts))) as consumer:
        while True:
            parts: list[Part] = consumer._poll(RECHECK_S, lambda: read.take(consumer._machine))
            for part in parts:
                yield from part.messages
                if part.is_last:
                    return
            if not parts:
                read.lower(what.lowered(network, read.ends))
