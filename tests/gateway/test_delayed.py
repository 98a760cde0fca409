"""Delayed records at the gateway: named, checked, routed to their scheduler, which may have to be created first."""

from typing import Any

import pytest

from gateway_driver import GatewayDriver
from planaria.transport.machine import Call
from planaria.transport.protocol.control import EnsureInternalActors
from planaria.transport.protocol.data import Produce, ProducedBatch, ProduceReply, Publish, PublishRecord
from planaria.transport.protocol.delayed import (
    CancelScheduled,
    ListScheduled,
    ListScheduledReply,
    Schedule,
    ScheduleReply,
    ScheduleResult,
    scheduler_of,
)
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.topics import CatalogTopic

DELAYED = CatalogTopic("__delayed", "id-delayed", 2, 1_000_000)
ORDERS = CatalogTopic("ORDERS", "id-ORDERS", 3, 1_000)


@pytest.fixture
def gateway() -> GatewayDriver:
    """A gateway with two schedulers."""
    gateway = GatewayDriver().start(ORDERS=3)
    gateway.set_topics(ORDERS, DELAYED)
    for number in range(2):
        gateway.up(f"scheduler/{number}")
    return gateway


def publish(*records: dict[str, Any], **options: Any) -> Publish:
    return Publish(topic="ORDERS", records=[PublishRecord(**record) for record in records], **options)


def answer_schedules(gateway: GatewayDriver, *, duplicate: bool = False) -> list[Call]:
    calls = [call for call in gateway.calls if isinstance(call.request, Schedule)]
    for call in calls:
        results = [ScheduleResult(duplicate=duplicate) for _ in call.request.records]  # type: ignore[union-attr]
        gateway.answer(ScheduleReply(results=results), call=call)
    return calls


def test_delayed_records_go_to_their_schedulers_and_others_to_partitions(gateway: GatewayDriver) -> None:
    names = ["a", "b", "c", "d"]
    records = [{"scheduled_id": name, "delay_ms": 500, "key": b"k", "value": b"v"} for name in names]
    number = gateway.ask(publish(*records, {"value": b"now"}))
    for call in answer_schedules(gateway):
        for record in call.request.records:  # type: ignore[union-attr]
            assert call.address == f"scheduler/{scheduler_of(record.scheduled_id, 2)}"
            assert (record.deliver_at_ms, record.delay_ms, record.topic) == (None, 500, "ORDERS")
            assert (record.key, record.value, record.partition) == (b"k", b"v", None)
    assert number not in gateway.replies
    (call,) = gateway.calls
    assert isinstance(call.request, Produce)
    gateway.answer(ProduceReply(batches=[ProducedBatch(7)], high_watermark=8))
    *delayed, now = gateway.replies[number].records
    assert [each.scheduled_id for each in delayed] == names
    assert [(each.partition, each.offset) for each in delayed] == [(-1, -1)] * 4
    assert now.offset == 7


def test_records_without_a_name_get_names_of_their_own(gateway: GatewayDriver) -> None:
    found: list[str] = []
    for _ in range(2):
        number = gateway.ask(publish({"delay_ms": 1}, {"deliver_at_ms": 5}))
        answer_schedules(gateway)
        found += [each.scheduled_id for each in gateway.replies[number].records]
    assert len(set(found)) == 4


def test_a_repeat_is_told(gateway: GatewayDriver) -> None:
    number = gateway.ask(publish({"delay_ms": 1, "scheduled_id": "a"}))
    answer_schedules(gateway, duplicate=True)
    assert gateway.replies[number].records[0].duplicate


def test_the_first_delayed_record_makes_the_schedulers() -> None:
    gateway = GatewayDriver().start(ORDERS=1)
    number = gateway.ask(publish({"delay_ms": 1, "scheduled_id": "a"}))
    (call,) = gateway.calls
    assert (call.address, call.request) == ("controller", EnsureInternalActors(topic="__delayed"))
    gateway.hold_topics(DELAYED, ORDERS=1)
    gateway.answer(Done())
    assert gateway.calls == []
    for scheduler in range(2):
        gateway.up(f"scheduler/{scheduler}")
    assert len(answer_schedules(gateway)) == 1
    assert gateway.replies[number].records[0].error is None


