"""The partition under random turns, full disks and crashes, held against a model that reads nothing but the log.

The model derives a producer's state by scanning every batch, slowly and plainly. After each turn:

    - every verdict on a batch, and every offset, is the model's
    - the log's offsets are dense, and no batch is in it twice
    - acknowledged batches are in the log, at their acknowledged offsets, through all crashes
    - a fetch returns exactly the log's bytes, and nothing that a power failure could take back
    - no fetch waits past its time, or beside data that would satisfy it
"""

from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from example_counts import examples
from planaria.transport.batch import BatchHeader, verify
from planaria.transport.machine import Received, Reply
from planaria.transport.protocol.data import Fetch, FetchReply, Produce, ProduceReply
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.topics import DeleteRecords, TopicConfig
from simulated_partition import Crashed, CrashPoint, SimulatedPartition, a_batch

NO_PRODUCER = -1


class Verdict(NamedTuple):
    code: str
    base_offset: int


def judge(placed: list[BatchHeader], batch: BatchHeader, end_offset: int) -> Verdict:
    """Return the expected verdict on a batch, with `placed` in the log or about to be."""
    own = [header for header in placed if header.producer_id == batch.producer_id]
    if batch.producer_id == NO_PRODUCER:
        return Verdict("NEW", end_offset)
    if not own:
        return Verdict("NEW", end_offset) if batch.base_sequence == 0 else Verdict("UNKNOWN_PRODUCER", -1)
    last = own[-1]
    if batch.producer_epoch < last.producer_epoch:
        return Verdict("PRODUCER_FENCED", -1)
    if batch.producer_epoch > last.producer_epoch:
        return (
            Verdict("NEW", end_offset) if batch.base_sequence == 0 else Verdict("OUT_OF_ORDER_SEQUENCE", -1)
        )
    if batch.base_sequence == last.base_sequence + last.record_count:
        return Verdict("NEW", end_offset)
    for header in [header for header in own if header.producer_epoch == last.producer_epoch][-5:]:
        if (header.base_sequence, header.record_count) == (batch.base_sequence, batch.record_count):
            return Verdict("DUPLICATE", header.base_offset)
    return Verdict("OUT_OF_ORDER_SEQUENCE", -1)


class Want(NamedTuple):
    """A batch to send: `step` is relative to the producer's next sequence, so -2 may repeat an earlier batch."""

    producer_id: int
    epoch_step: int
    step: int
    record_count: int


wants = st.lists(
    st.builds(
        Want,
        producer_id=st.sampled_from([NO_PRODUCER, 1, 2]),
        epoch_step=st.sampled_from([0, 0, 0, 0, 0, 0, 1, -1]),
        step=st.sampled_from([0, 0, 0, 0, -1, -1, -2, -3, -7, 1]),
        record_count=st.sampled_from([1, 1, 1, 2, 3]),
    ),
    min_size=1,
    max_size=4,
)
requests = st.lists(st.tuples(wants, st.sampled_from(["all", 1, 0])), min_size=1, max_size=3)
fetches = st.lists(
    st.tuples(
        st.integers(-3, 1),  # relative to the log's end
        st.sampled_from([1, 1, 150, 400]),  # min_bytes
        st.sampled_from([1, 200, 100_000]),  # max_bytes
        st.sampled_from([0, 50, 500]),  # max_wait_ms
    ),
    max_size=3,
)


