"""Short lives of everything that keeps files, for the tests that end them anywhere.

A life appends its acknowledged durable writes to `done`, and `judge` starts its successor: it asserts that nothing in
`done` is lost and nothing unwritten appears, and appends its own observations.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from catalog_file import CatalogFile
from faulty_system import FaultySystem
from keyed_logs import append_keyed, compact, held, newest, seal
from labelled_folders import label_partition
from log_batches import NOW_MS, abandon, append, contents, flip, open_log, segment, unlimited
from manual_loop import ManualLoop, context_of
from planaria.actors.controller.catalog import Catalog
from planaria.actors.journal.sleep_mark import (
    SUFFIX,
    SleepMark,
    group_file,
    partition_mark,
    sleeping_groups,
    sleeping_partitions,
)
from planaria.actors.journal.snapshot_file import SnapshotFile
from planaria.actors.log.companions import GROUPS_NAME
from planaria.actors.log.errors import StorageFailed
from planaria.actors.log.files import Files
from planaria.actors.log.labels import partition_label_of, topic_label_of
from planaria.actors.log.log import PartitionLog
from planaria.actors.partition.groups import decode_groups
from planaria.actors.partition.process import PartitionProcess
from planaria.actors.subscriber.flight_recorder import FlightRecorder, flight_path
from planaria.supervisor.data_directory import hold_presence, open_data_directory
from planaria.transport.machine import Received, Sender
from planaria.transport.protocol.progress import NOT_COMMITTED, ReportProgress
from planaria.transport.protocol.topics import TopicConfig


class Life(Protocol):
    def live(self, root: Path, done: list[Any], system: FaultySystem) -> None: ...

    def judge(self, root: Path, done: list[Any], is_cut: bool) -> None:
        """Check a successor. `is_cut`: the power failed; files kept only for dead processes may be gone."""


class DataDirectoryLife:
    """No start number is used twice, since it names the run directory; all starts share one steady clock."""

    def live(self, root: Path, done: list[Any], system: FaultySystem) -> None:
        for _ in range(2):
            self._start(root, done)

    def judge(self, root: Path, done: list[Any], is_cut: bool) -> None:
        self._start(root, done)
        assert (root / "new" / "data" / "format.json").read_bytes() == b'{"format":1}'

    def _start(self, root: Path, done: list[Any]) -> None:
        data = open_data_directory(root / "new" / "data")
        try:
            assert all(data.starts > starts and data.clock == clock for starts, clock in done)
            done.append((data.starts, data.clock))
            os.close(hold_presence(str(data.path)))
            data.say_stopping()
        finally:
            data.close()


class TopicsLife:
    """The catalog is one that was saved, the last or the next one, and all its folders exist."""

    def live(self, root: Path, done: list[Any], system: FaultySystem) -> None:
        file = CatalogFile(root, Files())
        catalog = file.load("id")
        for number, change in enumerate(self._changes(file)):
            catalog = change(catalog)
            file.save(catalog)
            done.append(catalog)
            if number == 1:  # records of a topic in no catalog
                label_partition(root / "topics" / "STRAY" / "0")
                PartitionLog.open(root / "topics" / "STRAY" / "0", unlimited(), NOW_MS).close(clean=False)

    def _changes(self, file: CatalogFile) -> Sequence[Any]:
        def removed(catalog: Catalog) -> Catalog:
            file.folders.remove("ORDERS", catalog.removing["ORDERS"].topic_id, lambda: None)
            return catalog.without_remains("ORDERS")

        return (
            lambda catalog: catalog.with_topic("ORDERS", 1, TopicConfig(), NOW_MS),
            lambda catalog: catalog.with_topic_changed("ORDERS", 2, TopicConfig(retention_ms=-1)),
            lambda catalog: catalog.with_topic("STRAY", 1, TopicConfig(), NOW_MS),
            lambda catalog: catalog.without_topic("ORDERS"),
            removed,
            lambda catalog: catalog.with_topic("ORDERS", 1, TopicConfig(), NOW_MS + 1),
        )

    def judge(self, root: Path, done: list[Any], is_cut: bool) -> None:
        catalog = CatalogFile(root, Files()).load("id")
        if done:
            # Each save is one revision; the last one may have become durable without having returned.
            assert catalog.values() == done[-1].values() or catalog.revision == len(done) + 1
        for topic, entry in catalog.topics.items():
            folder = root / "topics" / topic
            for number in range(entry.partitions):
                label = partition_label_of(folder / str(number), Files())
                assert label is not None
                assert label.topic_id == entry.topic_id
            found = topic_label_of(folder, Files())
            assert found is not None
            assert (found.topic_id, found.partitions >= entry.partitions) == (entry.topic_id, True)
        done.append(catalog)


class LogLife:
    """Synced records are present at their offsets; the log's start and its producers are unchanged."""

    def live(self, root: Path, done: list[Any], system: FaultySystem) -> None:
        log = open_log(root / "log", segment_bytes=300)
        for number in range(6):
            value = b"%d" % number * 20
            append(log, [value], producer_id=5, producer_epoch=0, base_sequence=number)
            log.sync()
            done.append((number, value))
            if number == 3:
                log.checkpoint()
            if number == 4:
                log.delete_before(2)
        log.close()

    def judge(self, root: Path, done: list[Any], is_cut: bool) -> None:
        log = open_log(root / "log", segment_bytes=300)
        found = contents(log)
        assert not log.losses
        assert log.log_start_offset in (0, 2)
        assert found[: len(done) - log.log_start_offset] == done[log.log_start_offset :]
        assert len(found) + log.log_start_offset in (len(done), len(done) + 1)
        producer = log.producers.get(5)
        assert (producer.next_sequence if producer else 0) == log.log_end_offset
        done[:] = done[: log.log_start_offset] + found
        abandon(log)


