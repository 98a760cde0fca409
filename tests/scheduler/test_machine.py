"""The scheduler's machine: messages held, moved, listed, cancelled; and obstacles. No process, no sleep."""

import pytest

from planaria.actors.scheduler import moves as moves_module
from planaria.actors.scheduler import pending_messages as pending_module
from planaria.actors.scheduler import targets as targets_module
from planaria.transport.batch import decode_records
from planaria.transport.machine import StopRequested
from planaria.transport.protocol.data import Produce
from planaria.transport.protocol.delayed import CancelScheduled, Schedule, ScheduleRecord
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from simulated_actor import LOST
from simulated_schedule import OWN, SimulatedSchedule

FULL = ErrorBody(ErrorCode.STORAGE_FULL, "no room", True)


@pytest.fixture
def world() -> SimulatedSchedule:
    return SimulatedSchedule(ORDERS=1).run()


def produces(world: SimulatedSchedule, topic: str) -> list[Produce]:
    return [
        call.request
        for call in world.calls
        if isinstance(call.request, Produce) and call.request.topic == topic
    ]


def test_a_message_is_held_until_it_is_due(world: SimulatedSchedule) -> None:
    world.schedule("a", "ORDERS", 5_000)
    world.advance(4_999)
    assert world.delivered("ORDERS") == []
    world.advance(1)
    assert world.delivered("ORDERS") == ["a"]


def test_what_is_due_already_goes_at_once(world: SimulatedSchedule) -> None:
    world.schedule("a", "ORDERS", -10_000)
    assert world.delivered("ORDERS") == ["a"]


def test_it_arrives_as_it_was_with_its_own_headers_and_three_more(world: SimulatedSchedule) -> None:
    scheduled_at = world.now
    world.schedule("a", "ORDERS", 1_000, key=b"k", value=b"v", headers={"source": "web"}, timestamp_ms=7)
    world.schedule("b", "ORDERS", 1_000)
    world.advance(1_000)
    [(header, frame)] = world.logs["ORDERS", 0].batches
    (key, value, delta_ms, headers), (_, _, later_ms, _) = decode_records(frame, header)
    assert (key, value, header.first_timestamp_ms + delta_ms) == (b"k", b"v", 7)
    assert header.first_timestamp_ms + later_ms == world.now
    assert headers == {
        "source": "web",
        "scheduled-id": "a",
        "scheduled-at": str(scheduled_at),
        "scheduled-for": str(scheduled_at + 1_000),
    }


def test_messages_arrive_in_the_order_in_which_they_are_due(world: SimulatedSchedule) -> None:
    for number, after_ms in enumerate((300, 100, 200, 100)):
        world.schedule(f"m{number}", "ORDERS", after_ms)
    world.now += 500
    world.fire()
    world.drain()
    assert world.delivered("ORDERS") == ["m1", "m3", "m2", "m0"]


def test_what_is_due_together_shares_one_batch(world: SimulatedSchedule) -> None:
    for number in range(100):
        world.schedule(f"m{number}", "ORDERS", 60_000)
    before = len(world.logs[OWN].batches)
    world.advance(60_000)
    assert len(world.logs["ORDERS", 0].batches) == 1
    assert len(world.logs[OWN].batches) == before + 2
    assert world.listed() == []


def test_a_key_finds_its_partition_at_delivery(world: SimulatedSchedule) -> None:
    for number in range(20):
        world.schedule(f"m{number}", "ORDERS", 1_000, key=f"k{number}".encode())
    world.schedule("named", "ORDERS", 1_000, partition=0)
    world.grow("ORDERS", 4)
    world.advance(1_000)
    assert len(world.logs["ORDERS", 0].values()) < 21
    assert sorted(world.delivered("ORDERS")) == sorted([*(f"m{number}" for number in range(20)), "named"])
    assert b"named" in world.logs["ORDERS", 0].values()


def test_a_repeat_is_recognised_while_it_is_pending_and_for_a_while_after(world: SimulatedSchedule) -> None:
    assert not world.schedule("a", "ORDERS", 1_000).duplicate
    assert world.schedule("a", "ORDERS", 1_000).duplicate
    world.advance(1_000)
    assert world.schedule("a", "ORDERS", 0).duplicate
    world.crash()
    world.drain()
    assert world.schedule("a", "ORDERS", 0).duplicate
    world.advance(pending_module.ENDED_KEPT_MS)
    assert not world.schedule("a", "ORDERS", 0).duplicate
    assert world.delivered("ORDERS") == ["a", "a"]