class PartitionUnderStress(RuleBasedStateMachine):
    flush = "batch"

    @initialize()
    def start(self) -> None:
        self.partition = SimulatedPartition(TopicConfig(flush=self.flush), parked_limit=3)
        self.values = 0
        self.acknowledged: dict[int, bytes] = {}
        """The first value of each acknowledged batch, by base offset."""
        self.waiting: dict[Any, tuple[Fetch, int]] = {}

    # -- faults

    @rule(sent=requests, asked=fetches, is_full=st.sampled_from([False, False, False, True]))
    def turn(self, sent: Any, asked: Any, is_full: bool) -> None:
        partition = self.partition
        partition.is_disk_full = is_full
        before = list(partition.log)
        events, expected = self.produces(sent)
        reads = self.fetches(asked)
        self.judge_replies(partition.turn(*events, *reads), events, expected, is_full)
        if is_full:
            assert partition.log == before

    @rule(sent=requests, point=st.sampled_from(["before the write", "after the write", "after the sync"]))
    def crash_in_a_turn(self, sent: Any, point: CrashPoint) -> None:
        self.partition.is_disk_full = False
        events, _ = self.produces(sent)
        try:
            self.partition.turn(*events, crash_at=point)
        except Crashed:
            self.waiting.clear()
        else:
            raise AssertionError("the turn was to crash")

    @rule()
    def kill(self) -> None:
        """A killed process loses nothing that was written, not even unsynced data."""
        self.partition.crash(is_power_lost=False)
        self.waiting.clear()

    @rule(duration_ms=st.sampled_from([10, 50, 500, 6_000]))
    def time_passes(self, duration_ms: int) -> None:
        self.judge_replies(self.partition.advance(duration_ms), [], [], False)

    @rule(share=st.integers(0, 4))
    def delete_records(self, share: int) -> None:
        before_offset = self.partition.durable_end_offset * share // 4
        request = DeleteRecords(topic="ORDERS", partition=0, before_offset=before_offset)
        reply = self.partition.ask(request)
        assert reply is not None
        assert reply.body.log_start_offset == self.partition.log_start_offset  # type: ignore[union-attr]

    # -- requests, and their expected outcomes

    def produces(self, sent: Any) -> tuple[list[Received], list[list[Verdict]]]:
        placed = [header for header, _ in self.partition.log]
        end_offset = self.partition.log_end_offset
        events, expected = [], []
        for batches, acks in sent:
            frames, verdicts = [], []
            for want in batches:
                frame = self.frame(placed, want)
                header = verify(frame)
                verdict = judge(placed, header, end_offset)
                if verdict.code == "NEW":
                    placed.append(header._replace(base_offset=end_offset))
                    end_offset += header.record_count
                frames.append(frame)
                verdicts.append(verdict)
            request = Produce(topic="ORDERS", partition=0, acks=acks)
            events.append(self.partition.received(request, frames))
            expected.append(verdicts)
        return events, expected

    def frame(self, placed: list[BatchHeader], want: Want) -> bytes:
        values = [f"value {self.values + index}".encode() for index in range(want.record_count)]
        self.values += want.record_count
        if want.producer_id == NO_PRODUCER:
            return a_batch(*values)
        own = [header for header in placed if header.producer_id == want.producer_id]
        epoch = max(0, (own[-1].producer_epoch if own else 0) + want.epoch_step)
        of_epoch = [header for header in own if header.producer_epoch == epoch]
        sequence = max(0, (of_epoch[-1].last_sequence + 1 if of_epoch else 0) + want.step)
        if want.step < 0 and len(of_epoch) >= -want.step:  # a repeat of a batch, as a client would retry it
            repeated = of_epoch[want.step]
            sequence, values = repeated.base_sequence, values[:1] * repeated.record_count
        return a_batch(*values, producer_id=want.producer_id, producer_epoch=epoch, base_sequence=sequence)

    def fetches(self, asked: Any) -> list[Received]:
        events = []
        for back, min_bytes, max_bytes, max_wait_ms in asked:
            request = Fetch(
                topic="ORDERS",
                partition=0,
                offset=max(0, self.partition.log_end_offset + back),
                min_bytes=min_bytes,
                max_bytes=max_bytes,
                max_wait_ms=max_wait_ms,
            )
            event = self.partition.received(request)
            self.waiting[event.sender] = (request, self.partition.now + max_wait_ms)
            events.append(event)
        return events

    # -- outcomes

    def judge_replies(
        self, replies: list[Reply], events: list[Received], expected: list[list[Verdict]], is_full: bool
    ) -> None:
        by_sender = {reply.to: reply for reply in replies}
        assert len(by_sender) == len(replies), "a request is answered once"
        turn_start = self.partition.log_end_offset if is_full else None
        for event, verdicts in zip(events, expected, strict=True):
            reply = by_sender.pop(event.sender, None)
            if event.request.acks == 0:  # type: ignore[attr-defined]
                assert reply is None
            else:
                assert reply is not None
                self.judge_produce(reply, verdicts, turn_start)
        for sender, reply in by_sender.items():
            request, _ = self.waiting.pop(sender)
            self.judge_fetch(reply, request)

    def judge_produce(self, reply: Reply, verdicts: list[Verdict], turn_start: int | None) -> None:
        is_lost = turn_start is not None and any(verdict.base_offset >= turn_start for verdict in verdicts)
        if is_lost:
            assert isinstance(reply.body, ErrorBody)
            assert reply.body.code == "STORAGE_FULL"
            return
        assert isinstance(reply.body, ProduceReply)
        for result, verdict in zip(reply.body.batches, verdicts, strict=True):
            assert result.base_offset == verdict.base_offset
            assert result.duplicate == (verdict.code == "DUPLICATE")
            assert (None if result.error is None else result.error.code) == (
                None if verdict.code in ("NEW", "DUPLICATE") else verdict.code
            )
            if result.error is None:
                frame = {header.base_offset: frame for header, frame in self.partition.log}
                self.acknowledged.setdefault(result.base_offset, frame[result.base_offset])

    def judge_fetch(self, reply: Reply, request: Fetch) -> None:
        partition = self.partition
        if isinstance(reply.body, ErrorBody):
            assert reply.body.code == "OFFSET_OUT_OF_RANGE"
            return
        assert isinstance(reply.body, FetchReply)
        run = b"".join(bytes(frame) for frame in reply.payload)
        held = [
            frame
            for header, frame in partition.log
            if header.next_offset > request.offset and header.next_offset <= reply.body.next_offset
        ]
        assert run == b"".join(held)
        assert reply.body.next_offset <= reply.body.high_watermark
        self.assert_visible(reply.body.high_watermark)

    def assert_visible(self, high_watermark: int) -> None:
        assert high_watermark <= self.partition.durable_end_offset

    @invariant()
    def log_is_dense_and_has_nothing_twice(self) -> None:
        expected, seen = 0, set()
        for header, _ in self.partition.log:
            assert header.base_offset == expected
            expected = header.next_offset
            if header.producer_id != NO_PRODUCER:
                key = (header.producer_id, header.producer_epoch, header.base_sequence)
                assert key not in seen
                seen.add(key)

    @invariant()
    def acknowledged_is_kept(self) -> None:
        held = {header.base_offset: frame for header, frame in self.partition.log}
        for base_offset, frame in self.acknowledged.items():
            assert held.get(base_offset) == frame

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        for request, deadline in self.waiting.values():
            assert deadline > self.partition.now
            visible = [
                len(frame) for header, frame in self.partition.log if header.next_offset > request.offset
            ]
            assert sum(visible) < min(request.min_bytes, request.max_bytes)


class WithoutSync(PartitionUnderStress):
    """flush = os: a killed process keeps everything; losses of a power failure were never acknowledged as durable."""

    flush = "os"

    @rule(sent=requests, point=st.just("before the write"))
    def crash_in_a_turn(self, sent: Any, point: CrashPoint) -> None:
        self.partition.durable_count = len(self.partition.log)  # the kernel wrote it back
        super().crash_in_a_turn(sent, point)

    def assert_visible(self, high_watermark: int) -> None:
        assert high_watermark <= self.partition.log_end_offset


TestPartitionUnderStress = PartitionUnderStress.TestCase
TestPartitionUnderStress.settings = examples(60, steps=30)
TestWithoutSync = WithoutSync.TestCase
TestWithoutSync.settings = examples(20, steps=30)
