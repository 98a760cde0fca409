"""The catalog's file and the removal of topics: complete after every crash, clear errors when damaged."""

import random
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from catalog_file import CatalogFile
from faulty_files import Died, FaultyFiles
from planaria.actors.controller.catalog import (
    Catalog,
    CatalogMissing,
    decode_catalog,
    encode_catalog,
)
from planaria.actors.controller.folders import TopicFolders, has_records, label_of
from planaria.actors.controller.recovery import RecoveryFailed, recover_catalog, recover_partition
from planaria.actors.controller.rejoins import with_topic_mirror
from planaria.actors.log.errors import StorageFailed, StorageFull
from planaria.actors.log.files import Files
from planaria.actors.log.labels import encode_label, partition_label_of, topic_label_of
from planaria.actors.log.log import PartitionLog
from planaria.actors.metadata.file_format import CatalogCorrupt
from planaria.actors.partition.folder import check_folder
from planaria.actors.partition.log_config import log_config
from planaria.transport.protocol.mirrored import TopicMirror, TopicState
from planaria.transport.protocol.topics import TopicConfig

OLD = Catalog(catalog_id="c").with_topic("ORDERS", 3, TopicConfig(), 0).with_group("billing", 2)
NEW = OLD.with_topic("SHIPMENTS", 1, TopicConfig(retention_ms=-1), 0).with_era(9)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    CatalogFile(tmp_path, Files()).save(NEW)
    assert CatalogFile(tmp_path, Files()).load("another id").values() == NEW.values()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["catalog.json", "topics"]


def test_without_a_file_the_catalog_is_new(tmp_path: Path) -> None:
    catalog = CatalogFile(tmp_path, Files()).load("id")
    assert (catalog.values(), catalog.revision) == (Catalog(catalog_id="id").values(), 0)