def test_a_repeat_is_answered_only_when_the_first_is_durable(world: SimulatedSchedule) -> None:
    record = ScheduleRecord(scheduled_id="a", topic="ORDERS", deliver_at_ms=world.now + 10)
    first, second = (world.ask(Schedule(records=[record])) for _ in range(2))
    assert not world.replies
    world.drain()
    assert [world.replies[number].results[0].duplicate for number in (first, second)] == [False, True]


def test_a_cancelled_message_is_not_delivered(world: SimulatedSchedule) -> None:
    world.schedule("a", "ORDERS", 1_000)
    world.schedule("b", "ORDERS", 1_000)
    assert world.cancel("a") == "done"
    assert world.cancel("a") == "done"
    world.crash(with_snapshot=False)
    world.drain()
    world.advance(1_000)
    assert world.delivered("ORDERS") == ["b"]
    assert world.cancel("b") == ErrorCode.UNKNOWN_SCHEDULED_ID
    assert world.cancel("never") == ErrorCode.UNKNOWN_SCHEDULED_ID


def test_a_cancelled_name_is_free(world: SimulatedSchedule) -> None:
    """At once, with or without a restart, any number of times."""
    world.schedule("a", "ORDERS", 1_000, value=b"first")
    assert world.cancel("a") == "done"
    assert not world.schedule("a", "ORDERS", 2_000, value=b"second").duplicate
    assert world.schedule("a", "ORDERS", 2_000, value=b"second").duplicate
    assert world.cancel("a") == "done"
    for with_snapshot in (True, False):
        world.crash(with_snapshot=with_snapshot)
        world.drain()
        assert not world.schedule("a", "ORDERS", 3_000, value=b"third").duplicate
        assert world.cancel("a") == "done"
    assert not world.schedule("a", "ORDERS", 4_000, value=b"fourth").duplicate
    world.crash(with_snapshot=False)
    world.advance(5_000)
    assert world.delivered("ORDERS") == ["fourth"]


def test_a_name_is_free_before_its_cancellation_is_durable(world: SimulatedSchedule) -> None:
    """All decisions fall while one append is in flight; the log has them in the order of the requests."""
    asked = []
    for value in (b"first", b"second", b"third"):
        record = ScheduleRecord(
            scheduled_id="a", topic="ORDERS", deliver_at_ms=world.now + 1_000, key=b"a", value=value
        )
        asked.append(world.ask(Schedule(records=[record])))
        if value != b"third":
            world.ask(CancelScheduled(scheduled_id="a"))
    world.drain()
    assert [world.replies[number].results[0].duplicate for number in asked] == [False] * 3
    world.advance(1_000)
    assert world.delivered("ORDERS") == ["third"]


def test_a_message_is_cancelled_before_it_is_durable(world: SimulatedSchedule) -> None:
    record = ScheduleRecord(scheduled_id="a", topic="ORDERS", deliver_at_ms=world.now)
    world.ask(Schedule(records=[record]))
    number = world.ask(CancelScheduled(scheduled_id="a"))
    world.drain()
    assert number in world.replies
    assert world.delivered("ORDERS") == []
    assert world.listed() == []


def test_what_is_on_its_way_is_not_cancelled(world: SimulatedSchedule) -> None:
    world.schedule("a", "ORDERS", 1_000)
    world.now += 1_000
    world.fire()
    while not produces(world, "ORDERS"):
        world.answer(world.answerable()[0])
    number = world.ask(CancelScheduled(scheduled_id="a"))
    assert world.replies[number].code == ErrorCode.UNKNOWN_SCHEDULED_ID
    world.drain()
    assert world.delivered("ORDERS") == ["a"]


def test_lists_come_in_pages(world: SimulatedSchedule) -> None:
    for number in range(25):
        world.schedule(f"m{number}", "ORDERS" if number % 2 else "OTHERS", 60_000, value=b"x" * 500)
    assert [each.scheduled_id for each in world.listed(limit=7)] == [f"m{number}" for number in range(25)]
    found = world.listed("ORDERS", limit=3)
    assert [each.scheduled_id for each in found] == [f"m{number}" for number in range(1, 25, 2)]
    assert (found[0].key, found[0].size_bytes, found[0].reason) == (b"m1", 502, None)


