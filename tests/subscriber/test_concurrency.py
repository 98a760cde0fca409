"""Several records in flight: the ones that may start, commits beyond the first gap, records tried alone."""

from typing import Any

from planaria.actors.subscriber.commits import COMMIT_MS
from planaria.actors.subscriber.effects import (
    Commit,
    Failure,
    HandlerReturned,
    HandlerTimedOut,
    HandOver,
    PriorAttempt,
    Recall,
    Recalled,
    Run,
)
from planaria.actors.subscriber.progress import Ahead, from_metadata
from planaria.actors.subscriber.recovered_state import Finished, Suspect
from planaria.actors.subscriber.runs import SLICE_MS
from subscriber_pool import Pool, keyed
from subscriber_script import FakeMessage, Script


def test_keys_side_by_side_and_each_in_order() -> None:
    pool = Pool(3)
    assert pool.polled(keyed("abaacb")) == [0, 1, 4]
    assert pool.ran(1) == [5]
    assert pool.ran(0) == [2]
    assert pool.ran(4) == []
    assert [record.offset for record in pool.runs[2].records] == [2, 3]


def warmed_up(concurrency: int, **changed: Any) -> Pool:
    """Return a pool whose handler has been quick so far: runs are long."""
    pool = Pool(concurrency, **changed)
    first = 0
    for size in (1, 2, 4, 8):
        assert pool.polled(keyed("z" * size, first)) == [first]
        assert pool.ran(first) == []
        first += size
    return pool


def test_a_quick_handler_is_given_the_records_of_several_keys_at_a_time() -> None:
    pool = warmed_up(2)
    assert pool.polled(keyed("abcdefghab", 15)) == [15, 19]
    runs = [[record.offset for record in pool.runs[first].records] for first in (15, 19)]
    assert runs == [[15, 23, 16, 24, 17, 18], [19, 20]]
    assert pool.ran(15) == [21]
    assert pool.ran(19) == [22]
    assert pool.ran(22) == pool.ran(21) == []
    assert pool.commit() == (25, "")


def test_a_slow_handler_is_given_one_record_at_a_time() -> None:
    pool = warmed_up(2)
    pool.polled(keyed("abcdefghijklmnop", 15))
    while pool.runs:
        pool.script.now += 20
        pool.ran(min(pool.runs))
    assert pool.polled(keyed("abcdefgh", 95)) == [95, 96]
    assert [len(run.records) for run in pool.runs.values()] == [1, 1]


def test_a_failure_in_the_middle_of_a_run_is_its_own_key_s() -> None:
    pool = warmed_up(2, backoff_ms=1_000)
    assert pool.polled(keyed("abacdbe", 15)) == [15, 19]
    run = pool.runs.pop(15)
    assert [record.offset for record in run.records] == [15, 17, 16, 20, 18]
    pool.script.give(HandlerReturned(run.number, 2, Failure("no")))
    assert pool.hear() == [21]
    assert pool.ran(19) == [18]
    assert pool.ran(21) == pool.ran(18) == []
    offset, metadata = pool.commit()
    assert (offset, from_metadata(offset, metadata).ranges) == (16, ((17, 20), (21, 22)))


def test_what_waits_behind_another_key_in_a_run_is_taken_back() -> None:
    pool = warmed_up(2)
    assert pool.polled(keyed("abcde", 15)) == [15, 18]
    stuck = pool.runs.pop(15)
    assert [record.offset for record in stuck.records] == [15, 16, 17]
    assert pool.ran(18) == [19]
    assert pool.ran(19) == []
    pool.script.after(SLICE_MS)
    assert [each for each in pool.script.take_effects() if isinstance(each, Recall)] == [
        Recall(stuck.number, stuck.worker)
    ]
    pool.script.give(Recalled(stuck.number, 2))
    assert pool.hear() == [16]
    assert pool.ran(16) == [17]
    assert pool.ran(17) == []
    offset, metadata = pool.commit()
    assert (offset, from_metadata(offset, metadata).ranges) == (15, ((16, 20),))
    pool.script.give(HandlerReturned(stuck.number, 1))
    assert pool.commit() == (20, "")


def test_records_without_a_key_are_free() -> None:
    assert Pool(3).polled(keyed("....")) == [0, 1, 2]


def test_what_is_done_beyond_a_gap_travels_with_the_commit() -> None:
    pool = Pool(4)
    pool.polled(keyed("abcdef"))
    for offset in (1, 2, 5 if 5 in pool.runs else 3):
        pool.ran(offset)
    offset, metadata = pool.commit()
    assert offset == 0
    assert from_metadata(offset, metadata).ranges == ((1, 4),)
    pool.ran(0)
    offset, metadata = pool.commit()
    assert (offset, metadata) == (4, "")


