"""A log whose owner was killed."""

from pathlib import Path

import pytest

from log_batches import abandon, append, open_log


@pytest.fixture
def unclean(tmp_path: Path) -> Path:
    """Three batches above the recovery point (`log_batches.UNCLEAN`); their writer was killed."""
    log = open_log(tmp_path / "log")
    for value in (b"first", b"second", b"third"):
        append(log, [value, value], producer_id=7, producer_epoch=0, base_sequence=log.log_end_offset)
    log.sync()
    abandon(log)
    return tmp_path / "log"
