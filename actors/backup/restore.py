"""Restoring a backup into an empty data directory. Impure.

The files are copied, never linked: the broker will change them, and a backup must stay. Two things make the restored
broker a branch of its own, whose records are never taken for those of the broker that went on:

    leader epochs   the checkpoint of each partition is raised to the minutes since 2020-01-01, above every epoch that
                    starts of the broker reach, so a reader that has read records which are not in the backup finds
                    that out (LOG_TRUNCATED)
    producer ids    follow the wall clock (transport/producer_ids.py): the first era of the restored broker is new

A directory that is being restored contains the file `.restoring~` until all of it is durable. A broker does not start
on it (supervisor/data_directory.py), and another restore begins it again. Called by `planaria restore`.
"""

import os
import shutil
from pathlib import Path

from msgspec import structs

from ..log.checkpoint import CHECKPOINT_NAME, decode_checkpoint, encode_checkpoint
from ..log.files import Files
from .image import copy_range
from .manifest import BackupFailed, Manifest, StoredFile, backup_ids, read_manifest

RESTORING_NAME = ".restoring~"
_FIRST_MINUTE = 1_577_836_800 // 60
"""2020-01-01 00:00 UTC."""
_OWN_NAMES = {"supervisor.lock", "lost+found"}


def restore(backup: Path, data: Path, now_ms: int, identity: str | None = None) -> Manifest:
    """Restore a backup, the newest if none is named. Raises BackupFailed."""
    files = Files()
    ids = backup_ids(backup, files)
    if not ids or identity not in (None, *ids):
        raise BackupFailed(f"there is no {'finished backup' if identity is None else identity} in {backup}")
    manifest = read_manifest(backup, identity or ids[-1], files)
    names = set(files.names(data)) - _OWN_NAMES if data.exists() else set()
    if names and RESTORING_NAME not in names:
        raise BackupFailed(f"{data} is not empty: it has {min(names)}")
    files.make_directory(data)
    _begin(data, names, files)
    for entry in manifest.files:
        _restore(backup / manifest.id, data, entry, now_ms, files)
    for folder, _, _ in os.walk(data, topdown=False):
        files.sync_directory(Path(folder))
    files.sync_directory(data.parent)
    files.unlink(data / RESTORING_NAME)
    files.sync_directory(data)
    return manifest


def _begin(data: Path, names: set[str], files: Files) -> None:
    """Mark the directory, durably, and delete the files of a restore that was cut off."""
    files.close(files.open_append(data / RESTORING_NAME))
    files.sync_directory(data)
    for name in names - {RESTORING_NAME}:
        if (data / name).is_dir():
            shutil.rmtree(data / name)
        else:
            files.unlink(data / name)


def _restore(source: Path, target: Path, entry: StoredFile, now_ms: int, files: Files) -> None:
    path = target / entry.path
    files.make_directory(path.parent)
    if os.stat(source / entry.path).st_size != entry.size_bytes:
        raise BackupFailed(f"{source / entry.path} does not have its {entry.size_bytes} bytes")
    if path.name == CHECKPOINT_NAME:
        files.replace(path, raised(files.read_whole(source / entry.path) or b"", now_ms))
        return
    reading, writing = files.open_read(source / entry.path), files.open_append(path)
    try:
        os.fchmod(writing, os.stat(source / entry.path).st_mode & 0o777)
        copy_range(files, reading, writing, 0, entry.size_bytes)
        files.sync_data(writing)
    finally:
        files.close(reading)
        files.close(writing)


def raised(data: bytes, now_ms: int) -> bytes:
    """Return the checkpoint with a leader epoch that no start of the original broker reaches."""
    checkpoint = decode_checkpoint(data)
    if checkpoint is None:
        return data
    epoch = max(checkpoint.leader_epoch + 1, now_ms // 60_000 - _FIRST_MINUTE)
    return encode_checkpoint(structs.replace(checkpoint, leader_epoch=epoch))
