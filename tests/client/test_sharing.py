"""The share consumer's machine without threads: rounds, renewals, the end, and invariants over random walks."""

import random
from typing import Any

import pytest

from planaria.transport.client import acquired_ahead, rounds, sharing
from planaria.transport.client.acknowledgements import ACCEPTED, RELEASED, merged
from planaria.transport.client.rounds import DONE, EndAsked, FlushAsked, RenewAsked
from planaria.transport.machine import Answered, Failed
from planaria.transport.protocol.errors import ErrorBody, ErrorCode, PlanariaError
from planaria.transport.protocol.groups import LeaveGroup
from planaria.transport.protocol.shares import (
    Acknowledge,
    AcknowledgeReply,
    AcknowledgeResult,
    Acquire,
    AcquiredRange,
)
from sharing_driver import LOCK_MS, Driver, P, Waiter, message


def test_verdicts_are_sent_in_one_round_a_moment_after_the_first() -> None:
    driver = Driver()
    driver.acquire(0, 9)
    driver.say(0, 1, 2)
    driver.say(5, said=RELEASED)
    assert driver.asked == []
    driver.pass_time(sharing.SEND_AFTER_MS)
    assert driver.ranges() == [("accept", 0, 2), ("release", 5, 5)]
    driver.answer()
    driver.say(6)
    driver.pass_time(sharing.SEND_AFTER_MS)
    driver.answer()
    assert driver.done == {0: "accept", 1: "accept", 2: "accept", 5: "release", 6: "accept"}


def test_many_verdicts_are_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "SEND_AT", 4)
    monkeypatch.setattr(rounds, "SEND_AT", 4)
    driver = Driver()
    driver.acquire(0, 9)
    driver.say(0, 2)
    driver.say(4, 6, 8)
    driver.pass_time(0)
    assert driver.ranges() == [("accept", at, at) for at in (0, 2, 4, 6)]
    driver.answer()
    assert driver.ranges() == [("accept", 8, 8)]
    driver.answer()
    driver.say(1)
    driver.pass_time(sharing.SEND_AFTER_MS)
    assert driver.ranges() == [("accept", 1, 1)]


def test_a_verdict_without_an_answer_is_sent_again() -> None:
    driver = Driver()
    driver.acquire(0, 1)
    driver.say(0)
    flush = driver.wait_for(FlushAsked)
    driver.say(1)
    driver.fail()
    (failed,) = flush.outcomes
    assert isinstance(failed, Failed)
    driver.pass_time(sharing.SEND_AFTER_MS)
    assert driver.ranges() == [("accept", 0, 1)]


def test_one_lost_lock_costs_no_other_verdict_and_is_reported_once() -> None:
    driver = Driver()
    driver.acquire(0, 4)
    driver.locked.discard(2)
    driver.say(0, 1, 2, 3)
    flush = driver.wait_for(FlushAsked)
    driver.answer()
    assert flush.outcomes == []
    driver.answer()
    assert flush.outcomes == [DONE]
    assert set(driver.done) == {0, 1, 3}
    assert [(each.offset, each.error.code) for each in driver.machine.holdings.take_refused()] == [
        (2, ErrorCode.NOT_ACQUIRED)
    ]
    assert driver.machine.holdings.take_refused() == []


