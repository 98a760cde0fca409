"""The files `<offset, 20 digits>.snapshot`: the state of producers before that offset, and recent dedup ids.

Owns their names and number; their contents are `producers.py`'s. Written at each roll and when replaying the log
since the last one would take longer than reading a new one. The last two are kept: if the newer is damaged, the older
serves and more is replayed.
"""

import logging
from pathlib import Path

from .files import Files
from .producers import ProducerStates

SNAPSHOT_SUFFIX = ".snapshot"
SNAPSHOTS_KEPT = 2

_log = logging.getLogger(__name__)


def snapshot_offsets(directory: Path, files: Files) -> list[int]:
    """Return the offsets of the existing snapshots, rising."""
    names = (Path(name) for name in files.names(directory))
    return sorted(int(name.stem) for name in names if name.suffix == SNAPSHOT_SUFFIX and name.stem.isdigit())


def snapshot_path(directory: Path, offset: int) -> Path:
    return directory / f"{offset:020d}{SNAPSHOT_SUFFIX}"


def write_snapshot(directory: Path, files: Files, producers: ProducerStates, offset: int) -> int:
    """Write a snapshot and delete those it outdates; return its size in bytes. The caller syncs the directory."""
    data = producers.encode(offset)
    files.write_aside(snapshot_path(directory, offset), data)
    for outdated in snapshot_offsets(directory, files)[:-SNAPSHOTS_KEPT]:
        files.unlink(snapshot_path(directory, outdated))
    return len(data)


def load_newest(directory: Path, files: Files, producers: ProducerStates, log_end_offset: int) -> int | None:
    """Fill `producers` from the newest snapshot that verifies; return its offset, or None when there is none.

    Snapshots beyond the end of the log are deleted: they include batches that were lost.
    """
    for offset in reversed(snapshot_offsets(directory, files)):
        path = snapshot_path(directory, offset)
        if offset > log_end_offset:
            files.unlink(path)
        elif producers.load(files.read_whole(path), offset):
            return offset
        else:
            _log.warning("%s is damaged; the snapshot before it is used, or the whole log read", path)
    return None
