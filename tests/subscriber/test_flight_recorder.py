"""The flight recorder: the next incarnation's view after a crash, a torn note, a SIGKILL at any moment."""

import mmap
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from patience import TIMEOUT_S
from planaria.actors.subscriber.effects import PriorAttempt
from planaria.actors.subscriber.flight_recorder import (
    CHARGE_SLOTS,
    MAX_EXIT_BYTES,
    RING_SLOTS,
    SLOT_BYTES,
    SLOTS,
    FlightRecorder,
    flight_path,
)
from planaria.actors.subscriber.recovered_state import Finished
from planaria.transport.lineage import lineage_of

FIRST_SLOT = 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return flight_path(str(tmp_path), "billing", "1")


def reopened(path: Path) -> list[PriorAttempt]:
    recorder = FlightRecorder(path)
    try:
        return recorder.prior_attempts()
    finally:
        recorder.close()


def test_a_new_recorder_charges_nobody(path: Path) -> None:
    assert reopened(path) == []
    assert path.stat().st_size == FIRST_SLOT + SLOTS * SLOT_BYTES
    assert path.stat().st_mode & 0o777 == 0o600


def test_only_the_record_started_is_charged(path: Path) -> None:
    recorder = FlightRecorder(path)
    recorder.start("ORDERS", 0, 41, 1)
    recorder.finish()
    recorder.start("ORDERS", 1, 7, 2)
    assert reopened(path) == [PriorAttempt("ORDERS", 1, 7, 2, "killed")]


def test_a_death_with_a_record_at_hand_is_explained_once(path: Path) -> None:
    FlightRecorder(path).start("ORDERS", 1, 7, 2)
    assert FlightRecorder(path).is_death_explained
    assert not FlightRecorder(path).is_death_explained


def test_the_end_of_the_process_is_told_of_the_record_that_was_at_hand(path: Path) -> None:
    FlightRecorder(path).start("ORDERS", 0, 41, 2, 3, 111)
    second = FlightRecorder(path, 500, "killed by SIGSEGV")
    assert second.prior_attempts() == [
        PriorAttempt("ORDERS", 0, 41, 2, "killed", 3, 111, 500, "killed by SIGSEGV")
    ]
    third = FlightRecorder(path, 900, "killed by SIGKILL")
    assert third.prior_attempts() == second.prior_attempts(), (
        "of the end that the record caused, not of a later one"
    )


def test_how_a_process_ended_is_told_although_another_ends_before_it_is_used(path: Path) -> None:
    FlightRecorder(path).start("ORDERS", 0, 41, 1)
    FlightRecorder(path, 500, "killed by SIGSEGV").start("ORDERS", 1, 7, 1)
    third = FlightRecorder(path, 900, "exit code 3")
    assert {prior_attempt.key: prior_attempt.exit for prior_attempt in third.prior_attempts()} == {
        ("ORDERS", 0): "killed by SIGSEGV",
        ("ORDERS", 1): "exit code 3",
    }
    third.settle("failed", "ORDERS", 0, 41, 2)
    assert {prior_attempt.key: prior_attempt.exit for prior_attempt in reopened(path)}["ORDERS", 0] is None, (
        "the last attempt raised"
    )


def test_the_longest_name_and_the_longest_end_fit_into_a_note(path: Path) -> None:
    topic = "T" * 200  # the longest: actors/controller/names.py
    FlightRecorder(path).start(topic, 0, 41, 1)
    [prior_attempt] = FlightRecorder(path, 500, "x" * 1_000).prior_attempts()
    assert prior_attempt == PriorAttempt(topic, 0, 41, 1, "killed", 1, 500, 500, "x" * MAX_EXIT_BYTES)


def test_the_memory_that_the_process_had_is_told_of_who_ended_it_alone(path: Path) -> None:
    recorder = FlightRecorder(path)
    recorder.note_peak(120_000_000)
    recorder.start("ORDERS", 0, 41, 1)
    second = FlightRecorder(path)
    assert [prior_attempt.peak_bytes for prior_attempt in second.prior_attempts()] == [120_000_000]
    third = FlightRecorder(path)
    assert [prior_attempt.peak_bytes for prior_attempt in third.prior_attempts()] == [None], (
        "not of an earlier one"
    )