def test_locks_are_renewed_until_the_program_has_not_polled_for_too_long() -> None:
    driver = Driver(max_poll_interval_ms=25_000)
    driver.acquire(0, 1)
    driver.pass_time(LOCK_MS // 3)
    assert driver.ranges() == [("renew", 0, 1)]
    driver.answer()
    driver.pass_time(LOCK_MS // 3)
    driver.answer()
    driver.pass_time(LOCK_MS // 3)
    assert driver.asked == []
    assert driver.machine.begin_poll(1, driver.now) == []
    driver.pass_time(LOCK_MS // 3)
    assert driver.ranges() == [("renew", 0, 1)]


def test_a_message_whose_lock_is_lost_at_its_renewal_is_not_held() -> None:
    driver = Driver()
    driver.acquire(0, 1)
    driver.locked.discard(1)
    renewed = driver.wait_for(RenewAsked)
    driver.answer()
    driver.answer()
    assert renewed.outcomes == [DONE]
    with pytest.raises(PlanariaError, match="not held"):
        driver.say(1)
    driver.say(0)


def test_an_implicit_poll_accepts_what_was_returned_and_not_what_a_loop_left() -> None:
    driver = Driver(acknowledge="implicit")
    driver.acquire(0, 3)
    loop = driver.machine.loop.begin([message(2), message(3)])
    assert driver.machine.loop.has(loop)
    driver.machine.yielded(loop.popleft())
    driver.machine.end_loop(loop, driver.now)
    assert [each.offset for each in driver.machine.begin_poll(10, driver.now)] == [3]
    assert not driver.machine.loop.has(loop)
    driver.wait_for(FlushAsked)
    assert driver.ranges() == [("accept", 0, 2)]


def test_what_a_left_loop_holds_is_released_within_a_third_of_the_lock() -> None:
    driver = Driver()
    driver.acquire(0, 1)
    loop = driver.machine.loop.begin([message(0), message(1)])
    loop.popleft()
    driver.machine.end_loop(loop, driver.now)
    driver.turn()
    driver.pass_time(LOCK_MS // 3)
    driver.answer()  # the renewal of both
    driver.pass_time(sharing.SEND_AFTER_MS)
    assert driver.ranges() == [("release", 1, 1)]
    assert driver.machine.begin_poll(10, driver.now) == []


def test_a_poll_does_not_wait_for_a_round_in_flight_and_a_flush_does() -> None:
    driver = Driver()
    driver.acquire(0, 1)
    driver.say(0)
    driver.pass_time(sharing.SEND_AFTER_MS)
    driver.say(1)
    assert driver.poll().acknowledgements == []
    flush = driver.wait_for(FlushAsked)
    driver.answer()
    assert flush.outcomes == []
    driver.answer()
    assert flush.outcomes == [DONE]


def test_a_poll_sends_the_pending_verdicts_before_its_own_request() -> None:
    driver = Driver()
    driver.acquire(0, 3)
    driver.say(0, 1)
    request = driver.poll()
    assert driver.ranges() == [("accept", 0, 1)]
    driver.deliver(request, 4, 5)
    driver.say(2)
    driver.poll()
    assert driver.ranges() == [("accept", 0, 1)], "one round at a time"
    driver.answer()
    assert driver.ranges() == [("accept", 2, 2)], "at once: a poll has asked for it"
    driver.answer()
    assert driver.done == {0: "accept", 1: "accept", 2: "accept"}
    driver.say(3)
    assert driver.asked == [], "no poll since"


def test_a_message_that_is_not_held_costs_no_other_its_verdict() -> None:
    """Otherwise those after it would be held, and their locks renewed, for as long as the program polls."""
    driver = Driver()
    driver.acquire(0, 3)
    driver.say(1)
    with pytest.raises(PlanariaError, match=r"T/0 at 1.* is not held"):
        driver.say(0, 1, 2, 3)
    driver.turn()
    driver.pass_time(sharing.SEND_AFTER_MS)
    driver.answer()
    assert driver.done == dict.fromkeys(range(4), "accept")


def test_a_verdict_is_about_the_delivery_that_brought_its_message() -> None:
    """A program may keep a message whose lock has expired, and receive it again."""
    driver = Driver()
    driver.acquire(0, 3)
    driver.machine.holdings.hold([AcquiredRange("T", 0, 1, 2, delivery_count=2)])
    with pytest.raises(PlanariaError, match=r"T/0 at 1.* is not held"):
        driver.machine.acknowledge([message(0), message(1), message(3)], ACCEPTED)
    driver.machine.settle([(P, (1,), ACCEPTED)])
    assert not driver.machine.holdings.has(message(1))
    assert driver.machine.holdings.has(message(1, 2))
    driver.machine.acknowledge([message(1, 2)], ACCEPTED)
    driver.machine.close()
    said = driver.machine.holdings.take_said()[P]
    assert [(offset, each.verdict, each.delivery_count) for offset, each in sorted(said.items())] == [
        (0, "accept", 1),
        (1, "accept", 2),
        (2, "release", 2),
        (3, "accept", 1),
    ]
    sent = merged(P, said)
    assert [(each.first_offset, each.last_offset, each.delivery_count) for each in sent] == [
        (0, 0, 1), (1, 1, 2), (2, 2, 2), (3, 3, 1),
    ]  # fmt: skip


def test_a_verdict_is_sent_though_a_poll_has_sent_those_before_it() -> None:
    """The network thread may receive the announcement of a verdict when a poll has already sent it."""
    driver = Driver()
    driver.acquire(0, 1)
    driver.machine.acknowledge([message(0)], ACCEPTED)  # the network thread has not had its turn yet
    driver.poll()
    driver.answer()
    driver.say(1, said=RELEASED)
    driver.pass_time(sharing.SEND_AFTER_MS)
    driver.answer()
    assert driver.done == {0: "accept", 1: "release"}


def test_verdicts_that_a_poll_has_sent_in_vain_are_sent_again() -> None:
    driver = Driver()
    driver.acquire(0, 1)
    driver.say(0)
    driver.poll()
    driver.fail()
    driver.pass_time(sharing.SEND_AFTER_MS)
    assert driver.ranges() == [("accept", 0, 0)]


def test_a_verdict_that_came_too_late_does_not_reach_the_next_delivery_of_its_message() -> None:
    driver = Driver()
    driver.acquire(0, 2)
    driver.say(0, 1, 2)
    driver.locked -= {0, 1}
    driver.deliver(driver.poll(), 0, 1)
    driver.perform(
        driver.machine.handle(
            Answered(
                driver.asked.pop().key,
                AcknowledgeReply(results=[AcknowledgeResult(ErrorBody(ErrorCode.NOT_ACQUIRED, ""))]),
            ),
            driver.now,
        )
    )
    assert driver.ranges() == [("accept", 2, None)]
    driver.answer()
    assert driver.done == {2: "accept"}
    assert driver.locked == {0, 1}
    assert [each.offset for each in driver.machine.holdings.take_refused()] == [0, 1]
    driver.say(0, 1)


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_flush_waits_for_the_verdicts_that_a_poll_has_sent(is_lost: bool) -> None:
    driver = Driver()
    driver.acquire(0, 1)
    driver.say(0)
    driver.poll()
    flush = driver.wait_for(FlushAsked)
    assert (len(driver.asked), flush.outcomes) == (1, [])
    if is_lost:
        driver.fail()
    driver.answer()
    assert flush.outcomes == [DONE]
    assert driver.done == {0: "accept"}


def alternating(**options: Any) -> Driver:
    """Return a driver of a program that has polled at once after a flush, and has acknowledged all it got."""
    driver = Driver(**options)
    driver.acquire(0, 0)
    driver.say(0)
    driver.wait_for(FlushAsked)
    driver.answer()
    driver.acquire(1, 2)
    return driver


def test_a_flush_acquires_for_a_program_that_polls_after_each() -> None:
    driver = alternating()
    driver.say(1, 2)
    flush = driver.wait_for(FlushAsked)
    (ask,) = driver.asked
    assert isinstance(ask.request, Acquire)
    assert (ask.request.max_records, ask.request.max_wait_ms) == (10, 0)
    assert driver.ranges() == [("accept", 1, 2)]
    driver.answer(3, 7)
    assert flush.outcomes == [DONE]
    taken = [driver.machine.take_ahead(3, driver.now) for _ in range(3)]
    assert [[(each.first_offset, each.last_offset) for each in some] for some in taken] == [
        [(3, 5)],
        [(6, 7)],
        [],
    ]


def test_a_loop_with_a_flush_for_each_message_does_not_set_a_timer_with_each_one() -> None:
    driver = alternating()
    driver.say(1, 2)
    set_before = driver.timers_set
    for offset in range(3, 13):
        driver.wait_for(FlushAsked)
        driver.answer(offset, offset)
        driver.machine.take_ahead(1, driver.now)
        driver.say(offset)
    assert driver.timers_set - set_before == 1, "of the records that a flush has acquired"
    driver.pass_time(sharing.SEND_AFTER_MS)
    assert driver.ranges() == [("accept", 12, 12)], "it is sent no later than the first verdict alone"
    driver.answer()
    driver.wait_for(FlushAsked)
    driver.acquire(13, 13)
    driver.say(13)
    driver.pass_time(sharing.SEND_AFTER_MS)
    assert driver.ranges() == [("accept", 13, 13)], "the timer is set again when it is over"


def test_no_flush_acquires_for_a_program_that_holds_records_or_may_not_poll_again() -> None:
    driver = alternating()
    driver.say(1)
    driver.wait_for(FlushAsked)
    assert isinstance(driver.asked[0].request, Acknowledge), "it works on another record"
    driver.answer()
    driver.pass_time(1_000)
    driver.acquire(3, 3)
    driver.say(2, 3)
    driver.wait_for(FlushAsked)
    assert isinstance(driver.asked[0].request, Acknowledge), "its last poll came late"
    driver = alternating(acknowledge="implicit")
    driver.say(1, 2)
    driver.wait_for(FlushAsked)
    assert isinstance(driver.asked[0].request, Acknowledge), "a poll would accept them unseen"


def test_what_a_flush_has_acquired_is_released_unless_a_poll_takes_it_soon() -> None:
    driver = alternating()
    driver.say(1, 2)
    driver.wait_for(FlushAsked)
    driver.answer(3, 4)
    driver.pass_time(acquired_ahead.KEPT_MS)
    assert driver.ranges() == [("release", 3, 4)]
    driver.answer()
    assert driver.machine.take_ahead(10, driver.now) == []
    driver.acquire(5, 5)
    driver.say(5)
    driver.wait_for(FlushAsked)
    assert isinstance(driver.asked[0].request, Acknowledge), "the program does not poll after each flush"


def test_what_a_later_flush_has_acquired_is_released_too() -> None:
    driver = alternating()
    driver.say(1, 2)
    driver.wait_for(FlushAsked)
    driver.answer(3, 3)
    assert driver.machine.take_ahead(1, driver.now)
    driver.pass_time(acquired_ahead.KEPT_MS)
    driver.say(3)
    driver.wait_for(FlushAsked)
    driver.answer(4, 4)
    driver.pass_time(acquired_ahead.KEPT_MS)
    assert driver.ranges() == [("release", 4, 4)]


def test_verdicts_count_though_the_records_of_the_next_poll_are_refused() -> None:
    driver = alternating()
    driver.say(1, 2)
    flush = driver.wait_for(FlushAsked)
    driver.fail(retriable=False)
    assert isinstance(driver.asked[0].request, Acknowledge)
    driver.answer()
    assert flush.outcomes == [DONE]
    assert driver.done == dict.fromkeys(range(3), "accept")


def test_the_end_sends_all_verdicts_releases_the_rest_and_leaves() -> None:
    driver = Driver()
    driver.acquire(0, 2)
    driver.say(1)
    driver.machine.close()
    end = driver.wait_for(EndAsked, 500)
    assert driver.ranges() == [("release", 0, 0), ("accept", 1, 1), ("release", 2, 2)]
    assert driver.asked[0].timeout_ms == 500
    driver.answer()
    assert isinstance(driver.asked[0].request, LeaveGroup)
    assert end.outcomes == []
    driver.answer()
    assert end.outcomes == [DONE]
    assert driver.machine.rounds.state == "left"


def test_a_consumer_that_never_acquired_ends_without_a_request() -> None:
    driver = Driver()
    driver.machine.close()
    assert driver.wait_for(EndAsked, 500).outcomes == [DONE]
    assert driver.asked == []


@pytest.mark.parametrize("seed", range(40))
def test_each_message_has_one_verdict_and_each_wait_one_outcome_in_random_walks(seed: int) -> None:
    choose = random.Random(seed)
    driver = Driver()
    next_offset = 0
    said: dict[int, str] = {}
    waits: list[Waiter] = []
    polling: Acquire | None = None
    got: set[int] = set()
    """Messages that the program has received."""
    for _ in range(200):
        held = sorted(got & driver.machine.holdings._held.get(P, {}).keys())
        match choose.choice(
            (
                *(
                    "poll",
                    "poll",
                    "poll",
                    "deliver",
                    "deliver",
                    "say",
                    "say",
                    "answer",
                    "answer",
                    "fail",
                ),
                *("flush", "flush", "renew", "time", "lose"),
            )
        ):
            case "poll" if polling is None:
                ahead = driver.machine.take_ahead(3, driver.now)
                got.update(at for each in ahead for at in range(each.first_offset, each.last_offset + 1))
                if not ahead:
                    polling = driver.poll()
            case "deliver" if polling is not None:
                last = next_offset + choose.randint(-1, 4)
                driver.deliver(polling, next_offset, last)
                got.update(range(next_offset, last + 1))
                next_offset, polling = next_offset + 5, None
            case "say" if held:
                verdict = choose.choice([ACCEPTED, RELEASED])
                chosen = choose.sample(held, choose.randint(1, len(held)))
                driver.say(*chosen, said=verdict)
                assert not said.keys() & set(chosen)
                said |= dict.fromkeys(chosen, verdict.verdict)
                with pytest.raises(PlanariaError):
                    driver.say(chosen[0])
            case "answer" if driver.asked:
                driver.answer(next_offset, next_offset + choose.randint(-1, 4))
                next_offset += 5
            case "fail" if driver.asked:
                driver.fail(took_effect=choose.random() < 0.5, retriable=choose.random() < 0.8)
            case "flush":
                waits.append(driver.wait_for(FlushAsked))
            case "renew":
                waits.append(driver.wait_for(RenewAsked))
            case "time":
                driver.pass_time(choose.choice([10, 100, LOCK_MS // 3]))
            case "lose" if driver.locked:
                driver.locked.discard(choose.choice(sorted(driver.locked)))
        assert len(driver.asked) <= 1, "one round at a time"
        assert all(len(wait.outcomes) <= 1 for wait in waits)
        unseen = driver.done.keys() - got
        assert all(said[at] == verdict for at, verdict in driver.done.items() if at not in unseen)
        assert all(driver.done[at] == "release" for at in unseen)
    if polling is not None:
        driver.deliver(polling, 0, -1)
    driver.machine.close()
    end = driver.wait_for(EndAsked, 500)
    while driver.asked:
        driver.answer()
    assert end.outcomes == [DONE]
    assert all(len(wait.outcomes) == 1 for wait in waits)
    refused = {each.offset for each in driver.machine.holdings.take_refused()}
    assert said.keys() <= driver.done.keys() | refused, "a verdict was lost"