def test_what_the_last_owner_had_done_is_not_handled_again() -> None:
    pool = Pool(8)
    assert pool.polled(keyed("abcdef"), ahead={("A", 0): Ahead(((1, 3), (5, 6)))}) == [0, 3, 4]
    for offset in (0, 3, 4):
        pool.ran(offset)
    assert pool.commit() == (6, "")


def test_what_the_last_owner_had_done_is_told_on_until_it_has_been_polled() -> None:
    pool = Pool(8)
    pool.polled(keyed("ab"), ahead={("A", 0): Ahead(((3, 5), (8, 9)))})
    pool.ran(0)
    offset, metadata = pool.commit()
    assert offset == 1
    assert from_metadata(offset, metadata).ranges == ((3, 5), (8, 9))
    assert pool.polled(keyed("cdef", 2)) == [2, 5]


def test_records_that_a_power_cut_gave_the_offsets_of_done_ones_are_handled() -> None:
    pool = Pool(8)
    told = Ahead(((1, 3), (4, 6)), leader_epoch=1)
    found = [each._replace(leader_epoch=1 + (each.offset > 3)) for each in keyed("abcdef")]
    assert pool.polled(found, ahead={("A", 0): told}) == [0, 3, 4, 5]
    for offset in (3, 4, 5):
        pool.ran(offset)
    offset, metadata = pool.commit()
    assert (offset, from_metadata(offset, metadata)) == (0, Ahead(((1, 6),), leader_epoch=2))


def test_what_the_last_owner_told_is_told_on_for_the_leader_epoch_it_named() -> None:
    pool = Pool(8)
    found = [each._replace(leader_epoch=2) for each in keyed("abc")]
    pool.polled(found, ahead={("A", 0): Ahead(((8, 9),), leader_epoch=1)})
    pool.ran(1)
    offset, metadata = pool.commit()
    assert (offset, from_metadata(offset, metadata)) == (0, Ahead(((1, 2), (8, 9)), leader_epoch=1))


def test_a_handler_that_comes_back_after_its_time_changes_nothing() -> None:
    script = Script(handler_timeout_ms=1_000)
    script.start()
    script.polled(*keyed("abcd"))
    run = script.run
    assert run is not None
    script.after(COMMIT_MS)
    script.timed_out(2)
    script.give(HandlerReturned(run.number, 2, Failure("no")))
    script.polled()
    commits = [effect for effect in script.take_effects() if isinstance(effect, Commit)]
    assert [commit.offsets for commit in commits] == [{("A", 0): 2}]


def test_a_stuck_run_gives_back_the_records_of_other_keys_while_the_process_ends() -> None:
    """Another run has already ended the process, so the machine ignores the timeout and still has the run."""
    script = Script(concurrency=2, handler_timeout_ms=1_000)
    script.machine._state.runs._size = 2
    script.start()
    script.polled(*keyed("abcdefgh"))
    first, second = (effect for effect in script.take_effects() if isinstance(effect, Run))
    script.give(HandlerTimedOut(first.number, first.records[0].offset))
    assert script.give(HandlerTimedOut(second.number, second.records[0].offset)) == []
    assert script.after(SLICE_MS) == ["recall"]
    assert script.give(Recalled(second.number, len(second.records) - 1)) == []
    assert script.polled() == ["crash: the handler exceeded handler_timeout_ms at A/0 offset 0"]


def test_what_the_last_incarnation_finished_is_not_handled_again() -> None:
    finished = [Finished("A", 0, 11, 10), Finished("A", 0, 12, 10)]
    pool = Pool(8, finished=finished)
    assert pool.polled(keyed("abcd", 10)) == [10, 13]


def test_a_group_that_was_set_back_handles_all_again() -> None:
    finished = [Finished("A", 0, 11, 10), Finished("A", 0, 12, 10)]
    pool = Pool(8, finished=finished)
    assert pool.polled(keyed("abcdef", 9)) == [9, 10, 11, 12, 13, 14]