def test_a_message_for_a_topic_that_is_gone_is_parked_until_it_is_back(world: SimulatedSchedule) -> None:
    world.schedule("a", "ORDERS", 1_000)
    world.schedule("b", "ORDERS", 1_000)
    world.delete("ORDERS")
    world.advance(2_000)
    assert [each.reason for each in world.listed()] == ["there is no topic 'ORDERS'"] * 2
    assert world.cancel("a") == "done"
    world.create("ORDERS", 2)
    world.advance(0)
    assert world.delivered("ORDERS") == ["b"]


def test_what_a_topic_is_too_small_for_is_parked(world: SimulatedSchedule) -> None:
    world.schedule("large", "ORDERS", 1_000, value=b"large" * 200)
    world.schedule("small", "ORDERS", 1_000)
    world.schedule("nowhere", "ORDERS", 1_000, partition=3)
    world.limit("ORDERS", 500)
    world.advance(1_000)
    assert world.delivered("ORDERS") == ["small"]
    large, nowhere = (each.reason or "" for each in world.listed())
    assert "accepts 500 bytes" in large
    assert "no partition 3" in nowhere
    world.limit("ORDERS", 5_000)
    world.grow("ORDERS", 4)
    world.advance(0)
    assert len(world.delivered("ORDERS")) == 3


def test_a_partition_that_is_down_holds_up_no_other(
    world: SimulatedSchedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets_module, "MOVING_MESSAGES", 20)
    monkeypatch.setattr(moves_module, "WINDOW_MESSAGES", 5)
    world.create("OTHERS", 1)
    world.down["ORDERS", 0] = FULL
    world.schedule("first", "ORDERS", 100)
    world.advance(200)
    for number in range(100):
        world.schedule(f"m{number:03}", "ORDERS", 1_000)
    world.schedule("other", "OTHERS", 1_000)
    world.advance(1_000)
    assert world.delivered("OTHERS") == ["other"]
    assert {each.reason for each in world.listed()} == {"STORAGE_FULL: no room"}
    world.up(("ORDERS", 0))
    world.advance(0)
    assert world.delivered("ORDERS") == ["first", *(f"m{number:03}" for number in range(100))]


def test_a_partition_that_does_not_answer_holds_up_no_other(
    world: SimulatedSchedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets_module, "MOVING_MESSAGES", 3)
    world.create("OTHERS", 1)
    for number in range(4):
        world.schedule(f"m{number}", "ORDERS", 100 + number)
    world.schedule("other", "OTHERS", 1_000)
    for _ in range(12):
        world.now += 100
        world.fire()
        while calls := [call for call in world.answerable() if call.address != "partition/ORDERS/0"]:
            world.answer(calls[0])
    assert world.delivered("OTHERS") == ["other"]
    world.drain()
    assert world.delivered("ORDERS") == ["m0", "m1", "m2", "m3"]


def test_a_lost_answer_doubles_nothing(world: SimulatedSchedule) -> None:
    for number in range(3):
        world.schedule(f"m{number}", "ORDERS", 1_000)
    world.now += 1_000
    world.fire()
    while not produces(world, "ORDERS"):
        world.answer(world.answerable()[0])
    world.lose_answer(next(call for call in world.calls if call.address == "partition/ORDERS/0"))
    world.crash()
    world.drain()
    assert world.delivered("ORDERS") == ["m0", "m1", "m2"]
    world.advance(1_000)
    assert world.delivered("ORDERS") == ["m0", "m1", "m2"]
    assert world.listed() == []


def stuck_intent(world: SimulatedSchedule, *, is_written: bool) -> None:
    """Leave a batch without an answer, and kill the scheduler."""
    world.schedule("a", "ORDERS", 1_000)
    world.now += 1_000
    world.fire()
    while not produces(world, "ORDERS"):
        world.answer(world.answerable()[0])
    world.crash(arriving=int(is_written))


