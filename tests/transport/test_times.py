"""Times as they are typed."""

import time

import pytest

from planaria.supervisor.cli.positions import AtOffset, AtTime, parse_target
from planaria.transport.times import past_ms, time_ms

NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1970-01-02", DAY_MS),
        ("1970-01-02T00:00:01Z", DAY_MS + 1_000),
        ("1790000000000ms", NOW_MS),
        ("24h", NOW_MS - DAY_MS),
        ("500ms", NOW_MS - 500),
        ("today", NOW_MS - NOW_MS % DAY_MS),
        ("yesterday", NOW_MS - NOW_MS % DAY_MS - DAY_MS),
        ("20261128", None),
        ("1790000000000", None),
        ("tomorrow", None),
    ],
)
def test_times_as_they_are_typed(text: str, found: int | None) -> None:
    assert past_ms(text, NOW_MS) == found


def test_a_duration_is_no_time_to_come() -> None:
    assert time_ms("24h") is None


def test_a_bare_number_is_an_offset_and_never_a_time() -> None:
    assert parse_target("20261128", NOW_MS) == AtOffset(20261128)
    assert parse_target("1790000000000ms", NOW_MS) == AtTime(NOW_MS)


def test_a_time_without_a_zone_is_local_as_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XYZ-5")
    time.tzset()
    try:
        assert time_ms("1970-01-02T05:00") == time_ms("1970-01-02T00:00Z") == 86_400_000
        assert past_ms("yesterday", 3 * 86_400_000) == 2 * 86_400_000 - 5 * 3_600_000
    finally:
        monkeypatch.undo()
        time.tzset()
