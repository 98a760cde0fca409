"""The processor time of the console: the share that holds whatever comes, and who gets it."""

import random
from collections import Counter

import pytest
from starlette.requests import Request

from planaria.supervisor.console.pace import count_for_user, flow_of, flow_of_address
from planaria.supervisor.console.turns import MAX_REMEMBERED, Turns

SHARE, BURST_S = 0.2, 0.5


class Processor:
    """A clock, and the processor time used."""

    def __init__(self) -> None:
        self.now_s = self.used_s = 100.0
        self.turns: Turns[float] = Turns(SHARE, BURST_S, lambda: self.now_s, lambda: self.used_s)

    def work(self, took_s: float) -> None:
        self.now_s += took_s
        self.used_s += took_s

    def serve(self, turns: int) -> None:
        """Give turns, each to a piece of work that takes as long as its waiter says."""
        for _ in range(turns):
            self.work(self.next())

    def next(self) -> float:
        self.now_s += self.turns.wait_s() + 1e-9
        found = self.turns.next()
        assert found is not None, "it waited for as long as it was told to"
        return found


@pytest.fixture
def processor() -> Processor:
    return Processor()


def test_work_is_free_until_the_burst_is_used_and_again_when_it_is_paid_off(processor: Processor) -> None:
    assert processor.turns.is_free("a")
    processor.used_s += BURST_S
    assert processor.turns.is_free("a")
    processor.used_s += 0.1
    assert not processor.turns.is_free("a")
    assert processor.turns.wait_s() == pytest.approx(0.1 / SHARE)
    processor.now_s += 0.1 / SHARE + 1e-9
    assert processor.turns.is_free("a")


def test_a_process_that_was_quiet_for_an_hour_has_one_burst(processor: Processor) -> None:
    processor.now_s += 3_600
    assert processor.turns.is_free("a")
    processor.used_s += BURST_S + 0.1
    assert not processor.turns.is_free("a")


@pytest.mark.parametrize("seed", range(5))
def test_the_share_holds_whatever_arrives(processor: Processor, seed: int) -> None:
    chance = random.Random(seed)
    began_s, largest_s = processor.now_s, 0.0
    for _ in range(2_000):
        flow, took_s = f"flow {chance.randrange(20)}", chance.choice([0.0001, 0.002, 0.05])
        largest_s = max(largest_s, took_s)
        if processor.turns.is_free(flow):
            processor.work(took_s)
        else:
            processor.turns.wait(flow, took_s)
        processor.now_s += chance.random() * 0.002
        if chance.random() < 0.5 and (given_s := processor.turns.next()) is not None:
            processor.work(given_s)
        used_s, elapsed_s = processor.used_s - 100, processor.now_s - began_s
        assert used_s <= BURST_S + SHARE * elapsed_s + largest_s
    assert processor.turns.has_waiting


def test_one_connection_waits_for_one_turn_of_a_flow_of_thousands(processor: Processor) -> None:
    for _ in range(5_000):
        processor.turns.wait("crowd", 0.003)
    processor.serve(100)
    processor.turns.wait("person", 0.004)
    before_s = processor.now_s
    processor.serve(2)
    assert processor.now_s - before_s < 3 * 0.004 / SHARE
    processor.turns.wait("person", 0.004)
    processor.serve(2)
    assert [*processor.turns._waiting] == ["crowd"]


def test_flows_have_equal_time_and_not_equal_numbers_of_turns(processor: Processor) -> None:
    for _ in range(1_000):
        processor.turns.wait("cheap", 0.001)
        processor.turns.wait("dear", 0.01)
    given: Counter[float] = Counter()
    for _ in range(500):
        took_s = processor.next()
        processor.work(took_s)
        given[took_s] += took_s
    assert given[0.001] == pytest.approx(given[0.01], rel=0.1)


def test_a_flow_is_owed_nothing_for_the_time_in_which_it_wanted_nothing(processor: Processor) -> None:
    for _ in range(1_000):
        processor.turns.wait("steady", 0.01)
    processor.serve(500)
    for _ in range(100):
        processor.turns.wait("late", 0.01)
    processor.serve(100)
    assert len(processor.turns._waiting["late"]) == pytest.approx(50, abs=2)


def test_the_memory_of_flows_is_bounded(processor: Processor) -> None:
    for number in range(10 * MAX_REMEMBERED):
        processor.turns.is_free(f"address {number}")
        processor.now_s += 1
    assert len(processor.turns._spent_s) <= MAX_REMEMBERED + 1


def test_a_flow_is_an_address_a_network_or_a_signed_in_user() -> None:
    assert flow_of_address("192.0.2.7") == "192.0.2.7"
    assert flow_of_address("2001:db8::1") == flow_of_address("2001:db8::ffff:2")
    assert flow_of_address("2001:db8:0:1::1") != flow_of_address("2001:db8::1")
    scope = {"type": "http", "client": ("192.0.2.7", 1), "state": {}, "headers": []}
    assert flow_of(scope) == "192.0.2.7"
    count_for_user(Request(scope), "ann")
    assert flow_of(scope) == "user ann"
