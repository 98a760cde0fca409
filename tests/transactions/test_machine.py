"""The coordinator of transactions: begin, end and repeat, notifications, and crashes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from planaria.actors.journal.topics_watch import TopicsCall
from planaria.actors.transactions.machine import FORGET_CHECK_MS, OverdueTimer
from planaria.actors.transactions.transaction import LEGAL_PREDECESSORS, Transaction
from planaria.actors.transactions.waiting_requests import TIMEOUT_MS
from planaria.transport.machine import Answered
from planaria.transport.producer_ids import coordinator_of
from planaria.transport.protocol.data import InitProducer, Produce
from planaria.transport.protocol.errors import ErrorCode
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.transactions import (
    ID_EXPIRY_MS,
    LAST_EPOCH,
    AddToTransaction,
    EndTransaction,
    WriteMarkers,
)
from simulated_transactions import SimulatedTransactions, ending, identity

DAY_MS = 24 * 3600 * 1000

T0, T1, GROUP = "partition/T/0", "partition/T/1", "coordinator/billing"


@pytest.fixture
def coordinator() -> SimulatedTransactions:
    return SimulatedTransactions()


def test_an_end_is_told_to_every_participant(coordinator: SimulatedTransactions) -> None:
    who = coordinator.begin()
    assert coordinator_of(who[0]) == 0
    coordinator.add(who, 1)
    request = EndTransaction(
        producer_id=who[0], producer_epoch=who[1], commit=True, partitions={"T": [0]}, groups=["billing"]
    )
    assert identity(coordinator.request(request)) == (who[0], who[1] + 1)
    assert coordinator.told(who) == {(T0, True), (T1, True), (GROUP, True)}
    assert coordinator.states() == {"x": "CompleteCommit"}
    assert identity(coordinator.request(request)) == (who[0], who[1] + 1), "a repeat is answered as before"


def test_who_is_given_an_identity_is_told_where_to_ask_next(coordinator: SimulatedTransactions) -> None:
    reply = coordinator.request(InitProducer(transactional_id="x"))
    first = reply.endpoint
    assert first.endswith(".1")
    coordinator.start()
    coordinator.drain()
    ended = coordinator.end(identity(reply), commit=True)
    assert ended.endpoint == first[:-1] + "2"
    assert reply.node == ended.node == "n1"


def test_the_decision_is_durable_before_anybody_hears_of_it(coordinator: SimulatedTransactions) -> None:
    who = coordinator.begin()
    number = coordinator.ask(ending(who, commit=True))
    (append,) = [call for call in coordinator.calls if isinstance(call.request, Produce)]
    assert number not in coordinator.replies
    assert not any(isinstance(call.request, WriteMarkers) for call in coordinator.calls)
    coordinator.answer(append)
    assert identity(coordinator.replies[number]) == (who[0], who[1] + 1)
    assert any(isinstance(call.request, WriteMarkers) for call in coordinator.calls)


def test_a_repeated_or_delayed_end_touches_no_later_transaction(coordinator: SimulatedTransactions) -> None:
    first = coordinator.begin()
    second = identity(coordinator.end(first, commit=True))
    coordinator.add(second, 1)
    assert coordinator.end(first, commit=False).code == ErrorCode.INVALID_TRANSACTION
    assert identity(coordinator.end(first, commit=True)) == second
    assert coordinator.states() == {"x": "Ongoing"}
    third = identity(coordinator.end(second, commit=False))
    assert coordinator.told(second) == {(T0, False), (T1, False)}
    assert coordinator.end(first, commit=True).code == ErrorCode.PRODUCER_FENCED
    assert coordinator.end((third[0], third[1] + 1)).code == ErrorCode.INVALID_TRANSACTION
    assert coordinator.end((12345, 0)).code == ErrorCode.INVALID_TRANSACTION


def test_a_new_holder_ends_what_is_open_and_fences_the_old_one(coordinator: SimulatedTransactions) -> None:
    old = coordinator.begin()
    coordinator.add(old, 0)
    new = coordinator.begin()
    assert new[0] == old[0]
    assert new[1] > old[1]
    assert coordinator.told(old) == {(T0, False)}
    for commit in (True, False):
        assert coordinator.end(old, commit).code == ErrorCode.PRODUCER_FENCED
    refused = coordinator.request(
        InitProducer(transactional_id="x", producer_id=old[0], producer_epoch=old[1])
    )
    assert refused.code == ErrorCode.PRODUCER_FENCED
    assert identity(coordinator.end(new))[1] == new[1] + 1


def test_the_same_holder_may_go_on_after_an_error(coordinator: SimulatedTransactions) -> None:
    who = coordinator.begin()
    coordinator.add(who, 0)
    again = coordinator.begin(producer_id=who[0], producer_epoch=who[1])
    assert coordinator.told(who) == {(T0, False)}
    coordinator.end(again)  # its answer is lost: it retries with its old epoch
    once_more = coordinator.begin(producer_id=again[0], producer_epoch=again[1])
    assert once_more[1] == again[1] + 1
    assert coordinator.told(again) == {(T0, True)}
    assert coordinator.begin(producer_id=once_more[0], producer_epoch=once_more[1])[1] > once_more[1]


def test_what_is_open_for_too_long_is_aborted(coordinator: SimulatedTransactions) -> None:
    who = coordinator.begin(transaction_timeout_ms=1_000)
    coordinator.add(who, 0)
    coordinator.advance(999)
    assert coordinator.told(who) == set()
    coordinator.advance(1)
    assert coordinator.told(who) == {(T0, False)}
    assert coordinator.end(who).code == ErrorCode.TRANSACTION_ABORTED
    assert identity(coordinator.end(who, commit=False))[1] == who[1] + 1
    assert coordinator.begin(producer_id=who[0], producer_epoch=who[1])[1] == who[1] + 1


def test_what_is_overdue_without_a_number_is_looked_at_now_and_then(
    coordinator: SimulatedTransactions,
) -> None:
    who = coordinator.begin(transaction_timeout_ms=1_000)
    entry = coordinator.machine.service._requests.decided.transactions["x"]
    coordinator.machine.service._requests.decided.transactions["x"] = replace(
        entry, producer_epoch=LAST_EPOCH
    )
    coordinator.add((who[0], LAST_EPOCH), 0)
    coordinator.machine.service._requests.numbers._numbers.clear()
    coordinator.is_controller_up = False
    coordinator.fired.clear()
    coordinator.advance(3_500)
    assert coordinator.fired.count(OverdueTimer()) == 3
    coordinator.is_controller_up = True
    coordinator.advance(1_500)
    assert coordinator.told((who[0], LAST_EPOCH)) == {(T0, False)}


def test_who_comes_late_is_sent_the_marker(coordinator: SimulatedTransactions) -> None:
    who = coordinator.begin()
    coordinator.end(who, commit=True, partitions=(0,))
    assert coordinator.add(who, 1) == Done()
    assert (T1, True) in coordinator.told(who)
    coordinator.begin()
    fenced = (who[0], who[1] + 1)
    assert coordinator.add(fenced, 1) == Done()
    assert coordinator.told(fenced) == {(T1, False)}
    assert coordinator.add((999, 0), 1) == Done(), "no transaction hangs for that nobody knows it"
    assert coordinator.told((999, 0)) == {(T1, False)}


def test_nothing_written_is_nothing_to_end(coordinator: SimulatedTransactions) -> None:
    who = coordinator.begin()
    assert identity(coordinator.end(who, partitions=())) == who
    assert coordinator.markers == []


def test_the_next_end_waits_for_the_markers_of_the_last(coordinator: SimulatedTransactions) -> None:
    first = coordinator.begin()
    coordinator.ask(ending(first, commit=True))
    (append,) = [call for call in coordinator.calls if isinstance(call.request, Produce)]
    coordinator.answer(append)
    (markers,) = [call for call in coordinator.calls if isinstance(call.request, WriteMarkers)]
    second = (first[0], first[1] + 1)
    number = coordinator.ask(ending(second, commit=False))
    assert not any(isinstance(call.request, Produce) for call in coordinator.calls)
    coordinator.lose_answer(markers)
    coordinator.advance(1_000)
    coordinator.drain()
    assert identity(coordinator.replies[number])[1] == second[1] + 1
    assert coordinator.told(second) == {(T0, False)}


def test_the_next_holder_is_told_whom_it_waits_for(coordinator: SimulatedTransactions) -> None:
    old = coordinator.begin()
    coordinator.ask(ending(old, commit=True))
    for call in coordinator.answerable():
        if isinstance(call.request, Produce):
            coordinator.answer(call)
    (markers,) = [call for call in coordinator.calls if isinstance(call.request, WriteMarkers)]
    numbers = [coordinator.ask(InitProducer(transactional_id="x")) for _ in range(2)]
    numbers.append(coordinator.ask(ending((old[0], old[1] + 1), commit=True)))
    assert not coordinator.replies.keys() & set(numbers), "the markers are on their way"
    coordinator.calls.remove(markers)
    coordinator.advance(TIMEOUT_MS)
    for number in numbers:
        refusal = coordinator.replies[number]
        assert (refusal.code, refusal.retriable) == (ErrorCode.CONCURRENT_TRANSACTIONS, True)
        assert T0 in refusal.message
    coordinator.calls.append(markers)
    coordinator.drain()
    entry = coordinator.machine.service._requests.decided.transactions["x"]
    assert (entry.producer_id, entry.producer_epoch) == (old[0], old[1] + 1), "who has gone gets nothing"
    assert coordinator.begin() == (old[0], old[1] + 2)


def test_a_participant_whose_topic_is_gone_is_not_waited_for(coordinator: SimulatedTransactions) -> None:
    who = coordinator.begin()
    coordinator.ask(ending(who, commit=True))
    (append,) = [call for call in coordinator.calls if isinstance(call.request, Produce)]
    coordinator.answer(append)
    coordinator.topics.clear()
    coordinator.version += 1
    (markers,) = [call for call in coordinator.calls if isinstance(call.request, WriteMarkers)]
    coordinator.answer(next(call for call in coordinator.calls if isinstance(call.key, TopicsCall)))
    assert markers not in coordinator.calls, "it is withdrawn"
    coordinator.handle(Answered(markers.key, Done()))  # it was received in the same turn
    coordinator.drain()
    assert coordinator.states() == {"x": "CompleteCommit"}


def test_a_topic_that_is_too_new_to_be_known_is_told(coordinator: SimulatedTransactions) -> None:
    who = coordinator.begin()
    request = EndTransaction(producer_id=who[0], producer_epoch=who[1], commit=True, partitions={"New": [0]})
    coordinator.request(request)
    assert coordinator.told(who) == {("partition/New/0", True)}


def test_a_report_is_not_told_of_an_end_that_is_not_durable(coordinator: SimulatedTransactions) -> None:
    who = coordinator.begin(transaction_timeout_ms=1_000)
    coordinator.ask(ending(who, True, (0, 1)))
    report = AddToTransaction(producer_id=who[0], producer_epoch=who[1], partitions={"T": [0]})
    number = coordinator.ask(report)
    assert coordinator.replies[number].code == ErrorCode.CONCURRENT_TRANSACTIONS
    assert coordinator.replies[number].retriable
    assert not any(isinstance(call.request, WriteMarkers) for call in coordinator.calls)
    coordinator.drain()
    assert coordinator.told(who) == {(T0, True), (T1, True)}


def test_ids_that_were_used_up_are_forgotten_too(coordinator: SimulatedTransactions) -> None:
    first = who = coordinator.begin()
    for _ in range(2):
        entry = coordinator.machine.service._requests.decided.transactions["x"]
        coordinator.machine.service._requests.decided.transactions["x"] = replace(
            entry, producer_epoch=LAST_EPOCH
        )
        who = identity(coordinator.end((who[0], LAST_EPOCH)))
    coordinator.end(who)
    coordinator.advance(8 * 24 * 3600 * 1000)
    assert coordinator.states() == {}
    assert coordinator.end(first).code == ErrorCode.INVALID_TRANSACTION


def test_epochs_used_up_go_on_under_another_id(coordinator: SimulatedTransactions) -> None:
    who = coordinator.begin()
    entry = coordinator.machine.service._requests.decided.transactions["x"]
    last = Transaction("Empty", who[0], LAST_EPOCH, entry.timeout_ms, entry.changed_ms)
    coordinator.machine.service._requests.decided.transactions["x"] = last
    following = identity(coordinator.end((who[0], LAST_EPOCH)))
    assert following[0] != who[0]
    assert following[1] == 0
    assert identity(coordinator.end((who[0], LAST_EPOCH))) == following
    assert identity(coordinator.end(following)) == (following[0], 1)


def test_unused_ids_are_forgotten(coordinator: SimulatedTransactions) -> None:
    coordinator.begin("unused")
    coordinator.advance(6 * 24 * 3600 * 1000)
    coordinator.begin("used")
    coordinator.advance(25 * 3600 * 1000)
    assert coordinator.states() == {"used": "Empty"}
    coordinator.start()
    coordinator.drain()
    assert coordinator.states() == {"used": "Empty"}


def test_unused_ids_are_forgotten_in_time_after_a_boot_that_set_the_clock_back(
    coordinator: SimulatedTransactions,
) -> None:
    coordinator.begin("unused")
    coordinator.now -= 60 * DAY_MS
    coordinator.start()
    coordinator.drain()
    coordinator.advance(ID_EXPIRY_MS - DAY_MS)
    coordinator.begin("used")
    coordinator.advance(DAY_MS + 2 * FORGET_CHECK_MS)
    assert coordinator.states() == {"used": "Empty"}


def test_every_state_has_its_predecessors() -> None:
    for state, predecessors in LEGAL_PREDECESSORS.items():
        for before in LEGAL_PREDECESSORS:
            entry = Transaction(before, 1, 0, 1, 0)
            if before in predecessors:
                assert entry.moved(state, 1).state == state
            else:
                with pytest.raises(AssertionError):
                    entry.moved(state, 1)


@pytest.mark.parametrize("step_ms", [7_200_000, -7_200_000])
def test_a_timeout_is_a_duration_when_the_clock_steps_before_a_restart(
    coordinator: SimulatedTransactions, step_ms: int
) -> None:
    """Back by hours: it stays open no longer than its timeout after the restart, also when it is joined again."""
    who = coordinator.begin(transaction_timeout_ms=3_000)
    coordinator.add(who, 0)
    coordinator.now += step_ms
    coordinator.start()
    coordinator.drain()
    if step_ms < 0:
        coordinator.advance(2_000)
        coordinator.add(who, 1)
        assert coordinator.states() == {"x": "Ongoing"}
    coordinator.advance(1_500)
    assert coordinator.states() == {"x": "CompleteAbort"}


@given(st.data())
def test_a_transaction_ends_one_way_whatever_crashes(data: st.DataObject) -> None:
    """Holders come, end, repeat; the coordinator dies with any of its calls done or not, answered or not."""
    coordinator = SimulatedTransactions()
    holder = coordinator.begin(transaction_timeout_ms=1_000)
    used = {holder}
    answered: dict[tuple[int, int], bool] = {}
    asked: list[tuple[int, tuple[int, int], bool]] = []
    for _ in range(data.draw(st.integers(1, 25))):
        step = data.draw(
            st.sampled_from(["end", "repeat", "report", "take over", "crash", "call", "call", "call", "time"])
        )
        if step == "end":
            commit = data.draw(st.booleans())
            asked.append((coordinator.ask(ending(holder, commit, (0, 1))), holder, commit))
        elif step == "repeat" and asked:
            _, who, commit = data.draw(st.sampled_from(asked))
            asked.append((coordinator.ask(ending(who, commit, (0, 1))), who, commit))
        elif step == "report":
            who = data.draw(st.sampled_from(sorted({holder, *(each for _, each, _ in asked)})))
            tp = {"T": [data.draw(st.integers(0, 1))]}
            coordinator.ask(AddToTransaction(producer_id=who[0], producer_epoch=who[1], partitions=tp))
        elif step == "take over":
            coordinator.drain()
            holder = coordinator.begin(transaction_timeout_ms=1_000)
            assert holder not in used, "an identity has one holder"
            used.add(holder)
        elif step == "crash":
            coordinator.start()
            coordinator.drain()
        elif step == "call" and coordinator.answerable():
            call = data.draw(st.sampled_from(coordinator.answerable()))
            data.draw(st.sampled_from([coordinator.answer, coordinator.lose_answer, coordinator.fail]))(call)
        elif step == "time":
            coordinator.advance(data.draw(st.sampled_from([50, 200, 1_500])))
        for number, who, commit in asked:
            reply = coordinator.replies.get(number)
            if reply is not None and not hasattr(reply, "code"):
                assert answered.setdefault(who, commit) == commit, "two answers"
                if who == holder:
                    holder = identity(reply)
                    used.add(holder)
    coordinator.start()
    coordinator.drain()
    coordinator.advance(5_000)
    coordinator.drain()
    # A participant's ended transaction is over: it ignores all later markers.
    first: dict[tuple[int, int], dict[str, bool]] = {}
    for address, marker in coordinator.markers:
        told = first.setdefault((marker.producer_id, marker.producer_epoch), {})
        told.setdefault(address, marker.committed)
    assert all(len(set(told.values())) == 1 for told in first.values()), "a transaction ended both ways"
    for who, commit in answered.items():
        if commit:
            assert first[who] == {T0: True, T1: True}
        else:
            assert True not in first.get(who, {}).values(), "one that joins an abort late reports by itself"
    assert set(coordinator.states().values()) <= {"Empty", "CompleteCommit", "CompleteAbort"}, "one hangs"
