"""Exactly-once in the machine: outputs are committed with the offset that marks their record done, and no other."""

import random

from planaria.actors.subscriber.commits import COMMIT_MS, RETRY_MS
from planaria.actors.subscriber.effects import (
    CommitRefused,
    Failure,
    HandlerReturned,
    HandlerTimedOut,
    RecordsPolled,
    Run,
    SoFar,
)
from planaria.actors.subscriber.outputs import Outputs
from planaria.actors.subscriber.partitions import HELD_BYTES
from planaria.actors.subscriber.progress import MAX_CHARS, Ahead, Ranges, from_metadata, gaps, to_metadata
from planaria.transport.publication import Publication
from subscriber_script import FakeMessage, Script, made_of, messages


def started(**options: object) -> Script:
    script = Script(delivery="exactly-once", **options)
    assert script.start() == ["poll"]
    return script


def test_what_was_published_goes_with_the_offsets() -> None:
    script = started()
    script.polled(*messages("A", 0, 0, 1), *messages("A", 1, 7))
    script.ran(publishes=True)
    script.ran(publishes=True)
    script.after(COMMIT_MS)
    assert script.polled() == ["commit A/0=2 A/1=8 with 0:0 0:1 1:7", "poll"]
    script.polled(*messages("A", 0, 2))
    # Records finished meanwhile go with the next one, and committed ones with none any more.
    script.ran(publishes=True)
    assert script.committed() == []
    script.after(COMMIT_MS)
    assert script.polled() == ["commit A/0=3 with 0:2", "poll"]


def test_after_an_abort_the_next_transaction_has_it_all_and_what_came_since() -> None:
    script = started()
    script.polled(*messages("A", 0, 0))
    script.ran(publishes=True)
    script.after(COMMIT_MS)
    assert script.polled(*messages("A", 0, 1))[0] == "commit A/0=1 with 0:0"
    script.ran(publishes=True)
    assert script.refused() == ["warning: commit refused"]
    script.after(RETRY_MS)
    assert script.polled() == ["commit A/0=2 with 0:0 0:1", "poll"]


def spoiled(script: Script) -> list[str]:
    assert script.commit is not None
    return script.give(CommitRefused(script.commit.offsets, "UNKNOWN_TOPIC: gone", is_spoiled=True))


def test_when_an_output_topic_has_gone_the_records_are_read_and_handled_again() -> None:
    script = started()
    script.polled(*messages("A", 0, 0, 1), *messages("A", 1, 7))
    script.ran(publishes=True)
    script.ran()
    script.after(COMMIT_MS)
    assert script.polled(*messages("A", 0, 2)) == [
        "commit A/0=2 A/1=8 with 0:0 0:1",
        "poll",
        "run A/0 2, attempt 1",
    ]
    assert spoiled(script) == ["warning: commit refused"]
    # Records of a poll in flight are behind the rewind, and a record in flight is awaited.
    assert script.polled(*messages("A", 0, 3)) == ["poll"]
    script.ran(publishes=True)
    assert script.polled(*messages("A", 0, 4)) == ["rewind A/0=0", "poll"]
    script.after(RETRY_MS)
    assert script.polled(*messages("A", 0, 0)) == ["commit A/1=8", "poll", "run A/0 0, attempt 1"]
    script.committed()
    assert script.ran(failure="UnknownTopic: OUT") == ["warning: handler failed"]
    [record] = script.machine.retrying().records
    assert (record.offset, record.attempts) == (0, 1)


def test_a_partition_that_was_paused_goes_on_when_it_is_read_again() -> None:
    script = started(max_records=2)
    assert "pause A/0" in script.polled(*messages("A", 0, 0, 1))
    script.ran(1, publishes=True)
    script.after(COMMIT_MS)
    assert script.polled()[0] == "commit A/0=1 with 0:0"
    spoiled(script)
    script.ran()
    assert script.polled() == ["resume A/0", "rewind A/0=0", "poll"]


