"""Publishing single records: choose partitions, build batches, gather the answers in the records' order. Pure.

A record with a key goes to crc32(key) % partitions; all records of a request without one go to one partition that is
up, the next one with each request. Not idempotent: after TIMED_OUT or the death of a partition the outcome is
unknown, and a client that repeats may publish twice, unless its records have a `dedup_id`. Such a record is sent in a
batch of its own; without a key its dedup id determines the partition. Producers of batches have sequences. A record
with a time of delivery goes to a scheduler instead (delays.py).
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from ...transport.addresses import partition_address, scheduler_address
from ...transport.batch import HEADER_BYTES, Record, build
from ...transport.deduplication import (
    dedup_id_fault,
    identified_batch,
    identified_headers,
    partition_for_dedup_id,
)
from ...transport.future import latest_ms, too_far_ahead
from ...transport.machine import Call, Effect
from ...transport.partitioner import partition_for_key
from ...transport.protocol.data import (
    Expected,
    Produce,
    ProduceReply,
    Publish,
    PublishedRecord,
    PublishRecord,
    PublishReply,
)
from ...transport.protocol.delayed import Schedule, ScheduleRecord, ScheduleReply, scheduler_of
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.topics import CatalogTopic
from ...transport.request_context import RequestContext
from .delays import check_fits, check_time, is_delayed
from .keys import PublishCall, ScheduleCall
from .peers import Peers
from .routes import PRODUCE_TIMEOUT_MS
from .tickets import Tickets
from .waiting import Attempt

MAX_BATCHES_PER_CALL = 128
RECORD_OVERHEAD_BYTES = 32
"""More than MessagePack needs around a record's key, value and timestamp; each header adds 10."""


class Row(Struct, frozen=True):
    """A record ready for a batch, and its position in the request."""

    index: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, str] | None
    timestamp_ms: int
    dedup_id: str | None = None
    expected: Expected | None = None

    @property
    def is_alone(self) -> bool:
        """True if it is the only record of its batch."""
        return self.dedup_id is not None or self.expected is not None

    @property
    def size_bytes(self) -> int:
        """Return an upper bound of its size in a batch."""
        size = RECORD_OVERHEAD_BYTES + len(self.key or b"") + len(self.value or b"")
        for name, value in (self.headers or {}).items():
            size += 10 + len(name.encode()) + len(value.encode())
        return size


class _Publication:
    """A request whose batches are in flight, and whose delayed records."""

    def __init__(self, results: list[PublishedRecord | None], context: RequestContext) -> None:
        self.results = results
        self.context = context
        self.calls: dict[int, tuple[int, list[list[Row]]]] = {}
        """Partition and the rows of each batch, by call."""
        self.schedules: dict[int, list[tuple[int, str]]] = {}
        """Positions and ids of the records given to a scheduler, by scheduler."""


