"""Missing segments: the remaining files prove the loss, readers get its offsets, and none is reused."""

from pathlib import Path

import pytest

from keyed_logs import append_keyed, compact, held, seal
from log_batches import BIG, NOW_MS, abandon, append, contents, flip, open_log, segment, unlimited
from planaria.actors.log.errors import CorruptLog
from planaria.actors.log.log import PartitionLog
from planaria.transport.batch import decode_records, split

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


def test_offsets_of_a_lost_segment_behind_a_compacted_one_are_exactly_the_lost_ones(tmp_path: Path) -> None:
    """The compacted segment ends before its last offset: that is no loss. All of its lost successor is."""

    def opened() -> PartitionLog:
        return PartitionLog.open(
            tmp_path, unlimited(segment_bytes=BIG, is_compacting=True, min_cleanable_ratio=0.0), NOW_MS
        )

    log = opened()
    written = append_keyed(log, [(b"a", b"old"), (b"kept", b"1"), (b"b", b"old")])
    written |= append_keyed(log, [(b"a", b"new"), (b"b", b"new")])
    written |= seal(log)
    compact(log)
    (compacted, *others) = log._compactor.cleaned.segments
    assert not others
    first_lost, end = log._compactor.cleaned.segments[compacted].next_offset, log.log_end_offset
    left = {offset: record for offset, record in held(log).items() if offset < first_lost}
    log.close()
    lost = [path for path in tmp_path.glob("*.log") if int(path.stem) >= first_lost]
    assert lost
    for path in lost:
        path.unlink()
    for _ in range(2):
        log = opened()
        assert [(loss.offset, loss.next_offset) for loss in log.losses] == [(first_lost, end)]
        assert log.log_end_offset == end
        read, offset = {}, 0
        while offset < first_lost:
            run, offset = log.read(offset, 1 << 20, BIG)
            for header, frame in split(run):
                read |= dict(enumerate(decode_records(frame, header), header.base_offset))
        assert {at: (record[0], record[1]) for at, record in read.items()} == left
        abandon(log)


def test_the_start_proves_offsets_of_a_tail_that_rot_has_cut(tmp_path: Path) -> None:
    """Without the checkpoint the whole segment is a tail; behind the cut lie offsets that readers were given."""
    log = open_log(tmp_path)
    for number in range(20):
        append(log, [b"%d" % number])
    log.delete_before(15)
    abandon(log)
    for path in (tmp_path / "checkpoint", *tmp_path.glob("*.snapshot")):
        path.unlink()
    whole = segment(tmp_path).read_bytes()
    flip(segment(tmp_path), split(whole)[10][0].size_bytes * 10 + 70)
    for _ in range(2):
        log = open_log(tmp_path)
        assert (log.log_start_offset, log.log_end_offset, contents(log)) == (15, 15, [])
        abandon(log)
    log = open_log(tmp_path)
    append(log, [b"new"], epoch=log.leader_epoch)
    assert contents(log) == [(15, b"new")]
    abandon(log)
