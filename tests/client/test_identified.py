"""Records with a dedup id on their way to a partition: order, repeats, bounds, deadlines."""

from types import SimpleNamespace
from typing import Any

import pytest

from fake_broker import FakeBroker
from planaria.transport.batch import RecordFields, decode_records, parse_header
from planaria.transport.client.client import Client
from planaria.transport.client.identified import REQUEST_BATCHES, IdentifiedRecords
from planaria.transport.client.lanes import Outcome
from planaria.transport.client.options import InvalidOption
from planaria.transport.client.producing import LaneFreed, LaneHeld
from planaria.transport.machine import Answered, Call, Failed, SetTimer, TimerFired
from planaria.transport.protocol.data import ProducedBatch, ProduceReply
from planaria.transport.protocol.errors import ErrorBody, ErrorCode

LANE = ("T", 0)
HELD = ErrorBody(ErrorCode.BACKPRESSURE, "a group is behind", True, 50)
LOST = ErrorBody(ErrorCode.TIMED_OUT, "no answer", True)


def machine(*, is_patient: bool = True) -> IdentifiedRecords:
    return IdentifiedRecords("all", 1_000, 100, is_patient)


def batch(number: int, size_bytes: int = 10, created_ms: int = 0) -> Any:
    return SimpleNamespace(
        alone=RecordFields(None, b"%d" % number, 0, None),
        first_ms=0,
        size_bytes=size_bytes,
        created_ms=created_ms,
        expected=None,
    )


def answer(*results: ProducedBatch) -> Answered:
    return Answered(("identified", LANE), ProduceReply(batches=list(results), high_watermark=0))


def asks(effects: list[Any]) -> list[tuple[bytes | None, ...]]:
    """Return the values of the records in each request."""
    return [tuple(map(value_of, effect.payload)) for effect in effects if isinstance(effect, Call)]


def value_of(frame: bytes) -> bytes | None:
    ((_, value, _, _),) = decode_records(frame, parse_header(frame))
    return value


def outcomes(effects: list[Any]) -> list[tuple[bytes, int, bool, str | None]]:
    return [
        (each.batch.alone.value, each.base_offset, each.is_duplicate, each.error and each.error.code)
        for each in effects
        if isinstance(each, Outcome)
    ]


def test_one_request_at_a_time_and_the_next_takes_all_that_waits() -> None:
    lane = machine()
    assert asks(lane.put(LANE, batch(0), 0)) == [(b"0",)]
    for number in range(1, 4):
        assert lane.put(LANE, batch(number), 0) == []
    assert asks(lane.put(("T", 1), batch(9), 0)) == [(b"9",)]
    effects = lane.handle(answer(ProducedBatch(5)), 0)
    assert outcomes(effects) == [(b"0", 5, False, None)]
    assert asks(effects) == [(b"1", b"2", b"3")]
    effects = lane.handle(
        answer(
            ProducedBatch(6),
            ProducedBatch(2, True),
            ProducedBatch(-1, error=ErrorBody("INVALID_BATCH", "no")),
        ),
        0,
    )
    assert outcomes(effects) == [
        (b"1", 6, False, None),
        (b"2", 2, True, None),
        (b"3", -1, False, "INVALID_BATCH"),
    ]


def test_a_request_is_bounded() -> None:
    lane = machine()
    lane.put(LANE, batch(0), 0)
    for number in range(200):
        lane.put(LANE, batch(number), 0)
    (sent,) = asks(lane.handle(answer(ProducedBatch(0)), 0))
    assert len(sent) == REQUEST_BATCHES
    lane = machine()
    for number in range(4):
        lane.put(LANE, batch(number, size_bytes=3 << 20), 0)
    assert asks(lane.handle(answer(ProducedBatch(0)), 0)) == [(b"1",)]


def test_a_lost_answer_is_asked_for_again_until_the_time_is_over() -> None:
    lane = machine()
    lane.put(LANE, batch(0), 0)
    lane.put(LANE, batch(1, created_ms=950), 950)
    again = lane.handle(Failed(("identified", LANE), LOST), 960)
    assert asks(again) == [(b"0",)]
    assert again[0].timeout_ms == 40
    effects = lane.handle(Failed(("identified", LANE), LOST), 1_000)
    assert outcomes(effects) == [(b"0", -1, False, "TIMED_OUT")]
    assert effects[0].is_uncertain
    assert asks(effects) == [(b"1",)]


def test_a_refusal_is_final() -> None:
    lane = machine()
    lane.put(LANE, batch(0), 0)
    effects = lane.handle(Failed(("identified", LANE), ErrorBody("UNKNOWN_PARTITION", "gone")), 1)
    assert outcomes(effects) == [(b"0", -1, False, "UNKNOWN_PARTITION")]
    assert not effects[0].is_uncertain