def test_both_counts_outlive_the_process(path: Path) -> None:
    recorder = FlightRecorder(path)
    recorder.start("ORDERS", 0, 41, 3, 7, 111)
    recorder.settle("released", "ORDERS", 0, 41, 2, 7, 111, 222)
    recorder.start("ORDERS", 1, 5, 1, 1)
    recorder.settle("rejected", "ORDERS", 1, 5, 1, 1, 333, 333)
    assert sorted(reopened(path), key=lambda prior_attempt: prior_attempt.partition) == [
        PriorAttempt("ORDERS", 0, 41, 2, "released", 7, 111, 222),
        PriorAttempt("ORDERS", 1, 5, 1, "rejected", 1, 333, 333),
    ]


def test_a_finished_record_is_not_charged(path: Path) -> None:
    recorder = FlightRecorder(path)
    recorder.start("ORDERS", 0, 41, 1)
    recorder.finish()
    assert reopened(path) == []


def test_an_abandoned_record_is_not_charged(path: Path) -> None:
    recorder = FlightRecorder(path)
    recorder.start("ORDERS", 0, 41, 1)
    recorder.abandon()
    assert reopened(path) == []


def test_only_a_recorder_without_a_charge_is_discarded(path: Path) -> None:
    recorder = FlightRecorder(path)
    recorder.start("ORDERS", 0, 41, 1)
    recorder.discard()
    assert path.exists(), "a record is at hand"
    recorder.settle("failed", "ORDERS", 0, 41, 1)
    recorder.discard()
    assert path.exists(), "a record waits for its next attempt"
    recorder.forget(("ORDERS", 0, 41))
    recorder.discard()
    assert not path.exists()


def test_a_charge_outlives_further_incarnations_until_it_is_forgotten(path: Path) -> None:
    FlightRecorder(path).start("ORDERS", 0, 41, 3)
    assert reopened(path) == [PriorAttempt("ORDERS", 0, 41, 3, "killed")]
    second = FlightRecorder(path)
    second.start("ORDERS", 1, 8, 1)
    third = FlightRecorder(path)
    assert sorted(prior_attempt.key for prior_attempt in third.prior_attempts()) == [
        ("ORDERS", 0),
        ("ORDERS", 1),
    ]
    third.forget(("ORDERS", 0, 41))
    assert reopened(path) == [PriorAttempt("ORDERS", 1, 8, 1, "killed")]


def test_failures_wait_side_by_side_and_the_next_attempt_replaces_the_last(path: Path) -> None:
    recorder = FlightRecorder(path)
    for partition, attempt in [(0, 1), (1, 1), (0, 2)]:
        recorder.start("ORDERS", partition, 5, attempt)
        recorder.settle("failed", "ORDERS", partition, 5, attempt)
    assert sorted(
        (prior_attempt.partition, prior_attempt.attempts, prior_attempt.cause)
        for prior_attempt in reopened(path)
    ) == [
        (0, 2, "failed"),
        (1, 1, "failed"),
    ]


def test_a_timeout_is_charged_as_such_unless_the_handler_came_back(path: Path) -> None:
    recorder = FlightRecorder(path)
    recorder.start("ORDERS", 0, 41, 2)
    recorder.finish()
    assert recorder.time_out() is None
    recorder.start("ORDERS", 0, 42, 2)
    assert recorder.time_out() == 42
    assert reopened(path) == [PriorAttempt("ORDERS", 0, 42, 2, "timed out")]


def test_more_failures_than_slots_cost_the_count_of_the_last_only(path: Path) -> None:
    recorder = FlightRecorder(path)
    for partition in range(CHARGE_SLOTS + 5):
        recorder.start("ORDERS", partition, 1, 1)
        recorder.settle("failed", "ORDERS", partition, 1, 1)
    assert len(reopened(path)) == CHARGE_SLOTS


