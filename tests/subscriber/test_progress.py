"""Progress beyond the committed offset: recorded, bounded, read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planaria.actors.subscriber.progress import (
    MAX_CHARS,
    NOTHING_AHEAD,
    Ahead,
    from_metadata,
    gaps,
    is_in,
    to_metadata,
)


@given(st.sets(st.integers(0, 300)), st.integers(0, 320), st.integers(0, 2**62))
def test_what_is_outstanding_is_never_told_as_done(outstanding: set[int], end: int, base: int) -> None:
    held = sorted(base + offset for offset in outstanding)
    end = max([base + end, *(offset + 1 for offset in held)])
    ahead = gaps(held, end)
    start = held[0] if held else end
    text, told = to_metadata(start, ahead, leader_epoch=7)
    assert told == ahead
    assert from_metadata(start, text) == (Ahead(ahead, 7) if ahead else NOTHING_AHEAD)
    done = {offset for offset in range(start, end) if is_in(offset, ahead)}
    assert done == set(range(start, end)) - set(held)


def test_more_than_there_is_room_for_is_told_in_part() -> None:
    ahead = gaps(range(0, 20_000, 2), 20_000)
    text, told = to_metadata(0, ahead)
    assert MAX_CHARS - 20 < len(text) <= MAX_CHARS
    assert from_metadata(0, text).ranges == told == ahead[: len(told)]


@pytest.mark.parametrize(
    "text", ["", "mine", "done ahead: 1", *(f"done ahead (epoch 0): {end}" for end in ("", "1-", "1;2", "x"))]
)
def test_other_words_tell_nothing(text: str) -> None:
    assert from_metadata(5, text) == NOTHING_AHEAD