@pytest.mark.parametrize("is_written", [True, False])
def test_after_a_day_the_log_is_searched_for_what_the_partition_has_forgotten(
    world: SimulatedSchedule, is_written: bool
) -> None:
    stuck_intent(world, is_written=is_written)
    world.now += 3 * 24 * 3_600_000
    world.forget_producers(("ORDERS", 0))
    world.start()
    world.advance(5_000)
    assert world.delivered("ORDERS") == ["a"]
    world.schedule("b", "ORDERS", 0)
    world.advance(5_000)
    assert world.delivered("ORDERS") == ["a", "b"]


def test_after_a_boot_with_an_older_clock_the_log_is_searched_too(world: SimulatedSchedule) -> None:
    """The age of the intent is unknown: the partition may have forgotten the producer."""
    stuck_intent(world, is_written=True)
    world.now -= 3 * 24 * 3_600_000
    world.forget_producers(("ORDERS", 0))
    world.start()
    world.advance(5_000)
    assert world.delivered("ORDERS") == ["a"]


@pytest.mark.parametrize("is_written", [True, False])
def test_a_partition_that_forgot_the_producer_early_is_searched_too(
    world: SimulatedSchedule, is_written: bool
) -> None:
    world.schedule("before", "ORDERS", 0)
    stuck_intent(world, is_written=is_written)
    world.forget_producers(("ORDERS", 0))
    world.start()
    world.advance(5_000)
    assert world.delivered("ORDERS") == ["before", "a"]


def test_a_refusal_does_not_hide_an_earlier_success(world: SimulatedSchedule) -> None:
    stuck_intent(world, is_written=True)
    world.down["ORDERS", 0] = ErrorBody(ErrorCode.MESSAGE_TOO_LARGE, "too large", False)
    world.drain()
    del world.down["ORDERS", 0]
    world.advance(5_000)
    assert world.delivered("ORDERS") == ["a"]


def test_a_topic_made_anew_gets_what_was_on_its_way(world: SimulatedSchedule) -> None:
    stuck_intent(world, is_written=True)
    world.delete("ORDERS")
    world.drain()
    assert [each.reason for each in world.listed()] == ["there is no topic 'ORDERS'"]
    world.create("ORDERS", 1)
    world.advance(5_000)
    assert world.delivered("ORDERS") == ["a"]


def test_what_was_on_its_way_to_a_topic_that_is_gone_can_be_cancelled(world: SimulatedSchedule) -> None:
    world.schedule("b", "ORDERS", 1_000)
    stuck_intent(world, is_written=False)
    world.delete("ORDERS")
    world.drain()
    assert world.cancel("a") == "done"
    world.create("ORDERS", 1)
    world.advance(5_000)
    assert world.delivered("ORDERS") == ["b"]


def test_a_full_scheduler_refuses_what_is_new(
    world: SimulatedSchedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_module, "PENDING_LIMIT", 2)
    for name in ("a", "b"):
        world.schedule(name, "ORDERS", 1_000)
    refused = world.schedule("c", "ORDERS", 1_000)
    assert (refused.error.code, refused.error.retriable) == (ErrorCode.OVERLOADED, True)
    assert world.schedule("a", "ORDERS", 1_000).duplicate
    world.advance(1_000)
    assert world.schedule("c", "ORDERS", 0).error is None


def test_a_stop_waits_for_what_is_being_recorded(world: SimulatedSchedule) -> None:
    record = ScheduleRecord(scheduled_id="a", topic="ORDERS", deliver_at_ms=world.now + 10)
    number = world.ask(Schedule(records=[record]))
    world.handle(StopRequested(world.now + 5_000))
    assert not world.is_stopped
    late = world.ask(Schedule(records=[record]))
    world.drain()
    assert world.replies[number].results[0].error is None
    assert world.replies[late].code == ErrorCode.SHUTTING_DOWN
    assert world.is_stopped


def test_nothing_is_moved_before_its_intent_is_durable(world: SimulatedSchedule) -> None:
    world.schedule("a", "ORDERS", 1_000)
    world.now += 1_000
    world.fire()
    for _ in range(20):
        others = [call for call in world.answerable() if not isinstance(call.request, Produce)]
        if not others:
            break
        world.answer(others[0])
    assert not produces(world, "ORDERS")
    [intent] = produces(world, "__delayed")
    assert intent.partition == 0
    world.fail(next(call for call in world.calls if isinstance(call.request, Produce)), LOST)
    assert not produces(world, "ORDERS")
    world.advance(1_000)
    assert world.delivered("ORDERS") == ["a"]