def test_a_torn_note_charges_nobody(path: Path, seed: int) -> None:
    """Whatever half of a note reached the disk, it is all or nothing."""
    draw = random.Random(seed)
    recorder = FlightRecorder(path)
    recorder.start("ORDERS", 0, 41, 1)
    before = path.read_bytes()
    recorder.finish()
    recorder.start("PAYMENTS", 3, 1_000_000, 2)
    after = path.read_bytes()
    recorder.close()
    changed = [at for at in range(len(before)) if before[at] != after[at]]
    whole = (
        [PriorAttempt("ORDERS", 0, 41, 1, "killed")],
        [PriorAttempt("PAYMENTS", 3, 1_000_000, 2, "killed")],
    )
    for _ in range(100):
        torn = bytearray(before)
        for at in draw.sample(changed, draw.randrange(1, len(changed))):
            torn[at] = after[at]
        path.write_bytes(torn)
        assert reopened(path) in ([], *whole)


# Several in flight.


def test_several_at_hand_are_suspects_and_what_has_finished_is_known(path: Path) -> None:
    recorder = FlightRecorder(path, workers=3)
    for worker in range(3):
        recorder.start("ORDERS", 0, worker, 1, worker=worker, committed=0)
    recorder.finish(1)
    second = FlightRecorder(path, workers=3)
    recovered = second.recovered()
    assert second.is_death_explained
    assert recovered.prior_attempts == []
    assert sorted(each.spot for each in recovered.suspects) == [("ORDERS", 0, 0), ("ORDERS", 0, 2)]
    assert recovered.finished == [Finished("ORDERS", 0, 1, 0)]
    assert FlightRecorder(path, workers=2).recovered() == recovered, "nobody has tried anything since"


def test_whoever_was_at_hand_at_the_next_death_is_suspect_alone(path: Path) -> None:
    first = FlightRecorder(path, workers=4)
    for worker in range(4):
        first.start("ORDERS", 0, worker, 1, worker=worker)
    second = FlightRecorder(path, workers=4)
    second.start("ORDERS", 0, 0, 1, worker=2)
    second.start("ORDERS", 0, 1, 1, worker=3)
    third = FlightRecorder(path, workers=4)
    assert sorted(each.spot for each in third.recovered().suspects) == [("ORDERS", 0, 0), ("ORDERS", 0, 1)]
    third.start("ORDERS", 0, 1, 1, worker=0)
    third.finish(0)
    third.start("ORDERS", 0, 0, 1, worker=0)
    recovered = FlightRecorder(path, workers=4).recovered()
    assert recovered.prior_attempts == [PriorAttempt("ORDERS", 0, 0, 1, "killed")]
    assert recovered.suspects == []
    assert recovered.finished == [Finished("ORDERS", 0, 1, 0)]


def test_a_timeout_is_charged_to_one_and_makes_nobody_suspect(path: Path) -> None:
    recorder = FlightRecorder(path, workers=2)
    recorder.start("ORDERS", 0, 0, 1, worker=0)
    recorder.start("ORDERS", 0, 1, 1, worker=1)
    assert recorder.time_out(1) == 1
    recovered = FlightRecorder(path, workers=2).recovered()
    assert recovered.prior_attempts == [PriorAttempt("ORDERS", 0, 1, 1, "timed out")]
    assert recovered.suspects == []


def test_the_last_finished_outlive_several_processes_whoever_finished_them(path: Path) -> None:
    count, workers = RING_SLOTS + 200, 64
    for first in range(0, count, 100):
        recorder = FlightRecorder(path, workers=workers)
        for offset in range(first, min(count, first + 100)):
            recorder.start("ORDERS", 0, offset, 1, worker=5, committed=offset)
            recorder.finish(5)
    found = {finished.offset for finished in FlightRecorder(path, workers=workers).recovered().finished}
    assert found >= set(range(count - (RING_SLOTS - workers), count))


def test_what_is_at_hand_for_long_is_not_overwritten(path: Path) -> None:
    recorder = FlightRecorder(path, workers=5)
    recorder.start("ORDERS", 0, 7, 1, worker=4)

    def work(worker: int) -> None:
        for offset in range(2 * RING_SLOTS):
            recorder.start("ORDERS", 1 + worker, offset, 1, worker=worker)
            recorder.finish(worker)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [note.spot for note in recorder.in_progress()] == [("ORDERS", 0, 7)]
    recovered = FlightRecorder(path, workers=5).recovered()
    assert recovered.prior_attempts == [PriorAttempt("ORDERS", 0, 7, 1, "killed")]
    assert len(recovered.finished) >= RING_SLOTS - 5


