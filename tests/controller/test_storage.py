"""The catalog's file and the removal of topics: whole after every crash, clear when damaged."""

import random
import re
from pathlib import Path

import pytest

from faulty_files import Died, FaultyFiles
from planaria.actors.controller.catalog import Catalog, CatalogCorrupt, decode_catalog, encode_catalog
from planaria.actors.controller.storage import CatalogFile, TopicDirectories
from planaria.actors.log.errors import StorageFailed, StorageFull
from planaria.actors.log.files import Files
from planaria.transport.protocol.topics import TopicConfig

OLD = Catalog(catalog_id="c").with_topic("ORDERS", 3, TopicConfig(), 0).with_group("billing", 2)
NEW = OLD.with_topic("SHIPMENTS", 1, TopicConfig(retention_ms=-1), 0).with_era(9)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    CatalogFile(tmp_path, Files()).save(NEW)
    assert CatalogFile(tmp_path, Files()).load("another id") == NEW
    assert [path.name for path in tmp_path.iterdir()] == ["catalog.json"]


def test_without_a_file_the_catalog_is_new(tmp_path: Path) -> None:
    assert CatalogFile(tmp_path, Files()).load("id") == Catalog(catalog_id="id")


def test_a_crash_at_any_step_leaves_the_old_or_the_new(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    seen = []
    for step in range(20):
        directory = tmp_path / str(step)
        directory.mkdir()
        CatalogFile(directory, Files()).save(OLD)
        files = FaultyFiles(die_before=step)
        try:
            CatalogFile(directory, files).save(NEW)
        except Died:
            pass
        else:
            break
        files.lose_unsynced(draw)
        found = CatalogFile(directory, Files()).load("id")
        assert found in (OLD, NEW)
        seen.append(found)
        CatalogFile(directory, Files()).save(NEW)
        assert CatalogFile(directory, Files()).load("id") == NEW
    assert OLD in seen
    assert NEW in seen


def test_no_room_leaves_the_old(tmp_path: Path) -> None:
    CatalogFile(tmp_path, Files()).save(OLD)
    with pytest.raises(StorageFull):
        CatalogFile(tmp_path, FaultyFiles(space_bytes=10)).save(NEW)
    assert CatalogFile(tmp_path, Files()).load("id") == OLD


def test_a_failed_sync_is_fatal(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.fail_syncs = True
    with pytest.raises(StorageFailed):
        CatalogFile(tmp_path, files).save(NEW)


def test_any_damage_is_named(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    whole = encode_catalog(NEW)
    for _ in range(300):
        damaged = bytearray(whole)
        position = draw.randrange(len(whole) - 1)
        damaged[position] ^= 1 << draw.randrange(8)
        (tmp_path / "catalog.json").write_bytes(bytes(damaged))
        with pytest.raises(CatalogCorrupt, match=re.escape(str(tmp_path / "catalog.json"))):
            CatalogFile(tmp_path, Files()).load("id")


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"null", b"\xff\xfe", b'{"format":3,"crc32c":0,"catalog":{}}', b"[" * 100_000]
)
def test_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises(CatalogCorrupt, match=r"^here/catalog\.json: "):
        decode_catalog(data, "here/catalog.json")


def test_a_future_field_is_not_dropped_silently() -> None:
    future = encode_catalog(NEW).replace(b'"revision"', b'"rubato":1,"revision"')
    with pytest.raises(CatalogCorrupt):
        decode_catalog(future, "catalog.json")


class DyingFiles(Files):
    """Dies before the n-th change of a directory."""

    def __init__(self, die_before: int) -> None:
        super().__init__()
        self.left = die_before

    def _step(self) -> None:
        if self.left == 0:
            raise Died("here")
        self.left -= 1

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)

    def sync_directory(self, path: Path) -> None:
        self._step()
        super().sync_directory(path)


def fill(data_directory: Path) -> Path:
    for topic in ("ORDERS", "KEPT", ".deleted"):
        for partition in ("0", "1"):
            directory = data_directory / "topics" / topic / partition
            directory.mkdir(parents=True)
            (directory / "00000000000000000000.log").write_bytes(b"x")
    return data_directory / "topics"


def test_a_topic_is_removed_and_no_other(tmp_path: Path) -> None:
    topics = fill(tmp_path)
    moves: list[None] = []
    TopicDirectories(tmp_path, Files()).remove("ORDERS", "1f", lambda: moves.append(None))
    assert sorted(path.name for path in topics.iterdir()) == [".deleted", "KEPT"]
    assert (topics / "KEPT" / "1" / "00000000000000000000.log").exists()
    assert moves


def test_a_removal_can_be_repeated_after_a_crash_at_any_step(tmp_path: Path) -> None:
    for step in range(20):
        data_directory = tmp_path / str(step)
        topics = fill(data_directory)
        try:
            TopicDirectories(data_directory, DyingFiles(step)).remove("ORDERS", "1f", lambda: None)
        except Died:
            again = TopicDirectories(data_directory, Files())
            again.remove_leftovers(lambda: None)
            again.remove("ORDERS", "1f", lambda: None)
        else:
            break
        assert sorted(path.name for path in topics.iterdir()) == [".deleted", "KEPT"]
    assert step > 3


def test_nothing_to_remove(tmp_path: Path) -> None:
    directories = TopicDirectories(tmp_path, Files())
    directories.remove("ORDERS", "1f", lambda: None)
    directories.remove_leftovers(lambda: None)