def test_a_scheduler_that_cannot_be_made_is_an_error() -> None:
    gateway = GatewayDriver().start(ORDERS=1)
    number = gateway.ask(publish({"delay_ms": 1}))
    gateway.fail("STORAGE_FULL")
    assert gateway.replies[number].code == "STORAGE_FULL"


def test_a_scheduler_that_is_down_is_waited_for(gateway: GatewayDriver) -> None:
    for number in range(2):
        gateway.down(f"scheduler/{number}")
    patient = gateway.ask(publish({"delay_ms": 1}))
    gateway.advance(5_000)
    assert patient not in gateway.replies
    for number in range(2):
        gateway.up(f"scheduler/{number}")
    answer_schedules(gateway)
    assert gateway.replies[patient].records[0].error is None
    for number in range(2):
        gateway.down(f"scheduler/{number}")
    late = gateway.ask(CancelScheduled(scheduled_id="a"))
    gateway.advance(10_000)
    assert gateway.replies[late].code == "ACTOR_UNAVAILABLE"


def test_a_quarantined_scheduler_is_not_waited_for(gateway: GatewayDriver) -> None:
    for number in range(2):
        gateway.down(f"scheduler/{number}", quarantined=True)
    assert gateway.reply(publish({"delay_ms": 1})).code == "ACTOR_UNAVAILABLE"


def test_a_scheduler_that_dies_leaves_it_open_whether_the_record_is_held(gateway: GatewayDriver) -> None:
    number = gateway.ask(publish({"delay_ms": 1, "scheduled_id": "a"}))
    gateway.fail("ACTOR_UNAVAILABLE")
    assert gateway.replies[number].code == "ACTOR_UNAVAILABLE"


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"deliver_at_ms": 1, "delay_ms": 1}, "records[0]: deliver_at_ms and delay_ms are both given"),
        ({"deliver_at_ms": 2**52}, "records[0].deliver_at_ms"),
        ({"delay_ms": 1, "dedup_id": "a"}, "records[0].dedup_id"),
        ({"scheduled_id": "a"}, "records[0].scheduled_id"),
        (
            {"delay_ms": 1, "scheduled_id": "ä" * 200},
            "records[0].scheduled_id: must have 1 to 256 bytes, not 400",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(gateway: GatewayDriver, record: dict[str, Any], words: str) -> None:
    refused = gateway.reply(publish(record))
    assert refused.code == "INVALID_REQUEST"
    assert words in refused.message
    assert gateway.calls == []


def test_what_would_not_fit_when_it_is_due_is_refused_now(gateway: GatewayDriver) -> None:
    number = gateway.ask(publish({"delay_ms": 1, "value": b"x" * 900}, {"delay_ms": 1, "value": b"x"}))
    answer_schedules(gateway)
    large, small = gateway.replies[number].records
    assert large.error.code == "MESSAGE_TOO_LARGE"
    assert small.error is None


def test_lists_and_cancels_find_their_scheduler(gateway: GatewayDriver) -> None:
    gateway.ask(CancelScheduled(scheduled_id="a"))
    assert gateway.calls[-1].address == f"scheduler/{scheduler_of('a', 2)}"
    for after, address in ((None, "scheduler/0"), ("0:17", "scheduler/0"), ("1:0", "scheduler/1")):
        gateway.ask(ListScheduled(after=after))
        assert gateway.calls[-1].address == address
    for wrong in ("2:0", "x", "1:", ":1", "-1:0"):
        assert gateway.reply(ListScheduled(after=wrong)).code == "INVALID_REQUEST"


def test_where_nothing_was_ever_delayed_nothing_is_pending() -> None:
    gateway = GatewayDriver().start(ORDERS=1)
    assert gateway.reply(ListScheduled()) == ListScheduledReply(messages=[])
    assert gateway.reply(CancelScheduled(scheduled_id="a")).code == "UNKNOWN_SCHEDULED_ID"
    assert gateway.calls == []
