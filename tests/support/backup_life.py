"""A data directory that is backed up twice, for the tests that end its processes anywhere."""

import itertools
import shutil
from pathlib import Path
from typing import Any

from faulty_system import FaultySystem
from labelled_folders import label_partition
from log_batches import NOW_MS, abandon, append, contents, open_log
from planaria.actors.backup.image import STAGING_PREFIX, take_image
from planaria.actors.backup.manifest import backup_ids
from planaria.actors.backup.restore import restore
from planaria.actors.backup.store import remove_staging, store_image
from planaria.actors.backup.verify import verify
from planaria.actors.log.files import Files

SEGMENT_BYTES = 300
PARTITION = "topics/ORDERS/0"


def store_backup(data: Path, backup: Path, *, may_link: bool = False, keep: int = 7) -> dict[str, int]:
    """Back up a data directory that nothing changes meanwhile."""
    files = Files()
    remove_staging(data)
    take_image(data, data / f"{STAGING_PREFIX}1", files)
    found = store_image(data / f"{STAGING_PREFIX}1", backup, str(data), NOW_MS, may_link=may_link, keep=keep)
    remove_staging(data)
    return found


class BackupLife:
    """Every backup that was made is whole and can be restored, whatever became of a later one."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def live(self, root: Path, done: list[Any], system: FaultySystem) -> None:
        data = root / "data"
        label_partition(data / PARTITION)
        log = open_log(data / PARTITION, segment_bytes=SEGMENT_BYTES)
        for number in range(2):
            for _ in range(3):
                append(log, [b"%d" % number * 40])
            log.sync()
            store_backup(data, root / "backup")
            done.append(contents(log))
        log.close()

    def judge(self, root: Path, done: list[Any], is_cut: bool) -> None:
        backup, files = root / "backup", Files()
        ids = backup_ids(backup, files)
        assert len(ids) in (len(done), len(done) + 1)
        assert not [
            found for found in verify(backup).findings if "segment" in found.text or ".log" in found.path
        ]
        if done:
            identity, expected = ids[len(done) - 1], done[-1]
            target = root / f"restored-{next(self._numbers)}"
            restore(backup, target, NOW_MS, identity)
            log = open_log(target / PARTITION, segment_bytes=SEGMENT_BYTES)
            assert not log.losses
            assert contents(log) == expected
            abandon(log)
            shutil.rmtree(target)
        while len(done) < len(ids):
            done.append([(number, b"%d" % (number // 3) * 40) for number in range(3 * (len(done) + 1))])