def test_a_record_that_is_refused_for_now_is_asked_for_again_and_the_others_are_done() -> None:
    died = ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, "the actor died", True)
    lane = machine()
    lane.put(LANE, batch(0), 0)
    for number in (1, 2, 3):
        lane.put(LANE, batch(number), 0)
    lane.handle(answer(ProducedBatch(0)), 0)
    refused = ProducedBatch(-1, error=died)
    effects = lane.handle(answer(refused, ProducedBatch(7), refused), 10)
    assert outcomes(effects) == [(b"2", 7, False, None)]
    (timer,) = (effect for effect in effects if isinstance(effect, SetTimer))
    assert lane.put(LANE, batch(4), 10) == []
    assert asks(lane.handle(TimerFired(timer.key), timer.at)) == [(b"1", b"3")]
    effects = lane.handle(answer(ProducedBatch(3, True), ProducedBatch(8)), timer.at)
    assert outcomes(effects) == [(b"1", 3, True, None), (b"3", 8, False, None)]
    assert asks(effects) == [(b"4",)]


def test_what_is_refused_for_now_until_its_time_is_over_may_have_been_written() -> None:
    died = ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, "the actor died", True)
    lane = machine()
    lane.put(LANE, batch(0), 0)
    effects = lane.handle(answer(ProducedBatch(-1, error=died)), 990)
    assert outcomes(effects) == []
    lane.put(LANE, batch(1, created_ms=995), 995)
    (timer,) = (effect for effect in effects if isinstance(effect, SetTimer))
    effects = lane.handle(TimerFired(timer.key), timer.at)
    assert outcomes(effects) == [(b"0", -1, False, "TIMED_OUT")]
    assert effects[0].is_uncertain
    assert asks(effects) == [(b"1",)]
    effects = lane.handle(answer(ProducedBatch(-1, error=died)), 1_995)
    assert outcomes(effects) == [(b"1", -1, False, "ACTOR_UNAVAILABLE")]
    assert effects[0].is_uncertain


def test_abandoning_fails_all() -> None:
    lane = machine()
    for number in range(3):
        lane.put(LANE, batch(number), 0)
    effects = lane.abandon(ErrorBody("SHUTTING_DOWN", "closed", True))
    assert [each[0] for each in outcomes(effects)] == [b"0", b"1", b"2"]
    assert lane.handle(answer(), 0) == []


def test_a_lost_answer_doubles_nothing(client: Client, broker: FakeBroker) -> None:
    client.publish("T", b"the topic is known", partition=1)  # nothing else must be answered within 200 ms
    with client.producer(request_timeout_ms=200) as producer:
        broker.fault("produce", "answer lost")
        delivery = producer.publish("T", b"1", partition=0, dedup_id="a")
        assert delivery.result(10).offset == 0
        assert producer.publish("T", b"2", partition=0, dedup_id="a").result(10) == ("T", 0, 0, True, None)
        assert producer.publish("T", b"3", partition=0, dedup_id="b").result(10) == ("T", 0, 1, False, None)
    assert broker.partitions["T", 0].values() == [b"1", b"3"]


def test_flush_and_close_wait_for_them(client: Client, broker: FakeBroker) -> None:
    with client.producer(linger_ms=10_000) as producer:
        deliveries = [producer.publish("T", b"v", partition=1, dedup_id=f"{n}") for n in range(300)]
        producer.flush(10)
        assert [delivery.result(0).offset for delivery in deliveries] == list(range(300))
        last = producer.publish("T", b"v", partition=1, dedup_id="last")
    assert last.done()


def test_without_acknowledgements_there_are_no_identities(client: Client) -> None:
    with client.producer(acks=0) as producer, pytest.raises(InvalidOption, match="dedup_id: needs acks"):
        producer.publish("T", b"v", dedup_id="a")


def test_a_held_partition_is_tried_with_one_record_and_nothing_grows_old() -> None:
    lane = machine()
    lane.put(LANE, batch(0), 0)
    for number in (1, 2):
        lane.put(LANE, batch(number), 0)
    now = 0
    for _ in range(50):
        effects = lane.handle(Failed(("identified", LANE), HELD), now)
        assert [type(effect) for effect in effects] == [LaneHeld, SetTimer]
        assert lane.put(LANE, batch(9), now) == []
        now = effects[1].at  # type: ignore[union-attr]
        assert asks(lane.handle(TimerFired(("identified", LANE)), now)) == [(b"0",)]
    assert now > 1_000
    effects = lane.handle(answer(ProducedBatch(4)), now)
    assert type(effects[0]) is LaneFreed
    assert outcomes(effects) == [(b"0", 4, False, None)]
    assert len(asks(effects)[0]) == 52


def test_an_impatient_producers_records_expire_while_they_are_held() -> None:
    lane = machine(is_patient=False)
    lane.put(LANE, batch(0), 0)
    lane.handle(Failed(("identified", LANE), HELD), 990)
    effects = lane.handle(TimerFired(("identified", LANE)), 1_040)
    assert outcomes(effects) == [(b"0", -1, False, "TIMED_OUT")]
