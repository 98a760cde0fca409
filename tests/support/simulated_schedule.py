"""A scheduler without processes: its machine over simulated partitions, a simulated controller, and a manual clock."""

from typing import Any

from model_partition import ModelPartition
from planaria.actors.journal.identity import start_of
from planaria.actors.log.key_map import KeyMap
from planaria.actors.log.survivors import rewritten, survivors
from planaria.actors.scheduler.machine import SchedulerMachine
from planaria.actors.scheduler.process import SchedulerActor
from planaria.transport.addresses import CONTROLLER, TopicPartition, partition_address
from planaria.transport.batch import decode_records, parse_header
from planaria.transport.machine import (
    Call,
    PeerUp,
)
from planaria.transport.protocol.data import (
    Fetch,
    FetchReply,
    InitProducer,
    InitProducerReply,
    ListOffsets,
    ListOffsetsReply,
    Produce,
    ProduceReply,
)
from planaria.transport.protocol.delayed import (
    CancelScheduled,
    ListScheduled,
    Schedule,
    ScheduledMessage,
    ScheduleRecord,
)
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.topics import CatalogTopic, WatchCatalog, WatchCatalogReply
from simulated_actor import SimulatedActor

OWN: TopicPartition = ("__delayed", 0)


class SimulatedSchedule(SimulatedActor):
    def __init__(self, **topics: int) -> None:
        super().__init__()
        self.logs: dict[TopicPartition, ModelPartition] = {OWN: ModelPartition()}
        self.topics: dict[str, CatalogTopic] = {}
        self.lives: dict[str, int] = {}
        self.past: list[tuple[TopicPartition, ModelPartition]] = []
        """Partitions of topics that have been deleted."""
        self.down: dict[TopicPartition, ErrorBody] = {}
        """Error that each unavailable partition answers."""
        self.producer_ids = 100
        self.machine: SchedulerMachine
        for topic, partitions in topics.items():
            self.create(topic, partitions)

    # Life of the scheduler

    def start(self, *, with_snapshot: bool = True) -> None:
        if not with_snapshot:
            self.snapshot = None
        topic, number = OWN
        self.launch(
            SchedulerActor, f"scheduler/{number}", {"topic": topic, "number": number, "schedulers": 1}
        )

    def crash(self, *, arriving: int = 0, with_snapshot: bool = True) -> None:
        """Kill the scheduler; `arriving` of the batches that it had sent still arrive, in order."""
        sent = [call for call in self.calls if isinstance(call.request, Produce)]
        for call in sent[:arriving]:
            self._outcome(call)
        self.start(with_snapshot=with_snapshot)

    # Requests

    def request(self, request: Any) -> Any:
        """Send a request, let everything become durable, and take the answer."""
        number = self.ask(request)
        self.drain()
        return self.replies[number]

    def schedule(self, scheduled_id: str, topic: str, after_ms: int, **fields: Any) -> Any:
        """Schedule until a time of day, or with `delay_ms` for a duration."""
        fields = {"key": scheduled_id.encode(), "value": scheduled_id.encode(), **fields}
        if "delay_ms" not in fields:
            fields["deliver_at_ms"] = self.now + self.ahead.offset_ms + after_ms
        record = ScheduleRecord(scheduled_id=scheduled_id, topic=topic, **fields)
        return self.request(Schedule(records=[record])).results[0]

    def delay(self, scheduled_id: str, topic: str, delay_ms: int) -> Any:
        return self.schedule(scheduled_id, topic, 0, delay_ms=delay_ms)

    def cancel(self, scheduled_id: str) -> str:
        body = self.request(CancelScheduled(scheduled_id=scheduled_id))
        return "done" if isinstance(body, Done) else body.code

    def listed(self, topic: str | None = None, limit: int = 100) -> list[ScheduledMessage]:
        found: list[ScheduledMessage] = []
        after: str | None = None
        while True:
            reply = self.request(ListScheduled(topic=topic, limit=limit, after=after))
            found += reply.messages
            after = reply.next
            if after is None:
                return found

    # Calls

    def _outcome(self, call: Call) -> Any:
        request = call.request
        if isinstance(request, WatchCatalog):
            return (WatchCatalogReply(version=self.version, topics=list(self.topics.values())),)
        if isinstance(request, InitProducer):
            assert call.address == CONTROLLER
            self.producer_ids += 1
            return (InitProducerReply(producer_id=self.producer_ids, producer_epoch=0),)
        tp = call.address.topic_partition
        assert tp is not None
        log = self.logs.get(tp)
        if log is None:
            return ErrorBody(ErrorCode.PARTITION_OFFLINE, f"{call.address} is not running", True)
        if tp in self.down:
            return self.down[tp]
        if isinstance(request, Produce):
            return (
                ProduceReply(batches=[log.produce(bytes(call.payload[0]))], high_watermark=log.end_offset),
            )
        if isinstance(request, ListOffsets):
            return (ListOffsetsReply(offset=log.log_start_offset),)
        assert isinstance(request, Fetch)
        return _fetched(log, request)

    # Topics and partitions

    def create(self, topic: str, partitions: int, max_message_bytes: int = 1_000_000) -> None:
        self.lives[topic] = self.lives.get(topic, 0) + 1
        for partition in range(partitions):
            self.logs[topic, partition] = ModelPartition()
        topic_id = f"{topic}.{self.lives[topic]}"
        self._set(CatalogTopic(topic, topic_id, partitions, max_message_bytes))

    def grow(self, topic: str, partitions: int) -> None:
        known = self.topics[topic]
        for partition in range(known.partitions, partitions):
            self.logs[topic, partition] = ModelPartition()
        self._set(CatalogTopic(topic, known.topic_id, partitions, known.max_message_bytes))

    def limit(self, topic: str, max_message_bytes: int) -> None:
        known = self.topics[topic]
        self._set(CatalogTopic(topic, known.topic_id, known.partitions, max_message_bytes))

    def delete(self, topic: str) -> None:
        for partition in range(self.topics.pop(topic).partitions):
            self.past.append(((topic, partition), self.logs.pop((topic, partition))))
        self.version += 1

    def _set(self, topic: CatalogTopic) -> None:
        self.topics[topic.topic] = topic
        self.version += 1

    def forget_producers(self, tp: TopicPartition) -> None:
        self.logs[tp].producers.clear()

    def up(self, tp: TopicPartition) -> None:
        self.down.pop(tp, None)
        self.handle(PeerUp(address=partition_address(*tp), incarnation=2, endpoint="ipc://p"))

    def compact(self) -> None:
        """Compact the scheduler's partition except its last batch, tombstones included."""
        log = self.logs[OWN]
        keys = KeyMap()
        opened = [(header, frame, decode_records(frame, header)) for header, frame in log.batches]
        for header, _, records in opened:
            keys.add(header, records)
        kept: list[bytes] = []
        for header, frame, records in opened[:-1]:
            positions = survivors(header, records, keys, _never)
            whole = len(positions) == header.record_count
            kept += [frame] if whole else rewritten(header, records, positions)
        log.batches = [(parse_header(frame), frame) for frame in kept] + log.batches[-1:]

    # Time

    def advance(self, milliseconds: int, *_: Any) -> None:
        """Move the clock, firing every timer at its due time, and answering all calls."""
        self.drain()
        super().advance(milliseconds, self.drain)

    # Deliveries

    def delivered(self, topic: str) -> list[str]:
        """Return the values now in the topic, partition by partition."""
        values = []
        for tp, log in sorted(self.logs.items()):
            if tp[0] == topic:
                values += [(value or b"").decode() for value in log.values()]
        return values

    def delivered_before(self) -> list[str]:
        """Return the values in topics that have since been deleted."""
        return [(value or b"").decode() for _, log in self.past for value in log.values()]

    @property
    def own_starts(self) -> list[int | None]:
        return [start_of("scheduler/0", header) for header, _ in self.logs[OWN].batches]


def _never(offset: int) -> bool:
    return False


def _fetched(log: ModelPartition, request: Fetch) -> Any:
    if request.offset > log.end_offset:
        return ErrorBody(ErrorCode.OFFSET_OUT_OF_RANGE, f"the log ends at {log.end_offset}", False)
    frames, next_offset = log.read(request.offset, min(request.max_bytes, 2_000))
    is_last = not any(header.base_offset >= next_offset for header, _ in log.batches)
    reply = FetchReply(
        topic=request.topic,
        partition=request.partition,
        log_start_offset=log.log_start_offset,
        high_watermark=log.end_offset,
        next_offset=log.end_offset if is_last else next_offset,
    )
    return reply, (b"".join(frames),) if frames else ()
