"""Options in milliseconds take a timedelta, rounded up; nothing else is touched."""

from datetime import timedelta

import pytest

from planaria.transport.client.options import ClientOptions, InvalidOption, ProducerOptions, checked
from planaria.transport.durations import in_milliseconds


def test_a_timedelta_becomes_milliseconds() -> None:
    given = {"a_ms": timedelta(seconds=2), "b_ms": 5, "c_ms": [timedelta(minutes=1), 7], "d_ms": None}
    assert in_milliseconds(given) == {"a_ms": 2_000, "b_ms": 5, "c_ms": [60_000, 7], "d_ms": None}


@pytest.mark.parametrize(("time", "milliseconds"), [(1, 1), (1_000, 1), (1_001, 2), (0, 0), (-1_500, -1)])
def test_a_part_of_a_millisecond_is_rounded_up(time: int, milliseconds: int) -> None:
    assert in_milliseconds({"a_ms": timedelta(microseconds=time)}) == {"a_ms": milliseconds}


def test_options_are_checked_after_the_conversion() -> None:
    assert checked(ProducerOptions, {"linger_ms": timedelta(milliseconds=7)}).linger_ms == 7
    with pytest.raises(InvalidOption, match="request_timeout_ms"):
        checked(ClientOptions, {"request_timeout_ms": timedelta(seconds=-1)})


def test_an_option_that_is_no_duration_takes_no_timedelta() -> None:
    with pytest.raises(InvalidOption, match="batch_records"):
        checked(ProducerOptions, {"batch_records": timedelta(seconds=1)})
