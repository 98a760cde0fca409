"""Drives the machine of a producer against one partition that accepts, refuses and loses batches."""

from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import Any

from model_partition import ModelPartition
from planaria.transport.batch import build
from planaria.transport.calls.retry import RetryPolicy
from planaria.transport.client.lanes import Outcome, Transmit
from planaria.transport.client.producing import LaneFreed, LaneHeld, LaneIdle, Producing
from planaria.transport.machine import Answered, Call, Failed, SetTimer, TimerFired
from planaria.transport.protocol.data import InitProducerReply, ProducedBatch, ProduceReply
from planaria.transport.protocol.errors import ErrorBody, ErrorCode

LANE = ("T", 0)


HELD = ErrorBody(ErrorCode.BACKPRESSURE, "a group is behind", True, 50)


LOST = ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, "lost", retriable=True)


@dataclass(eq=False)
class FakeBatch:
    number: int
    record_count: int
    created_ms: int


def new_machine(**options: Any) -> Producing:
    settings: dict[str, Any] = {
        "acks": "all", "delivery_timeout_ms": 10_000, "request_timeout_ms": 1_000,
        "retry": RetryPolicy(), "jitter": lambda: 0.0,
    }  # fmt: skip
    return Producing(**(settings | options))


class World:
    """The machine, one partition, and a wire that loses and delays on command."""

    def __init__(self, *, expires: bool = False, **options: Any) -> None:
        self.expires = expires
        self.topic_id: str | None = "a"
        """Topic id known to the client."""
        self.current_topic_id = "a"
        """Topic id known to the partition."""
        self.machine = new_machine(topic_id_of=lambda _: self.topic_id, **options)
        self.partition = ModelPartition()
        self.now = 0
        self.wire: deque[Transmit] = deque()
        self.timers: dict[Any, int] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.told: list[type] = []
        self.transmitted: list[Transmit] = []
        self.identities = count(7)
        self.numbers = count()

    def feed(self, event: Any) -> None:
        self.perform(self.machine.handle(event, self.now))

    def perform(self, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case Transmit():
                    self.wire.append(effect)
                    self.transmitted.append(effect)
                case Call(key=key):
                    self.feed(
                        Answered(key, InitProducerReply(producer_id=next(self.identities), producer_epoch=0))
                    )
                case SetTimer(key=key, at=at):
                    self.timers[key] = at
                case Outcome(batch=batch):
                    assert batch.number not in self.outcomes, "one outcome each"
                    self.outcomes[batch.number] = effect
                case LaneHeld() | LaneFreed():
                    self.told.append(type(effect))
                case LaneIdle():
                    pass

    def publish(self, record_count: int = 1) -> FakeBatch:
        batch = FakeBatch(next(self.numbers), record_count, self.now)
        self.perform(self.machine.put(LANE, batch, self.now))
        return batch

    def append(self, item: Transmit) -> ProducedBatch:
        assert item.identity is not None
        frame = build(
            [
                (None, b"%d.%d" % (item.batch.number, index), 0, None)
                for index in range(item.batch.record_count)
            ],
            first_timestamp_ms=0,
            max_timestamp_ms=0,
            producer_id=item.identity.producer_id,
            producer_epoch=item.identity.epoch,
            base_sequence=item.sequence,
        )
        return self.partition.produce(frame)

    def step(self, fate: str) -> None:
        """Let the oldest request arrive, or be lost, or its answer be lost, or everything be lost."""
        if fate == "tick" or not self.wire:
            self.tick()
            return
        if fate == "cut":
            doomed = list(self.wire)
            self.wire.clear()
            for item in doomed:
                self.feed(Failed((item.lane, item.token), LOST))
            return
        item = self.wire.popleft()
        key = (item.lane, item.token)
        if fate == "request lost":
            self.feed(Failed(key, LOST))
        elif fate == "answer lost":
            self.append(item)
            self.feed(Failed(key, LOST))
        elif fate == "storage full":
            self.feed(Failed(key, ErrorBody(ErrorCode.STORAGE_FULL, "full", retriable=True)))
        elif fate == "held":
            self.feed(Failed(key, HELD))
        elif fate == "refused":
            self.feed(Failed(key, ErrorBody(ErrorCode.INVALID_BATCH, "refused")))
        else:
            self.answer(item)
            if fate == "repeated":
                self.append(item)

    def answer(self, item: Transmit) -> None:
        if item.topic_id not in (None, self.current_topic_id):
            code, told = ErrorCode.UNKNOWN_TOPIC_ID, self.current_topic_id
            error = ErrorBody(code, "created again", topic_id=told)
            self.feed(Failed((item.lane, item.token), error))
            return
        reply = ProduceReply(batches=[self.append(item)], high_watermark=0)
        self.feed(Answered((item.lane, item.token), reply))

    def tick(self) -> None:
        due = {key for key in self.timers if self.expires or key != "expiry"}
        if due:
            key = min(due, key=lambda key: self.timers[key])
            self.now = max(self.now, self.timers.pop(key))
            self.feed(TimerFired(key))

    def finish(self) -> None:
        """Finish without further faults."""
        for _ in range(1_000):
            if not self.machine.pending:
                return
            self.step("ok")
        raise AssertionError("the producer does not come to rest")

    def appended(self) -> list[int]:
        values = [value for value in self.partition.values() if value is not None]
        return [int(value.split(b".")[0]) for value in values if value.endswith(b".0")]

    def play(self, steps: list[Any]) -> None:
        """Publish batches by their number of records, and apply fates; then finish everything."""
        for step in steps:
            if isinstance(step, int):
                self.publish(step)
            else:
                self.step(step)
        self.finish()
