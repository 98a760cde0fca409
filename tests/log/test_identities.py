"""Dedup ids: found within the window only, bounded, reverted when the disk was full, kept by snapshots."""

import random
from pathlib import Path

import pytest

from keyed_logs import compact, held, seal
from log_batches import NOW_MS, abandon, flip, unlimited
from planaria.actors.log.dedup_index import DedupIndex
from planaria.actors.log.log import PartitionLog
from planaria.actors.log.producers import ProducerStates
from planaria.transport.batch import parse_header, stamp
from planaria.transport.deduplication import identified_batch


def written(identities: DedupIndex, dedup_id: str, offset: int, now: int) -> None:
    identities.note(dedup_id, offset, now)
    identities.confirm(now)


def test_an_identity_is_found_until_the_window_is_over() -> None:
    identities = DedupIndex(window_ms=100)
    written(identities, "a", 7, now=0)
    assert identities.find("a", 99) == 7
    assert identities.find("a", 100) is None
    assert identities.find("b", 0) is None


def test_the_oldest_makes_room() -> None:
    identities = DedupIndex(limit=3)
    for number in range(5):
        written(identities, f"id{number}", number, now=0)
    assert [identities.find(f"id{number}", 0) for number in range(5)] == [None, None, 2, 3, 4]
    assert len(identities) == 3


def test_what_is_too_old_takes_no_room() -> None:
    identities = DedupIndex(window_ms=100)
    for now in range(1_000):
        written(identities, f"id{now}", now, now)
    assert len(identities) == 100


def test_one_seen_anew_after_the_window_counts_from_there() -> None:
    identities = DedupIndex(window_ms=100)
    written(identities, "a", 1, now=0)
    written(identities, "a", 2, now=150)
    assert identities.find("a", 249) == 2


def test_what_was_not_written_is_taken_back() -> None:
    identities = DedupIndex(window_ms=100)
    written(identities, "old", 1, now=0)
    written(identities, "kept", 2, now=90)
    identities.note("old", 3, 120)
    identities.note("new", 4, 120)
    assert [each.dedup_id for each in identities.sightings()] == ["kept"]
    identities.revert()
    assert identities.find("new", 120) is None
    assert identities.find("old", 99) == 1
    assert [each.dedup_id for each in identities.sightings()] == ["old", "kept"]


def test_a_window_of_nothing_finds_nothing() -> None:
    identities = DedupIndex(window_ms=0)
    written(identities, "a", 1, now=5)
    assert identities.find("a", 5) is None
    assert len(identities) == 0


def test_snapshots_keep_identities_with_their_times() -> None:
    states = ProducerStates()
    written(states.dedup_ids, "a", 7, now=50)
    states.dedup_ids.note("never written", 8, 50)
    loaded = ProducerStates()
    assert loaded.load(states.encode(8), 8)
    assert loaded.dedup_ids.find("a", 119_000 + 50) == 7
    assert loaded.dedup_ids.find("a", 120_000 + 50) is None
    assert loaded.dedup_ids.find("never written", 50) is None


def test_a_window_is_no_longer_than_itself_after_a_boot_with_a_slow_clock(tmp_path: Path) -> None:
    config = unlimited()
    log = PartitionLog.open(tmp_path, config, NOW_MS)
    append(log, "a", NOW_MS)
    log.close()
    slow_ms = NOW_MS - 48 * 3_600_000
    log = PartitionLog.open(tmp_path, config, slow_ms)
    assert log.producers.dedup_ids.find("a", slow_ms + 119_999) == 0
    assert log.producers.dedup_ids.find("a", slow_ms + 120_000) is None
    log.close()


def append(log: PartitionLog, dedup_id: str, now: int, key: bytes | None = None) -> int:
    """Append as the partition's machine and process do."""
    offset = log.log_end_offset
    frame = identified_batch((key, b"v", 0, {"dedup-id": dedup_id}), 1_000)
    stamped = bytes(stamp(frame, offset, 0))
    log.producers.dedup_ids.note(dedup_id, offset, now)
    log.append([stamped], [parse_header(stamped)], now)
    return offset


def test_a_log_gives_back_what_it_was_told(tmp_path: Path, seed: int) -> None:
    """Over clean ends, dirty ones, rolls and missing snapshots."""
    draw = random.Random(seed)
    config = unlimited(segment_bytes=2_000, dedup_window_ms=10_000, dedup_window_count=1_000)
    expected: dict[str, int] = {}
    for life in range(8):
        log = PartitionLog.open(tmp_path, config, now_ms=life)
        found = {name: log.producers.dedup_ids.find(name, life) for name in expected}
        assert found == expected, f"life {life}"
        for number in range(draw.randrange(60)):
            name = f"{life}-{number}"
            expected[name] = append(log, name, life)
            if draw.random() < 0.1:
                log.checkpoint()
        log.sync()
        log.close(clean=draw.random() < 0.5)
        for snapshot in tmp_path.glob("*.snapshot"):
            if draw.random() < 0.3:
                snapshot.unlink()


def test_a_recovery_knows_the_bounds_of_its_topic(tmp_path: Path) -> None:
    config = unlimited(dedup_window_ms=3_600_000, dedup_window_count=5)
    log = PartitionLog.open(tmp_path, config, now_ms=0)
    for number in range(10):
        append(log, f"id{number}", 0)
    log.close()
    log = PartitionLog.open(tmp_path, config, now_ms=3_000_000)
    identities = log.producers.dedup_ids
    assert [identities.find(f"id{number}", 3_000_000) for number in (4, 5, 9)] == [None, 5, 9]
    log.close()


@pytest.mark.parametrize("is_newest_damaged", [False, True])
def test_identities_are_known_though_compaction_dropped_their_records(
    tmp_path: Path, is_newest_damaged: bool
) -> None:
    config = unlimited(segment_bytes=1_000, is_compacting=True, is_deleting=False)
    log = PartitionLog.open(tmp_path, config, NOW_MS)
    offsets = {f"id{number}": append(log, f"id{number}", NOW_MS, b"key") for number in range(40)}
    seal(log)
    offsets["later"] = append(log, "later", NOW_MS, b"key")
    compact(log)
    assert not [offset for offset in held(log) if offset < 39], "compaction has been there"
    snapshots = sorted(tmp_path.glob("*.snapshot"))
    assert len(snapshots) == 2
    log.sync()
    abandon(log)
    if is_newest_damaged:
        flip(snapshots[-1], 12)
    log = PartitionLog.open(tmp_path, config, NOW_MS)
    assert {name: log.producers.dedup_ids.find(name, NOW_MS) for name in offsets} == offsets
    abandon(log)