class TruncationLife:
    """A log that is cut below its checkpoint ends where it did or at the cut."""

    def live(self, root: Path, done: list[Any], system: FaultySystem) -> None:
        log = open_log(root / "log", segment_bytes=150)
        for number in range(6):
            append(log, [b"%d" % number * 20])
            log.sync()
            done.append((number, b"%d" % number * 20))
        log.checkpoint()
        cut = done[:3]
        done.append("cut")
        log.truncate_to(3, NOW_MS)
        done[:] = cut
        log.close()

    def judge(self, root: Path, done: list[Any], is_cut: bool) -> None:
        log = open_log(root / "log", segment_bytes=150)
        found = contents(log)
        assert not log.losses
        assert not log.verify()
        if "cut" in done:
            assert found in (done[:-1], done[:3])
        else:
            assert found[: len(done)] == done
            assert len(found) in (len(done), len(done) + 1)
        done[:] = found
        abandon(log)


class CompactionLife:
    """The newest record of each key is present, and deleted ones stay deleted."""

    def live(self, root: Path, done: list[Any], system: FaultySystem) -> None:
        log = self._open(root)
        for number in range(4):
            value = None if number == 2 else b"%d" % number
            written = append_keyed(log, [(b"k%d" % (number % 2), value)])
            log.sync()
            done.append(written)
        done.append(seal(log))
        compact(log, NOW_MS + 1, budget_bytes=1)
        log.close()

    def judge(self, root: Path, done: list[Any], is_cut: bool) -> None:
        log = self._open(root)
        written = {offset: record for batch in done for offset, record in batch.items()}
        found = held(log)
        for offset, (key, value) in newest(written).items():
            assert found.get(offset) == (key, value) or (value is None and not self._is_there(found, key))
        assert {key for key, _ in written.values()} >= {key for key, _ in found.values()} or len(done) < 5
        assert not log.verify()
        compact(log)
        abandon(log)

    @staticmethod
    def _is_there(found: dict[int, Any], key: bytes | None) -> bool:
        return any(key == other for other, _ in found.values())

    @staticmethod
    def _open(root: Path) -> PartitionLog:
        config = unlimited(segment_bytes=150, is_compacting=True, is_deleting=False, delete_retention_ms=0)
        return PartitionLog.open(root / "log", config, NOW_MS)


class _UnsyncableFiles(Files):
    def sync_data(self, descriptor: int) -> None:
        raise StorageFailed("this device cannot sync")