class Publisher:
    def __init__(self, tickets: Tickets, peers: Peers) -> None:
        self._tickets = tickets
        self._peers = peers
        self.wall_offset_ms = 0
        """The lead of the machine's wall clock over `now`: timestamps of records are wall-clock times."""
        self._open: dict[int, _Publication] = {}
        self._turns: dict[str, int] = {}
        """Number of requests with records without a key, by topic."""

    def on_publish(
        self,
        attempt: Attempt,
        request: Publish,
        entry: CatalogTopic,
        ids: Mapping[int, str],
        schedulers: int,
        now: int,
    ) -> list[Effect]:
        """Begin a publish; `ids` are those of its delayed records, by position. Raises ProtocolError when the request is
        invalid as a whole."""
        number = attempt.number
        wall = now + self.wall_offset_ms
        for index, record in enumerate(request.records):
            check_time(index, record, wall)
        rows = [to_row(index, record, wall) for index, record in enumerate(request.records)]
        publication = _Publication([None] * len(rows), attempt.context)
        last_ms = latest_ms(max(now, wall), entry.max_timestamp_ahead_ms)
        for row in rows:
            if row.timestamp_ms > last_ms:
                error = too_far_ahead(row.timestamp_ms, last_ms)
                publication.results[row.index] = PublishedRecord(-1, -1, error)
        fit = [row for row in rows if publication.results[row.index] is None and row.index not in ids]
        by_partition = self._by_partition(fit, request, entry)
        effects = self._schedule(number, publication, request, rows, entry, ids, schedulers) if ids else []
        for partition, share in by_partition.items():
            fitting = self._refuse_too_large(publication, partition, share, entry)
            batches = gather(fitting, entry.max_message_bytes)
            for start in range(0, len(batches), MAX_BATCHES_PER_CALL):
                part = batches[start : start + MAX_BATCHES_PER_CALL]
                effects.append(self._call(number, publication, partition, part, request))
        self._open[number] = publication
        return effects + self._finish_if_complete(number)

    def on_answered(self, key: PublishCall, reply: ProduceReply) -> list[Effect]:
        publication = self._open[key.ticket]
        partition, batches = publication.calls.pop(key.call)
        missing = ErrorBody(ErrorCode.INVALID_REQUEST, "the partition did not answer for this record")
        for position, rows in enumerate(batches):
            result = reply.batches[position] if position < len(reply.batches) else None
            error = missing if result is None else result.error
            for tp, row in enumerate(rows):
                offset = -1 if result is None or error is not None else result.base_offset + tp
                publication.results[row.index] = PublishedRecord(
                    partition, offset, error, duplicate=result is not None and result.duplicate
                )
        return self._finish_if_complete(key.ticket)

    def on_scheduled(self, key: ScheduleCall, reply: ScheduleReply) -> list[Effect]:
        publication = self._open[key.ticket]
        named = publication.schedules.pop(key.scheduler)
        for (index, scheduled_id), result in zip(named, reply.results, strict=True):
            publication.results[index] = PublishedRecord(
                -1, -1, result.error, duplicate=result.duplicate, scheduled_id=scheduled_id
            )
        return self._finish_if_complete(key.ticket)

    def on_not_scheduled(self, key: ScheduleCall, error: ErrorBody) -> list[Effect]:
        publication = self._open[key.ticket]
        for index, scheduled_id in publication.schedules.pop(key.scheduler):
            publication.results[index] = PublishedRecord(-1, -1, error, scheduled_id=scheduled_id)
        return self._finish_if_complete(key.ticket)

    def on_failed(self, key: PublishCall, error: ErrorBody) -> list[Effect]:
        publication = self._open[key.ticket]
        partition, batches = publication.calls.pop(key.call)
        for rows in batches:
            for row in rows:
                publication.results[row.index] = PublishedRecord(partition, -1, error)
        return self._finish_if_complete(key.ticket)

    def partitions_needed(self, request: Publish, entry: CatalogTopic, now: int) -> Iterable[int]:
        """Return the partitions that the records require; all of them when any would do and none is up.

        Raises ProtocolError when the request is invalid as a whole.
        """
        if request.partition is not None:
            return (request.partition,)
        every = range(entry.partitions)
        if not any(self._peers.is_starting(partition_address(entry.topic, each)) for each in every):
            return ()
        rows = [to_row(index, record, now) for index, record in enumerate(request.records)]
        chosen = [_partition_of(row, entry) for row in rows]
        needed = {each for each in chosen if each is not None}
        if None in chosen and not any(
            self._peers.takes_calls(partition_address(entry.topic, each)) for each in every
        ):
            return every
        return sorted(needed)

    def _by_partition(
        self, rows: Sequence[Row], request: Publish, entry: CatalogTopic
    ) -> dict[int, list[Row]]:
        shares: dict[int, list[Row]] = {}
        keyless = request.partition
        for row in rows:
            partition = _partition_of(row, entry) if request.partition is None else request.partition
            if partition is None:
                keyless = partition = self._next_partition(entry) if keyless is None else keyless
            shares.setdefault(partition, []).append(row)
        return shares

    def _schedule(
        self,
        number: int,
        publication: _Publication,
        request: Publish,
        rows: Sequence[Row],
        entry: CatalogTopic,
        ids: Mapping[int, str],
        schedulers: int,
    ) -> list[Effect]:
        """Pass the delayed records to their schedulers."""
        shares: dict[int, list[ScheduleRecord]] = {}
        for index, scheduled_id in ids.items():
            if publication.results[index] is not None:
                continue
            row, asked = rows[index], request.records[index]
            record = ScheduleRecord(
                scheduled_id=scheduled_id,
                topic=request.topic,
                deliver_at_ms=asked.deliver_at_ms,
                delay_ms=asked.delay_ms,
                partition=request.partition,
                key=row.key,
                value=row.value,
                headers=row.headers,
                timestamp_ms=asked.timestamp_ms,
            )
            try:
                check_fits(index, record, entry.max_message_bytes)
            except ProtocolError as error:
                publication.results[index] = PublishedRecord(-1, -1, error.body, scheduled_id=scheduled_id)
                continue
            scheduler = scheduler_of(scheduled_id, schedulers)
            shares.setdefault(scheduler, []).append(record)
            publication.schedules.setdefault(scheduler, []).append((index, scheduled_id))
        return [
            Call(
                ScheduleCall(number, scheduler),
                scheduler_address(scheduler),
                Schedule(records=records),
                ScheduleReply,
                timeout_ms=PRODUCE_TIMEOUT_MS,
                context=publication.context,
            )
            for scheduler, records in shares.items()
        ]

    def _next_partition(self, entry: CatalogTopic) -> int:
        turn = self._turns.get(entry.topic, 0)
        candidates = [(turn + step) % entry.partitions for step in range(entry.partitions)]
        up = (each for each in candidates if self._peers.takes_calls(partition_address(entry.topic, each)))
        chosen = next(up, candidates[0])
        self._turns[entry.topic] = chosen + 1
        return chosen

    def forget_topic(self, topic: str) -> None:
        self._turns.pop(topic, None)

    def _refuse_too_large(
        self, publication: _Publication, partition: int, rows: Sequence[Row], entry: CatalogTopic
    ) -> list[Row]:
        fitting: list[Row] = []
        for row in rows:
            if HEADER_BYTES + row.size_bytes <= entry.max_message_bytes or _fits(row, entry):
                fitting.append(row)
                continue
            message = (
                f"records[{row.index}]: the topic accepts at most {entry.max_message_bytes} bytes a batch"
            )
            error = ErrorBody(ErrorCode.MESSAGE_TOO_LARGE, message)
            publication.results[row.index] = PublishedRecord(partition, -1, error)
        return fitting

    def _call(
        self,
        number: int,
        publication: _Publication,
        partition: int,
        batches: list[list[Row]],
        request: Publish,
    ) -> Effect:
        call = len(publication.calls)
        publication.calls[call] = (partition, batches)
        expected = [rows[0].expected for rows in batches]
        return Call(
            PublishCall(number, call),
            partition_address(request.topic, partition),
            Produce(
                topic=request.topic,
                partition=partition,
                acks=request.acks,
                expected=expected if any(expected) else None,
            ),
            ProduceReply,
            payload=[to_batch(rows) for rows in batches],
            timeout_ms=PRODUCE_TIMEOUT_MS,
            context=publication.context,
        )

    def _finish_if_complete(self, number: int) -> list[Effect]:
        publication = self._open[number]
        if publication.calls or publication.schedules:
            return []
        del self._open[number]
        results = [result for result in publication.results if result is not None]
        assert len(results) == len(publication.results)
        errors = [result.error for result in results]
        # A single refusal is clearer than the same error for each record.
        if errors[0] is not None and len({error and error.code for error in errors}) == 1:
            return self._tickets.answer(number, errors[0])
        return self._tickets.answer(number, PublishReply(records=results))


