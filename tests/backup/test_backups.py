"""Backups of a directory that nothing changes: only new bytes, damage found anywhere, a branch of its own."""

import os
from pathlib import Path

import pytest

from backup_life import PARTITION, SEGMENT_BYTES, store_backup
from catalog_file import CatalogFile
from log_batches import NOW_MS, abandon, append, contents, flip, make_room_early, open_log
from planaria.actors.backup.manifest import BackupFailed, backup_ids
from planaria.actors.backup.restore import restore
from planaria.actors.backup.verify import verify
from planaria.actors.log.files import Files
from planaria.actors.log.log import PartitionLog
from planaria.supervisor.data_directory import DataDirectoryError, open_data_directory
from planaria.transport.protocol.topics import TopicConfig


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = CatalogFile(tmp_path / "data", Files())
    file.save(file.load("id").with_topic("ORDERS", 1, TopicConfig(), NOW_MS))
    return tmp_path / "data"


def filled(data: Path, count: int = 8) -> PartitionLog:
    log = open_log(data / PARTITION, segment_bytes=SEGMENT_BYTES)
    for number in range(count):
        append(log, [b"%d" % number * 20])
    log.sync()
    return log


def damage(root: Path) -> list[str]:
    return [f"{found.path}: {found.text}" for found in verify(root).findings if found.is_damage]


@pytest.mark.parametrize("may_link", [False, True])
def test_a_second_backup_copies_only_new_bytes(data: Path, tmp_path: Path, may_link: bool) -> None:
    log = filled(data, 40)
    first = store_backup(data, tmp_path / "b", may_link=may_link)
    append(log, [b"new"])
    log.sync()
    second = store_backup(data, tmp_path / "b", may_link=may_link)
    log.close()
    assert second["bytes"] > first["bytes"]
    assert second["copied_bytes"] < SEGMENT_BYTES + 1_000
    assert damage(tmp_path / "b") == []
    for identity, count in zip(backup_ids(tmp_path / "b", Files()), (40, 41), strict=True):
        restore(tmp_path / "b", tmp_path / f"new-{count}", NOW_MS, identity)
        restored = open_log(tmp_path / f"new-{count}" / PARTITION, segment_bytes=SEGMENT_BYTES)
        assert len(contents(restored)) == count
        restored.close()


def test_only_the_newest_are_kept_and_each_is_whole(data: Path, tmp_path: Path) -> None:
    log = filled(data)
    for _ in range(4):
        append(log, [b"x"])
        log.sync()
        store_backup(data, tmp_path / "b", keep=2)
    log.close()
    assert len(backup_ids(tmp_path / "b", Files())) == 2
    assert damage(tmp_path / "b") == []


def test_records_written_after_the_image_are_not_in_the_backup(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker goes on in the same file, in room that is preallocated, while the image is being copied."""
    make_room_early(monkeypatch, 4_096)
    log = open_log(data / PARTITION)
    append(log, [b"before"])
    log.checkpoint()
    append(log, [b"behind the checkpoint"])
    log.sync()
    from planaria.actors.backup.image import STAGING_PREFIX, take_image
    from planaria.actors.backup.store import store_image

    staging = data / f"{STAGING_PREFIX}1"
    take_image(data, staging, Files())
    append(log, [b"after"])
    log.sync()
    store_image(staging, tmp_path / "b", str(data), NOW_MS, may_link=True, keep=7)
    log.close()
    restore(tmp_path / "b", tmp_path / "new", NOW_MS)
    restored = open_log(tmp_path / "new" / PARTITION)
    assert [value for _, value in contents(restored)] == [b"before", b"behind the checkpoint"]
    restored.close()


def test_a_restored_log_has_leader_epochs_of_its_own(data: Path, tmp_path: Path) -> None:
    log = filled(data)
    log.checkpoint()
    store_backup(data, tmp_path / "b")
    log.close()
    restore(tmp_path / "b", tmp_path / "new", NOW_MS)
    restored = open_log(tmp_path / "new" / PARTITION)
    assert restored.leader_epoch > log.leader_epoch + 100_000
    abandon(restored)


def test_keys_and_files_of_later_versions_are_restored_with_their_modes(data: Path, tmp_path: Path) -> None:
    filled(data).close()
    (data / "security").mkdir()
    (data / "security" / "server.key").write_text("secret")
    (data / "security" / "server.key").chmod(0o600)
    (data / "broker.log").write_text("line\n")
    (data / "supervisor.lock").write_text("1")
    store_backup(data, tmp_path / "b", may_link=True)
    (data / "broker.log").write_text("line\nanother\n")
    assert damage(tmp_path / "b") == []
    restore(tmp_path / "b", tmp_path / "new", NOW_MS)
    key = tmp_path / "new" / "security" / "server.key"
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("secret", 0o600)
    assert (tmp_path / "new" / "broker.log").read_text() == "line\n"
    assert not (tmp_path / "new" / "supervisor.lock").exists()


def test_nothing_is_restored_over_something(data: Path, tmp_path: Path) -> None:
    store_backup(data, tmp_path / "b")
    with pytest.raises(BackupFailed, match="not empty"):
        restore(tmp_path / "b", data, NOW_MS)
    with pytest.raises(BackupFailed, match="no finished backup"):
        restore(tmp_path / "none", tmp_path / "new", NOW_MS)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".restoring~").touch()
    (tmp_path / "empty" / "topics").mkdir()
    with pytest.raises(DataDirectoryError, match="planaria restore"):
        open_data_directory(tmp_path / "empty")
    restore(tmp_path / "b", tmp_path / "empty", NOW_MS)
    assert (tmp_path / "empty" / "catalog.json").exists()
    open_data_directory(tmp_path / "empty").close()


def test_a_flipped_bit_anywhere_in_a_stopped_directory_is_found(data: Path) -> None:
    filled(data).close()
    assert damage(data) == []
    checked = [
        path
        for path in sorted(data.rglob("*"))
        if path.is_file() and path.stat().st_size and path.suffix not in (".index", ".timeindex", ".lock")
    ]
    assert {path.suffix for path in checked} >= {".log", ".json", ".snapshot", ""}
    for path in checked:
        for position in range(0, path.stat().st_size, max(1, path.stat().st_size // 5)):
            flip(path, position)
            assert damage(data), f"{path}, byte {position}"
            flip(path, position)


def test_missing_segments_labels_and_catalogs_are_found(data: Path, tmp_path: Path) -> None:
    filled(data).close()
    segments = sorted((data / PARTITION).glob("*.log"))
    for path in (segments[1], data / PARTITION / "partition.json", data / "catalog.json"):
        os.rename(path, tmp_path / "aside")
        assert damage(data), path
        os.rename(tmp_path / "aside", path)
    assert damage(data) == []


def test_a_torn_tail_is_told_and_is_no_damage(data: Path) -> None:
    abandon(filled(data, 3))
    last = max((data / PARTITION).glob("*.log"))
    with last.open("ab") as file:
        file.write(b"torn")
    (found,) = verify(data).findings
    assert (found.is_damage, "never acknowledged" in found.text) == (False, True)