def test_a_note_under_way_is_empty_until_its_last_byte(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between any two stores of a note, the record is either charged completely or not at all."""
    recorder = FlightRecorder(path)
    recorder.start("ORDERS", 0, 41, 1)
    recorder.finish()
    seen: list[list[PriorAttempt]] = []
    copy = path.with_name("copy.flight")

    class Watched:
        """The map, with a check of the file before every store."""

        def __init__(self, flight: mmap.mmap) -> None:
            self.flight = flight

        def __getitem__(self, at: int) -> int:
            return self.flight[at]

        def __setitem__(self, at: int | slice, value: object) -> None:
            copy.write_bytes(path.read_bytes())
            seen.append(reopened(copy))
            self.flight[at] = value  # type: ignore[call-overload]

    monkeypatch.setattr(recorder, "_map", Watched(recorder._map))
    recorder.start("ORDERS", 0, 42, 1)
    assert seen == [[], [], []]
    assert reopened(path) == [PriorAttempt("ORDERS", 0, 42, 1, "killed")]


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"PLFLIGHT" + bytes(100), bytes(FIRST_SLOT + SLOTS * SLOT_BYTES)]
)
def test_a_file_of_another_kind_is_made_anew(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert reopened(path) == []
    FlightRecorder(path).start("ORDERS", 0, 41, 1)
    assert len(reopened(path)) == 1


def test_group_names_are_quoted(tmp_path: Path) -> None:
    assert flight_path(str(tmp_path), "a/../b", "0").parent == tmp_path / "subscribers"


CHILD = """
import sys
from pathlib import Path
from planaria.actors.subscriber.flight_recorder import FlightRecorder
recorder = FlightRecorder(Path(sys.argv[1]))
recorder.start("ORDERS", 2, 99, 4)
if sys.argv[2] == "hold":
    print("started", flush=True)
    sys.stdin.read()
print("started", flush=True)
offset = 100
while True:
    recorder.start("ORDERS", 2, offset, 1)
    recorder.finish()
    offset += 1
"""


@pytest.fixture(params=["hold", "run"])
def child(request: pytest.FixtureRequest, path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), request.param],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.kill()


@pytest.mark.processes
def test_survives_sigkill(child: subprocess.Popen[str], path: Path) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait(TIMEOUT_S)
    prior_attempts = reopened(path)
    if child.args[-1] == "hold":  # type: ignore[index]
        assert prior_attempts == [PriorAttempt("ORDERS", 2, 99, 4, "killed")]
    else:
        # Killed at any moment: between two records none is charged, within one that one is.
        assert all(
            prior_attempt.offset >= 99 and prior_attempt.key == ("ORDERS", 2)
            for prior_attempt in prior_attempts
        )
        assert len(prior_attempts) <= 1


def test_a_finish_that_is_newer_than_a_charge_counts(path: Path) -> None:
    recorder = FlightRecorder(path)
    recorder.start("ORDERS", 0, 5, 1)
    recorder.settle("failed", "ORDERS", 0, 5, 1)
    recorder.start("ORDERS", 0, 5, 2)
    recorder.finish()
    recorder.start("ORDERS", 0, 9, 1)
    recovered = FlightRecorder(path).recovered()
    assert [prior_attempt.offset for prior_attempt in recovered.prior_attempts] == [9], (
        "the first one succeeded after it had failed"
    )
    assert [finished.offset for finished in recovered.finished] == [5]


def test_a_note_says_which_record_of_an_offset_it_is_of(path: Path) -> None:
    recorder, lineage = FlightRecorder(path, workers=2), lineage_of("topic", 3)
    recorder.start("ORDERS", 0, 4, 1, leader_epoch=2, lineage=lineage)
    recorder.finish()
    recorder.start("ORDERS", 0, 5, 1, leader_epoch=2, lineage=lineage)
    recovered = FlightRecorder(path).recovered()
    assert recovered.finished == [Finished("ORDERS", 0, 4, 0, 2, lineage)]
    assert [(each.leader_epoch, each.lineage) for each in recovered.prior_attempts] == [(2, lineage)]