def test_a_crash_at_any_step_leaves_the_old_or_the_new(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    seen = []
    for step in range(100):
        # Each step ends in a kill, which loses nothing, and in a power cut, which loses unsynced data.
        for power in ("on", "cut"):
            directory = tmp_path / f"{step}-{power}"
            directory.mkdir()
            CatalogFile(directory, Files()).save(OLD)
            files = FaultyFiles(die_before=step)
            try:
                CatalogFile(directory, files).save(NEW)
            except Died:
                pass
            else:
                assert OLD.values() in seen
                assert NEW.values() in seen
                return
            if power == "cut":
                files.lose_unsynced(draw)
            found = CatalogFile(directory, Files()).load("id").values()
            assert found in (OLD.values(), NEW.values())
            seen.append(found)
            CatalogFile(directory, Files()).save(NEW)
            assert CatalogFile(directory, Files()).load("id").values() == NEW.values()
    raise AssertionError("saving does not end")


@pytest.mark.parametrize("space_bytes", [None, 0])
def test_what_a_dead_predecessor_left_is_durable_before_it_is_believed(
    tmp_path: Path, space_bytes: int | None
) -> None:
    """It may have died between the rename and the sync of the directory."""
    CatalogFile(tmp_path, Files()).save(NEW)
    files = FaultyFiles(space_bytes=space_bytes)
    assert CatalogFile(tmp_path, files).load("id").values() == NEW.values()
    assert files.calls[-1] == "sync_directory"


def fill_topic(data_directory: Path, topic: str) -> None:
    for partition in (data_directory / "topics" / topic).glob("*/"):
        (partition / "00000000000000000000.log").write_bytes(b"x")


def test_records_without_a_catalog_are_no_new_broker(tmp_path: Path) -> None:
    CatalogFile(tmp_path, Files()).save(OLD)
    fill_topic(tmp_path, "ORDERS")
    (tmp_path / "catalog.json").unlink()
    with pytest.raises(CatalogMissing, match="planaria recover --catalog"):
        CatalogFile(tmp_path, Files()).load("id")


def test_a_topic_made_again_does_not_take_over_a_folder_that_the_catalog_does_not_know(
    tmp_path: Path,
) -> None:
    CatalogFile(tmp_path, Files()).save(NEW)
    fill_topic(tmp_path, "SHIPMENTS")
    CatalogFile(tmp_path, Files()).path.write_bytes(encode_catalog(OLD))
    catalog_file = CatalogFile(tmp_path, Files())
    older = catalog_file.load("id")
    (line,) = catalog_file.folders.differences(older)
    assert "'SHIPMENTS'" in line
    catalog_file.save(older.with_topic("SHIPMENTS", 1, TopicConfig(), 1_900_000_000_000))
    made = tmp_path / "topics" / "SHIPMENTS"
    assert not has_records(made)
    assert topic_label_of(made, Files()) != label_of(NEW.topics["SHIPMENTS"])
    (aside,) = (tmp_path / "topics").glob(".unclaimed~*")
    assert has_records(aside)


def test_a_removal_spares_the_folder_of_another_topic(tmp_path: Path) -> None:
    catalog_file = CatalogFile(tmp_path, Files())
    catalog_file.save(OLD)
    fill_topic(tmp_path, "ORDERS")
    catalog_file.folders.remove("ORDERS", "another id", lambda: None)
    assert has_records(tmp_path / "topics" / "ORDERS")


@pytest.mark.parametrize("state", ["missing", "damaged", "older"])
def test_a_catalog_is_recovered_from_the_folders(tmp_path: Path, state: str) -> None:
    CatalogFile(tmp_path, Files()).save(NEW)
    fill_topic(tmp_path, "SHIPMENTS")
    path = tmp_path / "catalog.json"
    if state == "missing":
        path.unlink()
    else:
        path.write_bytes(b"{}" if state == "damaged" else encode_catalog(OLD))
    lines = recover_catalog(str(tmp_path))
    found = CatalogFile(tmp_path, Files()).load("id")
    assert found.topics == NEW.topics
    assert any("SHIPMENTS" in line for line in lines)


@pytest.mark.parametrize("state", ["following", "promoted"])
@pytest.mark.parametrize("kept", ["missing", "older"])
def test_a_copy_of_another_brokers_topic_stays_one_without_its_catalog(
    tmp_path: Path, state: TopicState, kept: str
) -> None:
    """The older catalog is of the time at which the topic took producers."""
    catalog_file = CatalogFile(tmp_path, Files())
    catalog_file.save(OLD)
    mirror = TopicMirror(mirror="paris", state=state)
    catalog_file.save(with_topic_mirror(catalog_file.load("id"), "ORDERS", mirror))
    fill_topic(tmp_path, "ORDERS")
    path = tmp_path / "catalog.json"
    if kept == "missing":
        path.unlink()
    else:
        path.write_bytes(encode_catalog(OLD))
        alarms = catalog_file.folders.differences(CatalogFile(tmp_path, Files()).load("id"))
        assert any("is a copy" in line for line in alarms) == (state == "following")
    lines = recover_catalog(str(tmp_path))
    assert CatalogFile(tmp_path, Files()).load("id").topics["ORDERS"].mirror == mirror
    assert any("it accepts no producers" in line for line in lines) == (state == "following")


@pytest.mark.parametrize("kept", ["missing", "older"])
@pytest.mark.parametrize("labels", ["as written", "of an earlier version"])
def test_a_copy_stays_one_without_its_catalog_and_its_label(tmp_path: Path, kept: str, labels: str) -> None:
    """A topic takes producers only if that is certain."""
    catalog_file = CatalogFile(tmp_path, Files())
    catalog_file.save(NEW)
    for state in ("promoted", "following"):
        mirror = TopicMirror(mirror="paris", state=state)
        catalog_file.save(with_topic_mirror(catalog_file.load("id"), "ORDERS", mirror))
    older = encode_catalog(catalog_file.load("id"))
    mirror = TopicMirror(mirror="rome", state="promoted")
    catalog_file.save(with_topic_mirror(catalog_file.load("id"), "SHIPMENTS", mirror))
    for topic in ("ORDERS", "SHIPMENTS"):
        fill_topic(tmp_path, topic)
        (tmp_path / "topics" / topic / "topic.json").unlink()
        for path in (tmp_path / "topics" / topic).glob("*/partition.json"):
            label = partition_label_of(path.parent, Files())
            assert label is not None
            assert label.copied_by == ("paris" if topic == "ORDERS" else "")
            if labels != "as written":
                path.write_bytes(encode_label(replace(label, copied_by=None)))
    if kept == "missing":
        (tmp_path / "catalog.json").unlink()
    else:
        (tmp_path / "catalog.json").write_bytes(older)
    lines = recover_catalog(str(tmp_path))
    found = CatalogFile(tmp_path, Files()).load("id").topics
    is_certain = labels == "as written" or kept == "older"
    orders, shipments = found["ORDERS"].mirror, found["SHIPMENTS"].mirror
    assert orders is not None
    assert not orders.is_writable
    assert orders.mirror == ("paris" if is_certain else "recovered")
    assert (shipments is None or shipments.is_writable) == is_certain
    if kept == "missing":
        assert any(f"planaria mirror promote {orders.mirror} ORDERS" in line for line in lines)


def test_a_lost_partition_begins_again_above_all_it_ever_had(tmp_path: Path) -> None:
    catalog_file = CatalogFile(tmp_path, Files())
    catalog_file.save(OLD)
    fill_topic(tmp_path, "ORDERS")
    with pytest.raises(RecoveryFailed, match="not lost"):
        recover_partition(str(tmp_path), "ORDERS", 1, 500)
    lost = tmp_path / "topics" / "ORDERS" / "1"
    shutil.rmtree(lost)
    recover_partition(str(tmp_path), "ORDERS", 1, 500)
    check_folder(
        "here", getattr(partition_label_of(lost, Files()), "topic_id", None), OLD.topics["ORDERS"].topic_id
    )
    log = PartitionLog.open(lost, log_config(TopicConfig()), 0)
    assert (log.log_start_offset, log.log_end_offset) == (500, 500)
    log.close(clean=True)


def test_no_room_leaves_the_old(tmp_path: Path) -> None:
    CatalogFile(tmp_path, Files()).save(OLD)
    with pytest.raises(StorageFull):
        CatalogFile(tmp_path, FaultyFiles(space_bytes=10)).save(NEW)
    assert CatalogFile(tmp_path, Files()).load("id").values() == OLD.values()


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
    "data", [b"", b"{}", b"null", b"\xff\xfe", b'{"format":4,"crc32c":0,"state":{}}', b"[" * 100_000]
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


class CountingFiles(Files):
    syncs = 0

    def sync_directory(self, path: Path) -> None:
        self.syncs += 1
        super().sync_directory(path)

    def write_aside(self, path: Path, data: bytes) -> None:
        self.syncs += 1
        super().write_aside(path, data)


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
    TopicFolders(tmp_path, Files()).remove("ORDERS", "1f", lambda: moves.append(None))
    assert sorted(path.name for path in topics.iterdir()) == [".deleted", "KEPT"]
    assert (topics / "KEPT" / "1" / "00000000000000000000.log").exists()
    assert moves


def test_a_large_topic_reports_progress_between_the_syncs_of_its_folders(tmp_path: Path) -> None:
    files = CountingFiles()
    syncs = [0]
    folders = TopicFolders(tmp_path, files)
    folders.make(
        Catalog(catalog_id="c").with_topic("LARGE", 100, TopicConfig(), 0).topics.values(),
        lambda: syncs.append(files.syncs),
    )
    assert max(after - before for before, after in pairwise([*syncs, files.syncs])) <= 6
    assert files.syncs <= 2 * 100 + 6
    assert len(list((tmp_path / "topics" / "LARGE").iterdir())) == 101


def test_a_removal_can_be_repeated_after_a_crash_at_any_step(tmp_path: Path) -> None:
    for step in range(20):
        data_directory = tmp_path / str(step)
        topics = fill(data_directory)
        try:
            TopicFolders(data_directory, DyingFiles(step)).remove("ORDERS", "1f", lambda: None)
        except Died:
            again = TopicFolders(data_directory, Files())
            again.remove_leftovers(lambda: None)
            again.remove("ORDERS", "1f", lambda: None)
        else:
            break
        assert sorted(path.name for path in topics.iterdir()) == [".deleted", "KEPT"]
    assert step > 3


def test_nothing_to_remove(tmp_path: Path) -> None:
    directories = TopicFolders(tmp_path, Files())
    directories.remove("ORDERS", "1f", lambda: None)
    directories.remove_leftovers(lambda: None)