def test_a_failed_record_that_is_read_again_keeps_its_count() -> None:
    script = started(concurrency=2, backoff_ms=5_000)
    script.polled(FakeMessage("A", 0, 0, b"a"), FakeMessage("A", 0, 1, b"b"))
    script.take_effects()
    script.ran(failure="no")
    script.give(HandlerReturned(1, 1, published={0: (made_of(FakeMessage("A", 0, 0)),)}))
    script.after(COMMIT_MS)
    script.polled()
    spoiled(script)
    script.polled()
    lines = script.polled(FakeMessage("A", 0, 0, b"a"), FakeMessage("A", 0, 1, b"b"))
    assert "run A/0 1, attempt 1" not in lines
    [record] = script.machine.retrying().records
    assert (record.offset, record.attempts) == (1, 1)


def test_nobody_goes_on_from_a_commit_in_doubt() -> None:
    script = started(concurrency=2)
    script.polled(*messages("A", 0, 0))
    script.ran(publishes=True)
    script.after(COMMIT_MS)
    script.polled(FakeMessage("A", 0, 1, b"other"), FakeMessage("A", 0, 2, b"third"))
    # Records in flight must not be charged for it.
    assert script.uncertain() == ["abandon", "crash: TIMED_OUT: no answer"]


def test_a_revoked_partition_goes_with_its_own_transaction() -> None:
    script = started()
    script.polled(*messages("A", 0, 0, 1), *messages("A", 1, 7))
    assert script.ran(1, publishes=True) == ["run A/1 7, attempt 1"]
    assert script.ran(publishes=True) == ["run A/0 1, attempt 1"]
    # Records in flight are finished first; of the other partition nothing goes with it.
    assert script.revoking(0) == []
    assert script.ran(publishes=True) == ["handover A/0=2 with 0:0 0:1"]
    script.after(COMMIT_MS)
    assert script.polled() == ["commit A/1=8 with 1:7", "poll"]


def test_of_a_lost_partition_nothing_is_published() -> None:
    script = started()
    script.polled(*messages("A", 0, 0), *messages("A", 1, 7))
    script.ran(publishes=True)
    assert script.lost(0) == []
    script.ran(publishes=True)
    script.after(COMMIT_MS)
    assert script.polled() == ["commit A/1=8 with 1:7", "poll"]
    # It comes back, and is handled from the committed offset.
    script.committed()
    assert script.polled(*messages("A", 0, 0)) == ["poll", "run A/0 0, attempt 1"]
    script.ran(publishes=True)
    script.after(COMMIT_MS)
    assert script.polled() == ["commit A/0=1 with 0:0", "poll"]


def test_what_comes_back_too_late_is_not_published() -> None:
    script = started(session_timeout_ms=1_000)
    script.polled(*messages("A", 0, 0, 1))
    script.revoking(0)
    assert script.after(1_000) == ["warning: partition revoked while its record is in progress", "handover"]
    assert script.ran(publishes=True) == []
    script.polled()
    assert script.stop() == []
    assert script.polled() == ["leave"]


def test_a_stop_commits_what_is_finished() -> None:
    script = started()
    script.polled(*messages("A", 0, 0, 1))
    assert script.stop() == []
    assert script.ran(1, publishes=True) == []
    # A poll may still revoke the partition; the outputs must go with one commit and not with two.
    assert script.polled(*messages("A", 0, 2)) == ["leave A/0=1 with 0:0"]


def test_a_stop_waits_for_the_commit_under_way() -> None:
    script = started()
    script.polled(*messages("A", 0, 0))
    script.ran(publishes=True)
    script.after(COMMIT_MS)
    assert script.polled() == ["commit A/0=1 with 0:0", "poll"]
    script.stop()
    assert script.polled() == []
    assert script.refused() == ["warning: commit refused", "leave A/0=1 with 0:0"]


