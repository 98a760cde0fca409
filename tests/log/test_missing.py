"""Missing segments: the remaining files prove the loss, readers get its offsets, and none is reused."""

from pathlib import Path

import pytest

from log_batches import BIG, abandon, append, contents, open_log, segment
from planaria.actors.log.errors import CorruptLog

SEGMENT_BYTES = 300


def _write(directory: Path) -> list[int]:
    log = open_log(directory, segment_bytes=SEGMENT_BYTES)
    for number in range(20):
        append(log, [b"%d" % number], producer_id=7, producer_epoch=0, base_sequence=number)
    log.close()
    return sorted(int(path.stem) for path in directory.glob("*.log"))


@pytest.mark.parametrize("is_checkpoint_gone", [False, True])
@pytest.mark.parametrize("which", ["first", "middle", "newest"])
def test_a_missing_segment_is_told_and_its_offsets_are_not_given_again(
    tmp_path: Path, which: str, is_checkpoint_gone: bool
) -> None:
    bases = _write(tmp_path)
    index = {"first": 0, "middle": 2, "newest": len(bases) - 1}[which]
    lost, following = bases[index], [*bases, 20][index + 1]
    segment(tmp_path, lost).unlink()
    if is_checkpoint_gone:
        (tmp_path / "checkpoint").unlink()
    for _ in range(2):
        log = open_log(tmp_path, segment_bytes=SEGMENT_BYTES)
        assert [(loss.offset, loss.next_offset) for loss in log.losses] == [(lost, following)]
        assert "missing" in str(log.losses[0])
        assert (log.log_start_offset, log.log_end_offset) == (0, 20)
        for offset in range(lost, following):
            with pytest.raises(CorruptLog) as caught:
                log.read(offset, 1 << 20, BIG)
            assert (caught.value.offset, caught.value.next_offset) == (offset, following)
        assert [offset for offset, _ in contents(log)] == [*range(lost), *range(following, 20)]
        abandon(log)
    log = open_log(tmp_path, segment_bytes=SEGMENT_BYTES)
    append(log, [b"new"], epoch=log.leader_epoch)
    assert contents(log)[-1] == (20, b"new")
    log.delete_before(following)
    abandon(log)
    log = open_log(tmp_path, segment_bytes=SEGMENT_BYTES)
    assert (log.log_start_offset, log.losses) == (following, [])
    log.close()


def test_every_opening_takes_a_leader_epoch_of_its_own(tmp_path: Path) -> None:
    """Also without an append, and when a power cut removed all appends."""
    epochs = []
    for number in range(6):
        log = open_log(tmp_path)
        epochs.append(log.leader_epoch)
        if number % 2:
            before = segment(tmp_path).read_bytes()
            append(log, [b"not synced"], epoch=log.leader_epoch)
        abandon(log)
        if number % 2:
            segment(tmp_path).write_bytes(before)
    assert epochs == sorted(set(epochs))
