"""The batches of a turn that is ending: read as they were written, or not at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from log_batches import BIG, NOW_MS, batch, open_log
from planaria.actors.log.log import PartitionLog
from planaria.actors.partition.fresh import FreshBatches


@pytest.fixture
def log(tmp_path: Path) -> Iterator[PartitionLog]:
    log = open_log(tmp_path)
    yield log
    log.close()


def test_a_read_of_a_turns_batches_is_that_of_the_log(log: PartitionLog) -> None:
    earlier = batch(0, [b"earlier"])
    log.append([earlier[0]], [earlier[1]], NOW_MS)
    found = [batch(1, [b"a", b"b"]), batch(3, [b"c"])]
    frames, headers = [frame for frame, _ in found], [header for _, header in found]
    log.append(frames, headers, NOW_MS)
    fresh = FreshBatches(frames, headers)
    size_bytes = sum(map(len, frames))

    for bounds in [(1, BIG, 4), (1, size_bytes, 9)]:
        run, next_offset = log.read(*bounds)
        assert fresh.read(*bounds) == (bytes(run), next_offset)

    others = {
        "below": (0, BIG, 4),
        "inside the first batch": (2, BIG, 4),
        "only the second batch": (3, BIG, 4),
        "at the end": (4, BIG, 4),
        "before the second batch": (1, BIG, 3),
        "too large": (1, size_bytes - 1, 4),
    }
    assert {why: fresh.read(*bounds) for why, bounds in others.items()} == dict.fromkeys(others)