def to_row(index: int, record: PublishRecord, now: int) -> Row:
    """Raises ProtocolError naming the field when a record is contradictory."""
    is_key_twice = record.key is not None and record.key_text is not None
    if is_key_twice or (record.value is not None and record.value_text is not None):
        field = "key" if is_key_twice else "value"
        raise ProtocolError(
            ErrorCode.INVALID_REQUEST, f"records[{index}]: {field} and {field}_text are both given"
        )
    timestamp_ms = now if record.timestamp_ms is None else record.timestamp_ms
    key = record.key if record.key_text is None else record.key_text.encode()
    value = record.value if record.value_text is None else record.value_text.encode()
    headers = record.headers
    if record.dedup_id is not None:
        fault = dedup_id_fault(record.dedup_id)
        if fault is not None:
            raise ProtocolError(ErrorCode.INVALID_REQUEST, f"records[{index}].{fault}")
        headers = identified_headers(headers, record.dedup_id)
    return Row(index, key, value, headers, timestamp_ms, record.dedup_id, _expectation_of(index, record))


def _expectation_of(index: int, record: PublishRecord) -> Expected | None:
    if record.expected_offset is None and record.expected_key_version is None:
        return None
    if is_delayed(record):
        message = f"records[{index}]: a delayed record has no expectation"
        raise ProtocolError(ErrorCode.INVALID_REQUEST, message)
    return Expected(offset=record.expected_offset, key_version=record.expected_key_version)


def _partition_of(row: Row, entry: CatalogTopic) -> int | None:
    """Return None when any partition will do."""
    if row.key is not None:
        return partition_for_key(row.key, entry.partitions)
    if row.dedup_id is not None:
        return partition_for_dedup_id(row.dedup_id, entry.partitions)
    return None


def gather(rows: Sequence[Row], max_batch_bytes: int) -> list[list[Row]]:
    """Gather rows in order, in as few batches as the limit allows; one with a dedup id or an expectation is alone."""
    batches: list[list[Row]] = []
    size = 0
    is_alone = True
    for row in rows:
        if is_alone or row.is_alone or size + row.size_bytes > max_batch_bytes:
            batches.append([])
            size = HEADER_BYTES
        is_alone = row.is_alone
        batches[-1].append(row)
        size += row.size_bytes
    return batches


def to_batch(rows: Sequence[Row]) -> bytes:
    first, first_timestamp_ms = rows[0], rows[0].timestamp_ms
    if first.dedup_id is not None:
        return identified_batch((first.key, first.value, 0, first.headers), first_timestamp_ms)
    records: list[Record] = [
        (row.key, row.value, row.timestamp_ms - first_timestamp_ms, row.headers) for row in rows
    ]
    return build(
        records,
        first_timestamp_ms=first_timestamp_ms,
        max_timestamp_ms=max(row.timestamp_ms for row in rows),
    )


def _fits(row: Row, entry: CatalogTopic) -> bool:
    """Return True if the row may fit. Near the limit the estimate is too cautious; the batch itself decides."""
    return len(to_batch([row])) <= entry.max_message_bytes
