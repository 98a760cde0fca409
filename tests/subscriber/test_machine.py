"""The subscriber's machine, scene by scene: its effects on each event, in order."""

import pytest

from planaria.actors.subscriber.commits import COMMIT_MS, COMMIT_RECORDS
from planaria.actors.subscriber.effects import PriorAttempt, PublishDeadLetter, RecordsPolled
from planaria.actors.subscriber.partitions import HELD_BYTES
from planaria.actors.subscriber.recovered_state import Finished
from planaria.actors.subscriber.runs import SLICE_MS
from planaria.transport.lineage import lineage_of
from subscriber_script import FakeMessage, Script, messages


def started(**options: object) -> Script:
    script = Script(**options)
    assert script.start() == ["poll"]
    return script


# Delivery.


def test_at_least_once_handles_then_commits() -> None:
    script = started()
    assert script.polled(*messages("A", 0, 0, 1, 2)) == ["poll", "run A/0 0-2, attempt 1"]
    assert script.ran() == []
    assert script.after(COMMIT_MS - 1) == []
    assert script.polled() == ["poll"]
    assert script.after(1) == []
    assert script.polled() == ["commit A/0=3", "poll"]
    assert script.committed() == []
    assert script.after(10_000) == []
    assert script.polled() == ["poll"]


def test_commits_of_all_partitions_travel_together_and_one_at_a_time() -> None:
    script = started()
    script.polled(*messages("A", 0, 0, 1), *messages("A", 1, 7))
    assert script.ran() == ["run A/1 7, attempt 1"]
    assert script.ran() == []
    script.after(COMMIT_MS)
    assert script.polled(*messages("A", 1, 8)) == ["commit A/0=2 A/1=8", "poll", "run A/1 8, attempt 1"]
    assert script.ran() == []
    assert script.after(COMMIT_MS) == []
    assert script.polled() == ["poll"]
    assert script.committed() == []
    script.after(COMMIT_MS)
    assert script.polled() == ["commit A/1=9", "poll"]


def test_at_most_once_commits_before_it_handles() -> None:
    script = started(delivery="at-most-once")
    assert script.polled(*messages("A", 0, 0, 1), *messages("A", 1, 7)) == ["commit A/0=2 A/1=8"]
    assert script.committed() == ["poll", "run A/0 0-1, attempt 1"]
    assert script.ran() == ["run A/1 7, attempt 1"]
    assert script.ran() == []
    assert script.after(10_000) == []


def test_at_most_once_fetches_again_what_it_could_not_commit() -> None:
    script = started(delivery="at-most-once")
    script.polled(*messages("A", 0, 5, 6))
    assert script.refused() == ["warning: commit refused", "rewind A/0=5", "poll"]


def test_at_most_once_never_tries_again() -> None:
    script = started(delivery="at-most-once")
    script.polled(*messages("A", 0, 0, 1))
    script.committed()
    assert script.ran(failure="ValueError: no") == [
        "warning: handler failed",
        "error: record lost",
        "forget A/0",
        "run A/0 1, attempt 1",
    ]


def test_at_most_once_buries_what_failed() -> None:
    script = started(delivery="at-most-once", dead_letter="A.dlq")
    script.polled(*messages("A", 0, 0, 1))
    script.committed()
    assert script.ran(failure="ValueError: no") == ["warning: handler failed", "bury A/0/0 in A.dlq after 1"]
    assert script.dead_lettered() == ["error: record dead-lettered", "forget A/0", "run A/0 1, attempt 1"]


def test_at_most_once_reports_what_killed_the_last_incarnation() -> None:
    script = Script([PriorAttempt("A", 0, 4, 1, "killed")], delivery="at-most-once", dead_letter="A.dlq")
    assert script.start() == ["error: record lost", "forget A/0", "poll"]


def test_many_finished_records_do_not_wait_for_company() -> None:
    script = started(max_records=COMMIT_RECORDS)
    script.polled(*messages("A", 0, *range(COMMIT_RECORDS)))
    while script.run is not None:
        script.ran()
    assert script.polled() == [f"commit A/0={COMMIT_RECORDS}", "poll"]


