"""How far the groups are behind, in messages and in seconds. Pure.

Messages are counted from the coordinators' and the partitions' reports alone. The age of the oldest unread message is
the timestamp of that record: it is read from the partition, once for each position, and only while it is unread. A
partition that is led by another node reports nothing here, so its fetch answers for both.

Owns the timestamps known, and the fetches of the present look, MAX_AT_ONCE at a time. Called by looks.py.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from msgspec import Struct

from ...transport.addresses import TopicPartition, partition_address
from ...transport.machine import Answered, Call, Failed, LoopEffect
from ...transport.protocol.data import Fetch, FetchReply
from ...transport.protocol.operations import GroupPosition, LogReport
from .totals import SeenActor

MAX_AT_ONCE = 32
MAX_TRIES = 20
"""Fetches that may find nothing but aborted records before the age is unknown."""
TIMEOUT_MS = 2_000


class LagCall(Struct, frozen=True):
    """The fetch of the oldest unread record of a group's partition."""

    group: str
    tp: TopicPartition
    number: int
    """Counts looks: a late answer to an earlier one is ignored."""


class GroupLag(Struct):
    """A group's place in one partition."""

    group: str
    tp: TopicPartition
    offset: int
    """The first unread offset."""
    done: int
    """Number of records after it that are done."""
    end_offset: int | None = None
    """None while it is unknown."""
    oldest_ms: int | None = None
    """Timestamp of the first unread record, ms since the epoch; None if it is unknown, or there is none."""
    tries: int = 0
    search_offset: int | None = None
    """Offset at which the search for it continues, past aborted records."""

    @property
    def messages(self) -> int | None:
        return None if self.end_offset is None else max(0, self.end_offset - self.offset - self.done)


class Lags:
    def __init__(self) -> None:
        self._known: dict[tuple[str, TopicPartition], tuple[int, int]] = {}
        """Offset and timestamp of the first unread record."""
        self.lags: list[GroupLag] = []
        self._asked: dict[LagCall, GroupLag] = {}
        self._left: deque[GroupLag] = deque()
        self._number = 0

    @property
    def is_done(self) -> bool:
        return not self._asked and not self._left

    def begin(self, actors: Iterable[SeenActor]) -> list[LoopEffect]:
        """Begin a look; it is done when the answers are there, or `give_up` is called."""
        actors = list(actors)
        ends = dict(_ends(actors))
        self._number += 1
        self._asked = {}
        self._left = deque()
        self.lags = [
            _lag(actor.report.group.positions[index], actor.address.name, ends)
            for actor in actors
            if actor.report.group is not None
            for index in range(len(actor.report.group.positions))
        ]
        kept = {}
        for lag in self.lags:
            known = self._known.get((lag.group, lag.tp))
            if known is not None and known[0] == lag.offset:
                kept[lag.group, lag.tp] = known
                lag.oldest_ms = known[1]
            elif lag.messages is None or lag.messages > 0:
                self._left.append(lag)
        self._known = kept
        return self._ask()

    def handle(self, event: Answered | Failed) -> list[LoopEffect]:
        lag = self._asked.pop(event.key, None)
        if lag is None:
            return []
        if isinstance(event, Answered):
            self._on_answer(lag, event.reply)
        return self._ask()

    def give_up(self) -> None:
        self._asked, self._left = {}, deque()

    def _on_answer(self, lag: GroupLag, reply: FetchReply) -> None:
        lag.end_offset = reply.high_watermark
        if reply.records:
            lag.oldest_ms = reply.records[0].timestamp_ms
            self._known[lag.group, lag.tp] = lag.offset, lag.oldest_ms
        elif reply.next_offset > _from(lag) and lag.tries < MAX_TRIES:
            lag.tries += 1
            lag.search_offset = reply.next_offset
            self._left.append(lag)

    def _ask(self) -> list[LoopEffect]:
        effects: list[LoopEffect] = []
        while self._left and len(self._asked) < MAX_AT_ONCE:
            lag = self._left.popleft()
            call = LagCall(lag.group, lag.tp, self._number)
            self._asked[call] = lag
            request = Fetch(
                topic=lag.tp.topic,
                partition=lag.tp.partition,
                offset=_from(lag),
                max_bytes=1,
                max_records=1,
                format="records",
            )
            effects.append(Call(call, partition_address(*lag.tp), request, FetchReply, timeout_ms=TIMEOUT_MS))
        return effects


def _from(lag: GroupLag) -> int:
    return lag.offset if lag.search_offset is None else lag.search_offset


def _lag(position: GroupPosition, group: str, ends: dict[TopicPartition, LogReport]) -> GroupLag:
    tp = TopicPartition(position.topic, position.partition)
    found = ends.get(tp)
    if found is None:
        return GroupLag(group, tp, position.offset, position.done)
    return GroupLag(
        group, tp, max(position.offset, found.log_start_offset), position.done, found.high_watermark
    )


def _ends(actors: Iterable[SeenActor]) -> Iterator[tuple[TopicPartition, LogReport]]:
    for actor in actors:
        log, number = actor.report.log, actor.address.number
        if log is not None and log.role == "leader" and actor.topic is not None and number is not None:
            yield TopicPartition(actor.topic, number), log