def test_at_the_deadline_what_is_in_doubt_is_not_published_again() -> None:
    script = started()
    script.polled(*messages("A", 0, 0))
    script.ran(publishes=True)
    script.after(COMMIT_MS)
    assert script.polled() == ["commit A/0=1 with 0:0", "poll"]
    script.stop()
    assert script.after(28_000) == ["abandon", "leave"]


def test_what_was_made_before_a_stuck_record_is_published() -> None:
    script = started(handler_timeout_ms=1_000)
    script.polled(*messages("A", 0, 0, 1, 2))
    assert script.run is not None
    before = SoFar({0: (made_of(script.run.records[0]),)})
    script.give(HandlerTimedOut(script.run.number, 1, before=before))
    assert script.polled() == ["commit A/0=1 with 0:0"]


def test_a_second_stuck_run_that_ends_before_the_process_is_published_up_to_its_failure() -> None:
    script = started(concurrency=2, handler_timeout_ms=1_000)
    script.machine._state.runs._size = 3
    script.take_effects()
    script.polled(*messages("A", 0, 0), *messages("A", 1, 0, 1, 2))
    first, second = (effect for effect in script.take_effects() if isinstance(effect, Run))
    script.give(HandlerTimedOut(first.number, 0))
    published = {0: (made_of(second.records[0]),)}
    assert script.give(HandlerTimedOut(second.number, 1, before=SoFar(published))) == []
    assert script.give(HandlerReturned(second.number, 1, Failure("no"), published=published)) == [
        "warning: handler failed"
    ]
    assert script.polled() == ["commit A/1=1 with 1:0"]


def test_what_is_not_durable_before_a_stuck_record_is_not_done() -> None:
    script = Script(handler_timeout_ms=1_000)
    script.start()
    script.polled(*messages("A", 0, 0, 1, 2, 3))
    assert script.run is not None
    script.give(HandlerTimedOut(script.run.number, 3, before=SoFar(undelivered=1)))
    assert script.polled() == ["commit A/0=1"]


def test_a_failed_record_keeps_its_count_until_its_transaction_is_committed() -> None:
    script = started(backoff_ms=[100])
    script.polled(*messages("A", 0, 0, 1))
    assert script.ran(0, "ValueError: no") == ["warning: handler failed"]
    assert script.after(100) == ["run A/0 0, attempt 2"]
    assert script.ran(publishes=True) == []
    assert script.polled() == ["commit A/0=1 with 0:0", "poll"]
    # Aborted: a successor would need its number of failures.
    assert script.refused() == ["warning: commit refused"]
    script.after(RETRY_MS)
    assert script.polled() == ["commit A/0=1 with 0:0", "poll"]
    assert script.committed() == ["forget A/0", "run A/0 1, attempt 1"]


def test_a_dead_letter_is_published_with_the_offset_that_passes_its_record() -> None:
    script = started(retries=0, dead_letter="A.dlq")
    script.polled(*messages("A", 0, 0, 1))
    assert script.ran(0, "ValueError: no") == ["warning: handler failed", "bury A/0/0 in A.dlq after 1"]
    assert script.dead_lettered(publishes=True) == ["error: record dead-lettered"]
    assert script.polled() == ["commit A/0=1 with letter", "poll"]
    assert script.committed() == ["forget A/0", "run A/0 1, attempt 1"]


def test_what_is_done_behind_a_stuck_key_is_published_when_the_offset_passes_it() -> None:
    """The next owner, which knows only offsets, would publish it again."""
    script = started(backoff_ms=[1_000])
    found = [FakeMessage("A", 0, offset, b"bad" if offset == 0 else b"k%d" % offset) for offset in range(4)]
    script.polled(*found)
    assert script.ran(0, "ValueError: no") == ["warning: handler failed", "run A/0 1-3, attempt 1"]
    script.ran(publishes=True)
    script.after(COMMIT_MS)
    assert script.polled() == ["poll"]
    assert script.after(1_000) == ["run A/0 0, attempt 2"]
    script.ran(publishes=True)
    assert script.polled() == ["commit A/0=4 with 0:1 0:2 0:3 0:0", "poll"]
    assert script.commit is not None
    assert script.commit.metadata == {}