def test_a_refused_commit_is_made_again() -> None:
    script = started()
    script.polled(*messages("A", 0, 0))
    script.ran()
    script.after(COMMIT_MS)
    assert script.polled() == ["commit A/0=1", "poll"]
    assert script.refused() == ["warning: commit refused"]
    script.after(500)
    assert script.polled() == ["commit A/0=1", "poll"]


# Flow.


def test_partitions_take_turns() -> None:
    script = started()
    script.polled(*messages("A", 0, *range(10)), *messages("A", 1, 0))
    # The slice of time is over after 3 of the 10.
    assert script.ran(3) == ["run A/1 0, attempt 1"]
    assert script.ran() == ["run A/0 3-9, attempt 1"]


def test_a_full_partition_is_paused_until_half_is_handled() -> None:
    script = started(max_records=4)
    assert script.polled(*messages("A", 0, 0, 1, 2, 3)) == [
        "pause A/0",
        "poll",
        "run A/0 0-3, attempt 1",
    ]
    assert script.ran(1) == ["run A/0 1-3, attempt 1"]
    assert script.ran(1) == ["resume A/0", "run A/0 2-3, attempt 1"]


def test_few_but_large_records_make_a_partition_full_as_well() -> None:
    script = started()
    large = [FakeMessage("A", 0, offset, value=bytes(HELD_BYTES // 2)) for offset in range(2)]
    assert script.polled(*large)[:2] == ["pause A/0", "poll"]
    assert script.ran(1) == ["run A/0 1, attempt 1"]
    assert script.ran(1) == ["resume A/0"]


# Failures.


def test_a_failing_record_blocks_its_own_partition_alone() -> None:
    script = started(backoff_ms=100)
    script.polled(*messages("A", 0, 0, 1, 2), *messages("A", 1, 0))
    assert script.ran(1, "ValueError: no") == ["warning: handler failed", "run A/1 0, attempt 1"]
    assert script.ran() == []
    assert script.polled(*messages("A", 0, 3), *messages("A", 1, 1)) == ["poll", "run A/1 1, attempt 1"]
    assert script.ran() == []
    # The record goes alone; the finished ones before it are committed meanwhile.
    assert script.after(100) == ["run A/0 1, attempt 2"]
    assert script.polled() == ["commit A/0=1 A/1=2", "poll"]
    assert script.committed() == []
    assert script.ran() == []
    # Later records wait until the failed record is committed.
    assert script.polled() == ["commit A/0=2", "poll"]
    assert script.committed() == ["forget A/0", "run A/0 2-3, attempt 1"]


def test_backoff_doubles_up_to_its_limit() -> None:
    script = started(retries=5, backoff_ms=100, backoff_max_ms=300, dead_letter="A.dlq")
    script.polled(*messages("A", 0, 0))
    waits = []
    for attempt in range(2, 7):
        assert script.ran(failure="ValueError: no") == ["warning: handler failed"]
        before = script.now
        while not (lines := script.after(1)):
            pass
        assert lines == [f"run A/0 0, attempt {attempt}"]
        waits.append(script.now - before)
    assert waits == [100, 200, 300, 300, 300]


def test_a_record_out_of_attempts_is_buried_then_passed() -> None:
    script = started(retries=1, dead_letter="A.dlq")
    script.polled(*messages("A", 0, 0, 1))
    script.ran(failure="ValueError: no")
    assert script.after(100) == ["run A/0 0, attempt 2"]
    assert script.ran(failure="ValueError: still no") == [
        "warning: handler failed",
        "bury A/0/0 in A.dlq after 2",
    ]
    assert script.after(COMMIT_MS) == []
    assert script.dead_lettered() == ["error: record dead-lettered"]
    assert script.polled() == ["commit A/0=1", "poll"]
    assert script.committed() == ["forget A/0", "run A/0 1, attempt 1"]


def test_a_dead_letter_tells_where_the_record_comes_from_and_why() -> None:
    script = started(retries=0, dead_letter="A.dlq")
    headers = {
        "content-type": "application/json",
        "dead-letter-reason": "an earlier one",
        "dead-letter-redrives": "2",
        "dedup-id": "order-17",
    }
    script.polled(FakeMessage("A", 3, 42, b"k", b"{}", 1_234, headers))
    script.after(7_000)
    script.ran(failure="ValueError: two\nlines")
    letter = next(effect.dead_letter for effect in script.effects if isinstance(effect, PublishDeadLetter))
    assert (letter.topic, letter.key, letter.value) == ("A.dlq", b"k", b"{}")
    assert letter.headers == {
        "content-type": "application/json",
        "dead-letter-redrives": "2",
        "dead-letter-dedup-id": "order-17",
        "dead-letter-topic": "A",
        "dead-letter-partition": "3",
        "dead-letter-offset": "42",
        "dead-letter-timestamp": "1234",
        "dead-letter-group": "billing",
        "dead-letter-failures": "1",
        "dead-letter-deliveries": "1",
        "dead-letter-first-failure": "7000",
        "dead-letter-last-failure": "7000",
        "dead-letter-reason": "ValueError: two lines",
        "dead-letter-exception": "builtins.ValueError",
        "dead-letter-traceback": "Traceback ...",
    }


def test_a_letter_that_cannot_be_published_is_sent_again() -> None:
    script = started(retries=0, dead_letter="A.dlq", backoff_max_ms=1_000)
    script.polled(*messages("A", 0, 0, 1))
    script.ran(failure="ValueError: no")
    assert script.dead_letter_failed() == ["critical: record cannot be dead-lettered"]
    assert script.after(999) == []
    assert script.after(1) == ["bury A/0/0 in A.dlq after 1"]
    assert script.dead_lettered() == ["error: record dead-lettered"]


def test_without_a_dead_letter_topic_nothing_is_ever_dropped() -> None:
    script = started(retries=1, backoff_max_ms=1_000)
    script.polled(*messages("A", 0, 0, 1))
    script.ran(failure="ValueError: no")
    script.after(100)
    for attempt in range(3, 20):
        assert script.ran(failure="ValueError: no") == [
            "warning: handler failed",
            "critical: record keeps failing",
        ]
        assert script.after(999) == []
        assert script.after(1) == [f"run A/0 0, attempt {attempt}"]


# A record that kills its process.


def test_poison_is_tried_alone_then_buried_without_being_run() -> None:
    """Incarnation after incarnation, with the count that the flight recorder passes on."""
    options = {"retries": 2, "dead_letter": "A.dlq"}
    first = started(**options)
    assert first.polled(*messages("A", 0, 0, 1, 2, 3)) == ["poll", "run A/0 0-3, attempt 1"]
    # Killed in offset 2; 0 and 1 were finished and not yet committed.

    second = Script([PriorAttempt("A", 0, 2, 1, "killed")], **options)
    second.start()
    assert second.polled(*messages("A", 0, 0, 1, 2, 3)) == ["poll", "run A/0 0-1, attempt 1"]
    assert second.ran() == ["warning: the handler killed its process"]
    assert second.after(100) == ["run A/0 2, attempt 2"]

    third = Script([PriorAttempt("A", 0, 2, 2, "killed")], **options)
    third.start()
    assert third.polled(*messages("A", 0, 2, 3)) == ["poll", "warning: the handler killed its process"]
    assert third.after(199) == []
    assert third.after(1) == ["run A/0 2, attempt 3"]

    fourth = Script([PriorAttempt("A", 0, 2, 3, "killed")], **options)
    fourth.start()
    assert fourth.polled(*messages("A", 0, 2, 3), *messages("A", 1, 0)) == [
        "poll",
        "warning: the handler killed its process",
        "bury A/0/2 in A.dlq after 3",
        "run A/1 0, attempt 1",
    ]
    assert fourth.dead_lettered() == ["error: record dead-lettered"]
    assert fourth.ran() == []
    assert fourth.polled() == ["commit A/0=3 A/1=1", "poll"]
    assert fourth.committed() == ["forget A/0", "run A/0 3, attempt 1"]


def test_two_records_in_a_row_that_kill_are_both_buried() -> None:
    """The first one's dead letter is committed before the second one can undo it by a crash."""
    script = Script([PriorAttempt("A", 0, 2, 1, "killed")], retries=0, dead_letter="A.dlq")
    script.start()
    script.polled(*messages("A", 0, 2, 3))
    assert script.dead_lettered() == ["error: record dead-lettered"]
    assert script.after(10_000) == []
    assert script.polled() == ["commit A/0=3", "poll"]
    assert script.refused() == ["warning: commit refused"]
    script.after(500)
    assert script.polled() == ["commit A/0=3", "poll"]
    assert script.committed() == ["forget A/0", "run A/0 3, attempt 1"]


def test_a_charge_for_a_record_dealt_with_elsewhere_is_forgotten() -> None:
    script = Script([PriorAttempt("A", 0, 2, 3, "killed")], retries=2, dead_letter="A.dlq")
    script.start()
    assert script.polled(*messages("A", 0, 3)) == ["forget A/0", "poll", "run A/0 3, attempt 1"]


def test_poison_without_a_dead_letter_topic_waits_its_longest_between_attempts() -> None:
    script = Script([PriorAttempt("A", 0, 2, 9, "killed")], retries=2, backoff_max_ms=1_000)
    script.start()
    script.polled(*messages("A", 0, 2))
    assert script.after(999) == []
    assert script.after(1) == ["run A/0 2, attempt 10"]


# A handler that takes too long.


def test_a_stuck_handler_ends_the_process_once_the_rest_is_committed() -> None:
    script = started(handler_timeout_ms=1_000)
    script.polled(*messages("A", 0, 0, 1, 2), *messages("A", 1, 0))
    assert script.after(SLICE_MS + 999) == []
    assert script.after(1) == ["notetimeout"]
    assert script.timed_out(1) == ["error: handler timed out"]
    assert script.polled() == ["commit A/0=1"]
    assert script.committed() == ["crash: the handler exceeded handler_timeout_ms at A/0 offset 1"]


def test_a_stuck_handler_ends_the_process_even_when_nobody_answers() -> None:
    script = started(handler_timeout_ms=1_000)
    script.polled(*messages("A", 0, 0, 1))
    script.after(SLICE_MS + 1_000)
    script.timed_out(1)
    assert script.after(1_000) == ["crash: the handler exceeded handler_timeout_ms at A/0 offset 1"]


def test_a_handler_that_came_back_in_time_is_not_stuck() -> None:
    script = started(handler_timeout_ms=1_000)
    script.polled(*messages("A", 0, 0, 1))
    script.after(SLICE_MS + 1_000)
    assert script.timed_out(None) == []
    assert script.ran() == []
    assert script.after(10_000) == []
    assert script.polled() == ["commit A/0=2", "poll"]


def test_a_handler_without_limit_may_take_for_ever() -> None:
    script = started()
    script.polled(*messages("A", 0, 0))
    assert script.after(10**9) == []


def test_a_timed_out_record_is_charged_like_any_other() -> None:
    script = Script(
        [PriorAttempt("A", 0, 1, 1, "timed out")], retries=0, dead_letter="A.dlq", handler_timeout_ms=5
    )
    script.start()
    assert script.polled(*messages("A", 0, 1)) == [
        "poll",
        "warning: the handler exceeded handler_timeout_ms",
        "bury A/0/1 in A.dlq after 1",
    ]


# Partitions come and go.


def test_a_partition_goes_when_its_record_at_hand_is_finished_and_committed() -> None:
    script = started()
    script.polled(*messages("A", 0, *range(5)), *messages("A", 1, 0))
    assert script.revoking(0) == []
    assert script.ran(2) == ["handover A/0=2", "run A/1 0, attempt 1"]


def test_an_idle_partition_goes_at_once() -> None:
    script = started()
    script.polled(*messages("A", 0, 0), *messages("A", 1, 0, 1))
    assert script.revoking(1, 2) == ["handover"]
    assert script.ran() == []
    assert script.revoking(0) == ["handover A/0=1"]


def test_a_partition_goes_after_the_session_timeout_in_any_case() -> None:
    script = started(session_timeout_ms=1_000)
    script.polled(*messages("A", 0, 0, 1))
    script.revoking(0)
    assert script.after(1_000) == ["warning: partition revoked while its record is in progress", "handover"]
    assert script.polled(*messages("A", 0, 0)) == ["poll"]
    # The old run has no effect on the partition that came back.
    assert script.ran(1) == ["run A/0 0, attempt 1"]


def test_a_waiting_record_keeps_its_count_if_its_partition_comes_back() -> None:
    script = started(retries=1, dead_letter="A.dlq")
    script.polled(*messages("A", 0, 0))
    script.ran(failure="ValueError: no")
    assert script.revoking(0) == ["handover"]
    assert script.after(1_000) == []
    script.polled(*messages("A", 0, 0))
    assert script.after(100) == ["run A/0 0, attempt 2"]


def test_a_lost_partition_is_dropped_and_not_committed() -> None:
    script = started()
    script.polled(*messages("A", 0, 0, 1), *messages("A", 1, 0))
    assert script.lost(0) == []
    assert script.ran() == ["run A/1 0, attempt 1"]
    assert script.ran() == []
    script.after(COMMIT_MS)
    assert script.polled() == ["commit A/1=1", "poll"]


def test_at_most_once_handles_what_it_has_committed_though_the_partition_goes() -> None:
    script = started(delivery="at-most-once")
    script.polled(*messages("A", 0, 0, 1, 2))
    script.committed()
    assert script.revoking(0) == ["handover"]
    assert script.ran(1) == ["run A/0 1-2, attempt 1"]
    assert script.ran() == []


# Stop.


def test_stops_when_the_record_at_hand_is_finished() -> None:
    script = started()
    script.polled(*messages("A", 0, *range(5)), *messages("A", 1, 0))
    assert script.stop() == []
    assert script.polled(*messages("A", 0, 5)) == []
    assert script.ran(1) == ["leave A/0=1"]
    assert script.left() == ["retire", "stop: stopped by order"]


def test_an_idle_subscriber_stops_at_once() -> None:
    script = started()
    assert script.stop() == []
    assert script.polled() == ["leave"]


def test_a_subscriber_that_is_replaced_keeps_its_attempts_and_its_place() -> None:
    script = started()
    script.polled(*messages("A", 0, 0, 1))
    script.ran(0, "ValueError: no")
    assert script.stop(keeps_place=True) == []
    assert script.polled() == ["leave but keep place"]
    assert script.left() == ["stop: stopped by order"]


def test_a_record_that_waits_does_not_keep_the_subscriber() -> None:
    script = started()
    script.polled(*messages("A", 0, 0, 1))
    script.ran(1, "ValueError: no")
    assert script.stop() == []
    assert script.polled() == ["leave A/0=1"]


def test_a_handler_that_does_not_finish_is_abandoned_at_the_deadline() -> None:
    script = started()
    script.polled(*messages("A", 0, 0, 1))
    script.stop(within_ms=30_000)
    assert script.after(27_999) == []
    assert script.after(1) == ["warning: stopped with unfinished records", "abandon", "leave"]
    assert script.left() == ["retire", "stop: stopped by order"]


def test_stops_at_the_deadline_though_nobody_answers() -> None:
    script = started()
    script.stop(within_ms=30_000)
    assert script.after(28_000) == ["abandon", "leave"]
    assert script.after(1_000) == ["stop: stopped by order, without leaving the group"]


def test_at_most_once_stops_when_all_it_has_committed_is_handled() -> None:
    script = started(delivery="at-most-once")
    script.polled(*messages("A", 0, 0, 1))
    assert script.stop() == []
    assert script.committed() == ["run A/0 0-1, attempt 1"]
    assert script.ran(1) == ["run A/0 1, attempt 1"]
    assert script.ran() == ["leave"]


@pytest.mark.parametrize("other", ["lineage", "leader epoch"])
def test_what_was_noted_of_another_record_of_the_offset_is_void(other: str) -> None:
    noted, current = lineage_of("old", 0), lineage_of("new" if other == "lineage" else "old", 0)
    epoch = int(other == "leader epoch")
    script = Script(
        [PriorAttempt("A", 0, 0, 9, "killed", lineage=noted)],
        [Finished("A", 0, offset, 0, lineage=noted) for offset in range(1, 4)],
        retries=0,
        dead_letter="A.dlq",
    )
    script.start()
    found = [FakeMessage("A", 0, offset, leader_epoch=epoch) for offset in range(4)]
    script.give(RecordsPolled(found, lineages={("A", 0): current}))
    assert script.publish_dead_letter is None
    assert script.run is not None
    handled = 0
    while handled < 4:
        handled += len(script.run.records)
        script.ran(len(script.run.records))
    assert handled == 4