class DamagedLife:
    """A sync fails, and the tail is damaged: earlier synced records are present, and no visible one is lost later."""

    def live(self, root: Path, done: list[Any], system: FaultySystem) -> None:
        log = open_log(root / "log")
        append(log, [b"synced"])
        log.sync()
        done.append((0, b"synced"))
        log.checkpoint()
        for value in (b"second", b"third", b"fourth"):
            append(log, [value])
        log._active._files = log._files = _UnsyncableFiles()
        try:
            log.sync()
        except StorageFailed:
            abandon(log)
        size_bytes = segment(root / "log").stat().st_size
        system.step("rot")
        flip(segment(root / "log"), size_bytes // 2 + 4)
        log = open_log(root / "log")
        done[:] = contents(log)
        abandon(log)

    def judge(self, root: Path, done: list[Any], is_cut: bool) -> None:
        log = open_log(root / "log")
        found = contents(log)
        assert found[: len(done)] == done
        done[:] = found
        abandon(log)


def made_partition(directory: Path, root: Path) -> None:
    """Create a partition's folder durably, as the controller does before the partition first starts."""
    if partition_label_of(directory, Files()) is None:
        label_partition(directory)
        for folder in (directory.parent, directory.parent.parent, root):
            Files().sync_directory(folder)


class ReadersLife:
    """The partition's process: a group with an acknowledged report is known, at an offset no higher than reported."""

    def live(self, root: Path, done: list[Any], system: FaultySystem) -> None:
        loop = self._start(root)
        for group, offset in (("a", NOT_COMMITTED), ("b", 0), ("a", 0), ("b", NOT_COMMITTED)):
            report = ReportProgress(
                leader_epoch=None,
                topic="ORDERS",
                partition=0,
                topic_id="t1",
                group=group,
                epoch=1,
                offset=offset,
                has_members=True,
            )
            loop.turn(Received(Sender((b"coordinator",), 1), report))
            assert loop.replies.pop()
            done.append((group, offset))

    def judge(self, root: Path, done: list[Any], is_cut: bool) -> None:
        self._start(root)._actor.close()
        data = Files().read_whole(root / "topics" / "ORDERS" / "0" / GROUPS_NAME)
        readers = decode_groups(data, NOW_MS)
        assert (readers is None) == (data is None)
        assert len(readers or ()) >= len({group for group, _ in done})

    @staticmethod
    def _start(root: Path) -> ManualLoop:
        directory = root / "topics" / "ORDERS" / "0"
        made_partition(directory, root)
        config = TopicConfig(retain_until_consumed=True)
        arguments = {
            "topic": "ORDERS",
            "partition": 0,
            "topic_id": "t1",
            "config": config,
            "directory": str(directory),
        }
        context = context_of("partition/ORDERS/0", 1, arguments, str(root))
        loop = ManualLoop(PartitionProcess(context), context, lambda: NOW_MS)
        loop.start()
        return loop


class SnapshotLife:
    """The last snapshot or the one being saved, intact; none after its removal."""

    def __init__(self, name: str) -> None:
        self._name = name

    def live(self, root: Path, done: list[Any], system: FaultySystem) -> None:
        file = SnapshotFile(root / self._name, Files())
        done.append(file.read())
        for number in (1, 2):
            file.save(b"%d" % number * 2_000)
            done.append(b"%d" % number * 2_000)
        file.remove()
        done.append(None)
        file.save(b"3" * 2_000)
        done.append(b"3" * 2_000)

    def judge(self, root: Path, done: list[Any], is_cut: bool) -> None:
        saved = [None, *(b"%d" % number * 2_000 for number in (1, 2)), None, b"3" * 2_000]
        last = max(0, len(done) - 1)
        found = SnapshotFile(root / self._name, Files()).read()
        assert found in saved[last : last + 2]


class SleepLife:
    """An actor that has cleared its mark is never found asleep, since it may have work."""

    address = "billing"

    def live(self, root: Path, done: list[Any], system: FaultySystem) -> None:
        self.begin(root)
        for wake_at_ms in (NOW_MS, None):
            self.mark(root).clear()
            done.append("cleared")
            self.mark(root).set(wake_at_ms)
            done.append(wake_at_ms)

    def judge(self, root: Path, done: list[Any], is_cut: bool) -> None:
        found = self.sleeping(root).get(self.address, "cleared")
        expected = ["cleared", NOW_MS, "cleared", None]
        if len(done) <= len(expected):
            assert found in ["cleared", *expected][len(done) : len(done) + 2]
        else:
            assert found == done[-1]
        self.begin(root)
        self.mark(root).clear()
        done[len(done) :] = ["cleared"] * (len(expected) + 1 - len(done))

    def begin(self, root: Path) -> None:
        """Perform an actor's steps in the folder before it clears its mark."""
        SnapshotFile(root / "groups" / "billing.snapshot", Files()).read()

    def mark(self, root: Path) -> SleepMark:
        return SleepMark(group_file(root, "billing", SUFFIX), Files())

    def sleeping(self, root: Path) -> dict[str, int | None]:
        return sleeping_groups(root, Files())


class PartitionSleepLife(SleepLife):
    address = "partition/ORDERS/0"
    _folder = "topics/ORDERS/0"

    def begin(self, root: Path) -> None:
        made_partition(root / self._folder, root)

    def mark(self, root: Path) -> SleepMark:
        return SleepMark(partition_mark(root / self._folder), Files())

    def sleeping(self, root: Path) -> dict[str, int | None]:
        return sleeping_partitions(root, {self.address: self._folder}, Files())


class FlightLife:
    """After a kill all written entries are present; after a power cut no entry that was never written."""

    def live(self, root: Path, done: list[Any], system: FaultySystem) -> None:
        recorder = FlightRecorder(self._path(root), NOW_MS)
        try:
            for offset in range(40):
                done.append(offset)
                recorder.start("ORDERS", 0, offset, 1)
                system.step("note")
                if offset % 4:
                    recorder.finish()
                else:
                    recorder.settle("failed", "ORDERS", 0, offset, 1)
        finally:
            recorder.close()

    def judge(self, root: Path, done: list[Any], is_cut: bool) -> None:
        recorder = FlightRecorder(self._path(root), NOW_MS)
        recovered = recorder.recovered()
        charged = {prior_attempt.offset for prior_attempt in recovered.prior_attempts}
        found = charged | {each.offset for each in (*recovered.finished, *recovered.suspects)}
        assert found <= set(done)
        assert is_cut or found == set(done)
        recorder.close()

    @staticmethod
    def _path(root: Path) -> Path:
        return flight_path(str(root), "billing", "0")
