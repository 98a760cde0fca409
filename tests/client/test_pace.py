"""The pace of a producer: calm or in bulk."""

import random

import pytest

from planaria.transport.client.pace import BULK_RECORDS_PER_MS, SILENCE_MS, WINDOW_MS, Pace


def run(pace: Pace, records_per_ms: float, began_ms: int, ms: int, batch_ms: int = 1) -> None:
    for now_ms in range(began_ms, began_ms + ms, batch_ms):
        pace.note(int(records_per_ms * batch_ms), now_ms)


def test_a_new_producer_is_calm() -> None:
    assert not Pace().is_bulk(1_700_000_000_000)


@pytest.mark.parametrize("batch_ms", [1, 3, 8])
def test_bulk_from_its_second_window_on(batch_ms: int) -> None:
    pace = Pace()
    run(pace, 2 * BULK_RECORDS_PER_MS, 1_000, 4 * WINDOW_MS, batch_ms)
    assert pace.is_bulk(1_000 + 4 * WINDOW_MS)


def test_five_a_millisecond_are_calm() -> None:
    pace = Pace()
    run(pace, 5, 1_000, 1_000)
    assert not pace.is_bulk(2_000)


def test_a_small_burst_after_a_silence_is_calm_and_a_large_one_is_bulk_at_once() -> None:
    pace = Pace()
    for second in range(1, 5):
        pace.note(1, 1_000 * second)
        pace.note(BULK_RECORDS_PER_MS * WINDOW_MS // 2, 1_000 * second + 1)
        assert not pace.is_bulk(1_000 * second + 2)
    pace.note(1, 10_000)
    assert not pace.is_bulk(10_000)
    pace.note(BULK_RECORDS_PER_MS * WINDOW_MS, 10_001)
    assert pace.is_bulk(10_001)


def test_bulk_ends_with_silence_and_with_a_slower_window() -> None:
    pace = Pace()
    run(pace, 1_000, 1_000, 4 * WINDOW_MS)
    assert pace.is_bulk(1_000 + 4 * WINDOW_MS + SILENCE_MS // 2), "the disk was slow for a moment"
    assert not pace.is_bulk(1_000 + 5 * WINDOW_MS + SILENCE_MS)
    run(pace, 1_000, 2_000, 4 * WINDOW_MS)
    run(pace, 1, 2_000 + 4 * WINDOW_MS, 3 * WINDOW_MS)
    assert not pace.is_bulk(2_000 + 7 * WINDOW_MS)


@pytest.mark.parametrize("seed", range(20))
def test_a_steady_pace_is_known_after_two_windows(seed: int) -> None:
    choose = random.Random(seed)
    pace = Pace()
    records_per_ms = choose.choice([BULK_RECORDS_PER_MS // 3, BULK_RECORDS_PER_MS * 3])
    now_ms = 5_000
    while now_ms < 5_000 + 5 * WINDOW_MS:
        step_ms = choose.randint(1, WINDOW_MS // 2)
        now_ms += step_ms
        pace.note(records_per_ms * step_ms, now_ms)
    assert pace.is_bulk(now_ms) == (records_per_ms > BULK_RECORDS_PER_MS)