def test_a_count_is_kept_until_the_offset_has_passed_its_record() -> None:
    script = started(backoff_ms=[50, 1_000], concurrency=2)
    script.polled(FakeMessage("A", 0, 0, b"a"), FakeMessage("A", 0, 1, b"b"))
    first, second = [run for run in script.take_effects() if isinstance(run, Run)]
    script.give(HandlerReturned(first.number, 0, Failure("ValueError: no")))
    script.give(HandlerReturned(second.number, 0, Failure("ValueError: no")))
    assert script.after(50) == ["run A/0 0, attempt 2", "run A/0 1, attempt 2"]
    first, second = [run for run in script.take_effects() if isinstance(run, Run)]
    script.give(HandlerReturned(first.number, 0, Failure("ValueError: no")))
    assert script.give(HandlerReturned(second.number, 1, published={1: (made_of(second.records[0]),)})) == []
    assert script.polled() == ["poll"]
    assert script.after(1_000) == ["run A/0 0, attempt 3"]
    script.ran(publishes=True)
    assert script.polled() == ["commit A/0=2 with 0:1 0:0", "poll"]
    assert sorted(script.committed()) == ["forget A/0", "forget A/0"]


def test_what_the_last_owner_has_published_is_not_made_again() -> None:
    script = started()
    found = messages("A", 0, 5, 6, 7, 8)
    script.give(RecordsPolled(found, {("A", 0): Ahead(((6, 8),))}))
    assert script.run is not None
    assert [record.offset for record in script.run.records] == [5, 8]
    script.ran(publishes=True)
    script.after(COMMIT_MS)
    assert script.polled() == ["commit A/0=9 with 0:5 0:8", "poll"]


def test_what_was_told_before_is_told_on() -> None:
    """By a delivery guarantee that records progress: this group had another one before."""
    script = started()
    script.give(RecordsPolled(messages("A", 0, 5), {("A", 0): Ahead(((7, 8),))}))
    script.ran(publishes=True)
    script.after(COMMIT_MS)
    assert script.polled() == ["commit A/0=6 with 0:5", "poll"]
    assert script.commit is not None
    assert script.commit.metadata == {("A", 0): "done ahead (epoch 0): 1"}


def test_what_is_not_committed_counts_as_held() -> None:
    script = started(max_records=4)
    assert script.polled(*messages("A", 0, 0, 1, 2, 3))[0] == "pause A/0"
    assert script.ran(publishes=True) == []
    script.after(COMMIT_MS)
    assert script.polled() == ["commit A/0=4 with 0:0 0:1 0:2 0:3", "poll"]
    assert script.committed() == ["resume A/0"]


def test_large_outputs_pause_their_partition() -> None:
    outputs = Outputs()
    outputs.keep(3, (Publication("OUT", bytes(HELD_BYTES)), Publication("OUT", b"", b"key", {"a": "ü"})))
    assert outputs.size_bytes == HELD_BYTES + 3 + 3 + 10
    outputs.drop(4)
    assert (outputs.size_bytes, len(outputs)) == (0, 0)


def test_what_was_told_is_told_again_until_it_is_passed(seed: int) -> None:
    """Although its size is limited, and more records before it are done."""
    draw = random.Random(seed)
    held = sorted(draw.sample(range(6_000), 1_500))
    told: Ranges = ()
    while len(held) > 1_000:
        text, again = to_metadata(held[0], gaps(held, 6_000), told)
        assert len(text) <= MAX_CHARS
        assert from_metadata(held[0], text).ranges == again
        said = {at for first, end in again for at in range(first, end)}
        assert said >= {at for first, end in told for at in range(first, end) if at >= held[0]}
        assert said.isdisjoint(held)
        told = again
        done = set(draw.sample(held, 30)) | set(held[: draw.randrange(30)])
        held = [offset for offset in held if offset not in done]
