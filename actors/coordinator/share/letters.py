"""Dead records of a share group on their way to the dead-letter topic, a limited number from each partition. Pure.

Owns the copies in flight and the alarms. Must never write the dead letter of a record whose death is not durable: it
might be delivered again. The record is done only when its dead letter is durable; a copy repeated by a successor has
the dedup id of the first, so the dead-letter topic drops the duplicate. Called by serving.py.

    dead, durable --read from its partition--> dead letter --produced--> done
    no dead-letter topic configured            parked: stays dead, keeps its place, under an alarm
    it does not exist, or refuses              as parked, retried every REFUSED_MS
    a partition is offline                     retried every RETRY_MS
    retention has deleted the record           done: there is no record left to copy

The format is `transport/dead_letters.py`.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping

from msgspec import Struct

from ....transport.addresses import TopicPartition, partition_address
from ....transport.batch import Headers, InvalidBatch, split
from ....transport.dead_letters import DeadLetterHeaders, dead_letter_id, encode
from ....transport.deduplication import (
    identified_batch,
    identified_headers,
    partition_for_dedup_id,
)
from ....transport.fetched_records import decode_for_json
from ....transport.lineage import lineage_of
from ....transport.machine import Call, Effect, Event, Failed, Payload, SetTimer, TimerFired
from ....transport.partitioner import partition_for_key
from ....transport.protocol.data import Fetch, FetchedRecord, FetchReply, Produce, ProduceReply
from ....transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ....transport.protocol.topics import CatalogTopic
from .partition import Dead, SharePartition
from .records import ShareProgress, ShareSettings
from .spans import State
from .tails import RETRY_MS, SHARE

REFUSED_MS = 2_000
MAX_COPIES = 64
"""Most copies in flight from one partition: each end is recorded, and one record covers many ends."""
REASON = "not accepted within the allowed number of deliveries"


class _Copy(Struct, frozen=True):
    part: SharePartition
    dead: Dead


class Letters:
    def __init__(self, group: str, partitions: Mapping[TopicPartition, SharePartition]) -> None:
        self._group = group
        self._partitions = partitions
        self._durable: dict[TopicPartition, list[range]] = {}
        """Offsets whose death is durable."""
        self._copies: dict[tuple[TopicPartition, int], _Copy] = {}
        """Copies in flight by topic-partition and offset."""
        self._under_way: dict[TopicPartition, int] = {}
        self._refused: dict[TopicPartition, str] = {}

    @property
    def has_work(self) -> bool:
        return bool(self._durable or self._copies)

    def on_durable(self, tp: TopicPartition, progress: ShareProgress | None) -> None:
        found: list[range] = []
        position = progress.start if progress is not None else 0
        for count, state, _, _ in progress.runs if progress is not None else ():
            if state == State.DEAD:
                found.append(range(position, position + count))
            position += count
        if found:
            self._durable[tp] = found
        else:
            self._durable.pop(tp, None)
            self._refused.pop(tp, None)

    def alarms(self, settings: ShareSettings) -> tuple[str, ...]:
        told = []
        for tp, offsets in sorted(self._durable.items()):
            why = (
                "no dead-letter topic is configured"
                if settings.dead_letter is None
                else self._refused.get(tp)
            )
            if why is not None:
                count = sum(len(some) for some in offsets)
                told.append(
                    f"{tp[0]}/{tp[1]}: dead records wait, {count} of them, from offset {offsets[0][0]}: {why}"
                )
        return tuple(told[:10])

    def advance(self, settings: ShareSettings) -> list[Effect]:
        """Start the copies that can start."""
        if settings.dead_letter is None:
            return []
        effects: list[Effect] = []
        for tp, offsets in self._durable.items():
            part, under_way = self._partitions.get(tp), self._under_way.get(tp, 0)
            # Refill when half of them have ended: the search walks over all runs.
            if part is None or under_way > MAX_COPIES // 2:
                continue
            for dead in part.dead():
                if under_way >= MAX_COPIES:
                    break
                if (tp, dead.offset) not in self._copies and _is_in(dead.offset, offsets):
                    under_way += 1
                    self._copies[tp, dead.offset] = _Copy(part, dead)
                    effects.append(_read(tp, part, dead.offset))
            self._under_way[tp] = under_way
        return effects

    def handle(
        self,
        kind: str,
        tp: TopicPartition,
        offset: int,
        event: Event,
        now: int,
        settings: ShareSettings,
        find: Callable[[str], CatalogTopic | None],
    ) -> tuple[list[Effect], bool]:
        """Handle the answer or timer of a copy; return effects, and True if a record is done."""
        copy, part = self._copies[tp, offset], self._partitions.get(tp)
        if part is not copy.part or isinstance(event, TimerFired):
            self._end(tp, offset)
            return [], False
        if isinstance(event, Failed):
            if kind != "letter_read" or event.error.code != ErrorCode.OFFSET_OUT_OF_RANGE:
                return self._rest(tp, offset, event.error, now), False
        elif kind == "letter_read":
            try:
                found = _record_at(event.payload, copy.dead.offset)
            except (ProtocolError, InvalidBatch) as error:
                return self._rest(tp, offset, ErrorBody("CORRUPT_LOG", str(error)), now), False
            if found is not None:
                return self._produce(tp, copy, *found, now, settings, find), False
        else:
            refusal = event.reply.batches[0].error
            if refusal is not None:
                return self._rest(tp, offset, refusal, now), False
        copy.part.settle(copy.dead.offset, copy.dead.offset + 1)
        self._end(tp, offset)
        self._refused.pop(tp, None)
        return [], True

    def _end(self, tp: TopicPartition, offset: int) -> None:
        del self._copies[tp, offset]
        self._under_way[tp] -= 1

    def _produce(
        self,
        tp: TopicPartition,
        copy: _Copy,
        record: FetchedRecord,
        leader_epoch: int,
        now: int,
        settings: ShareSettings,
        find: Callable[[str], CatalogTopic | None],
    ) -> list[Effect]:
        topic, dead = settings.dead_letter, copy.dead
        entry = find(topic) if topic is not None else None
        if topic is None or entry is None:
            error = ErrorBody(ErrorCode.UNKNOWN_TOPIC, f"there is no topic {topic!r} for dead letters")
            return self._rest(tp, dead.offset, error, now)
        lineage = lineage_of(copy.part.topic_id, None)
        identity = dead_letter_id(self._group, tp, dead.offset, leader_epoch, lineage)
        headers = identified_headers(letter_headers(self._group, tp, dead, record, now), identity)
        if record.key is not None:
            partition = partition_for_key(record.key, entry.partitions)
        else:
            partition = partition_for_dedup_id(identity, entry.partitions)
        batch = identified_batch((record.key, record.value, 0, headers), now)
        request = Produce(topic=topic, partition=partition, acks="all")
        address = partition_address(topic, partition)
        return [Call((SHARE, "letter_write", tp, dead.offset), address, request, ProduceReply, (batch,))]

    def _rest(self, tp: TopicPartition, offset: int, error: ErrorBody, now: int) -> list[Effect]:
        if not error.retriable:
            self._refused[tp] = f"{error.code}: {error.message}"
        pause_ms = RETRY_MS if error.retriable else REFUSED_MS
        return [SetTimer((SHARE, "letter_again", tp, offset), now + pause_ms)]


def _is_in(offset: int, ranges: list[range]) -> bool:
    index = bisect_right(ranges, offset, key=lambda some: some.start) - 1
    return index >= 0 and offset in ranges[index]


def letter_headers(group: str, tp: TopicPartition, dead: Dead, record: FetchedRecord, now: int) -> Headers:
    failure = DeadLetterHeaders(
        topic=tp[0],
        partition=tp[1],
        offset=dead.offset,
        timestamp_ms=record.timestamp_ms,
        group=group,
        failures=dead.deliveries,
        deliveries=dead.deliveries,
        last_failure_ms=now,
        reason=dead.reason if dead.reason.strip() else REASON,
    )
    return encode(record.headers, failure)


def _read(tp: TopicPartition, part: SharePartition, offset: int) -> Call:
    request = Fetch(
        topic=tp[0],
        partition=tp[1],
        offset=offset,
        max_bytes=1,
        format="batches",
        topic_id=part.topic_id,
        leader_epoch=part.leader_epoch,
    )
    return Call((SHARE, "letter_read", tp, offset), partition_address(*tp), request, FetchReply)


def _record_at(payload: Payload, offset: int) -> tuple[FetchedRecord, int] | None:
    """Return the record and the leader epoch of its batch; None if the log holds no record there."""
    batches = b"".join(payload)
    found, _ = decode_for_json(batches, offset, 1, 1)
    if not found or found[0].offset != offset:
        return None
    [leader_epoch] = [header.leader_epoch for header, _ in split(batches) if offset < header.next_offset][:1]
    return found[0], leader_epoch