def test_a_partition_that_goes_says_what_was_done_beyond_its_gap() -> None:
    pool = Pool(2)
    pool.polled(keyed("abcd"))
    pool.ran(1)
    pool.script.revoking(0)
    pool.ran(2)
    pool.script.take_effects()
    pool.script.give(HandlerReturned(pool.runs[0].number, 0, Failure("no")))
    [let_go] = [effect for effect in pool.script.take_effects() if isinstance(effect, HandOver)]
    assert let_go.offsets == {("A", 0): 0}
    assert from_metadata(0, let_go.metadata["A", 0]).ranges == ((1, 3),)


# A stuck key.


def test_a_stuck_key_stops_nothing_but_itself() -> None:
    script = Script(backoff_ms=1_000)
    script.start()
    script.polled(*keyed("abacb"))
    assert script.ran(failure="ValueError: no") == ["warning: handler failed", "run A/0 1-4, attempt 1"]
    assert script.run is not None
    assert [record.offset for record in script.run.records] == [1, 3, 4]
    script.ran()
    script.after(COMMIT_MS)
    script.polled(*keyed("ad", 5))
    commit = script.commit
    assert commit is not None
    assert commit.offsets == {("A", 0): 0}
    assert from_metadata(0, commit.metadata["A", 0]).ranges == ((1, 2), (3, 5))
    assert script.run is not None
    assert [record.offset for record in script.run.records] == [6]
    script.ran()
    script.committed()
    assert script.after(1_000) == ["run A/0 0, attempt 2"]
    script.ran()
    script.polled()
    assert script.commit is not None
    assert script.commit.offsets == {("A", 0): 2}
    assert script.committed() == ["forget A/0", "run A/0 2-5, attempt 1"]
    assert script.run is not None
    assert [record.offset for record in script.run.records] == [2, 5]
    script.ran()
    assert script.polled(*keyed("a", 7))[-1] == "run A/0 7, attempt 1"


def test_the_records_behind_a_stuck_key_are_bounded() -> None:
    script = Script(backoff_ms=1_000, max_records=4)
    script.start()
    script.polled(*keyed("aaa"))
    script.ran(failure="ValueError: no")
    assert script.polled(*keyed("ab", 3)) == ["pause A/0", "poll", "run A/0 4, attempt 1"]
    assert script.ran() == []


# Death.


def test_suspects_are_tried_in_halves_and_nothing_else_meanwhile() -> None:
    pool = Pool(8, suspects=[Suspect("A", 0, offset) for offset in range(4)])
    assert pool.polled(keyed("abcdef")) == [0, 1]
    assert pool.ran(1) == []
    assert pool.ran(0) == [2]
    assert pool.ran(2) == [3]
    assert pool.ran(3) == [4, 5]


def test_a_suspect_that_fails_is_cleared_and_so_is_one_that_goes_elsewhere() -> None:
    pool = Pool(8, suspects=[Suspect("A", 0, 0), Suspect("A", 0, 1), Suspect("A", 1, 0)])
    assert pool.polled([*keyed("ab"), *keyed("c", partition=1)]) == [0]
    assert pool.ran(0, "ValueError: no") == [1]
    pool.script.lost(1)
    pool.script.lost(0)
    pool.script.take_effects()
    assert pool.polled(keyed("xyz", 10)) == [10, 11, 12]


def test_a_killer_is_tried_again_alone() -> None:
    pool = Pool(4, prior_attempts=[PriorAttempt("A", 0, 1, 1, "killed")], retries=3, backoff_ms=100)
    assert pool.polled(keyed("abcdef")) == [0, 2, 3, 4]
    pool.script.after(100)
    for offset in (0, 2, 3):
        assert pool.ran(offset) == []
    assert pool.ran(4) == [1]
    assert pool.ran(1, "ValueError: no") == [5]


def test_the_commit_effect_has_no_metadata_when_all_is_in_order() -> None:
    script = Script()
    script.start()
    script.polled(*keyed("abc"))
    script.ran(2)
    script.after(COMMIT_MS)
    script.polled()
    assert script.commit == Commit({("A", 0): 2})


def test_a_suspect_that_is_buried_without_a_run_keeps_nobody_waiting() -> None:
    prior_attempt, suspect = PriorAttempt("A", 0, 1, 1, "failed"), Suspect("A", 0, 1)
    script = Script([prior_attempt], [], [suspect], concurrency=2, retries=0, dead_letter="A.dlq")
    script.start()
    found = [FakeMessage("A", 0, offset, b"%d" % offset) for offset in range(3)]
    assert script.polled(*found)[-1] == "bury A/0/1 in A.dlq after 1"
    assert script.dead_lettered() == [
        "error: record dead-lettered",
        "run A/0 0, attempt 1",
        "run A/0 2, attempt 1",
    ]
