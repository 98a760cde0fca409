"""Storing the image of a data directory as a backup: a folder of its own, with only new bytes. Impure.

    unchanged since the last backup (size and time of change)   a hard link to the file there
    an unchanging file, on the same file system                 a hard link to the broker's
    otherwise                                                   a copy

A backup becomes visible by one rename, when all of it and its list are durable. Each is whole: deleting another one
takes nothing from it. Called by `planaria backup`, with the broker running again.
"""

import os
import shutil
from pathlib import Path

from ..log.files import Files
from ..log.segment import INDEX_SUFFIXES, LOG_SUFFIX
from .image import LIVE_SUFFIX, STAGING_PREFIX, TAIL_SUFFIX, TAILS_NAME, Tail, copy_range, read_tails
from .manifest import (
    ID_DIGITS,
    MANIFEST_NAME,
    PARTIAL_SUFFIX,
    Manifest,
    StoredFile,
    backup_ids,
    encode_manifest,
    read_manifest,
)


class _Store:
    def __init__(
        self, staging: Path, target: Path, previous: dict[str, StoredFile], before: Path | None
    ) -> None:
        self._staging = staging
        self._target = target
        self._previous = previous
        self._before = before
        self._files = Files()
        self.may_link = True
        self.stored: list[StoredFile] = []
        self.copied_bytes = 0

    def store_all(self) -> None:
        tails = {tail.path: tail for tail in read_tails(self._staging)}
        for folder, folders, names in os.walk(self._staging):
            folders.sort()
            own = Path(folder).relative_to(self._staging)
            self._files.make_directory(self._target / own)
            for name in sorted(names):
                if name == TAILS_NAME or name.endswith((LIVE_SUFFIX, TAIL_SUFFIX)):
                    continue
                self._store(str(own / name), Path(folder) / name)
        for tail in tails.values():
            self._store_tail(tail)
        for folder, _, _ in os.walk(self._target, topdown=False):
            self._files.sync_directory(Path(folder))

    def _store(self, path: str, source: Path) -> None:
        found = os.stat(source)
        entry = StoredFile(path, found.st_size, found.st_mtime_ns)
        if self._is_linked(entry):
            return
        is_unchanging = source.stem.isdigit() and source.suffix in (LOG_SUFFIX, *INDEX_SUFFIXES)
        if not (self.may_link and is_unchanging and _linked(source, self._target / path)):
            self._copy(path, [(source, 0, found.st_size)])
        self.stored.append(entry)

    def _store_tail(self, tail: Tail) -> None:
        entry = StoredFile(tail.path, tail.size_bytes, tail.modified_ns)
        if self._is_linked(entry):
            return
        live = self._staging / f"{tail.path}{LIVE_SUFFIX}"
        end = self._staging / f"{tail.path}{TAIL_SUFFIX}"
        self._copy(tail.path, [(live, 0, tail.position), (end, 0, tail.size_bytes - tail.position)])
        self.stored.append(entry)

    def _is_linked(self, entry: StoredFile) -> bool:
        """Link the file of the last backup, if it has not changed since."""
        if self._before is None or self._previous.get(entry.path) != entry:
            return False
        if not _linked(self._before / entry.path, self._target / entry.path):
            return False
        self.stored.append(entry)
        return True

    def _copy(self, path: str, parts: list[tuple[Path, int, int]]) -> None:
        writing = self._files.open_append(self._target / path)
        try:
            os.fchmod(writing, os.stat(parts[0][0]).st_mode & 0o777)
            for source, start, end in parts:
                reading = self._files.open_read(source)
                try:
                    copy_range(self._files, reading, writing, start, end)
                finally:
                    self._files.close(reading)
                self.copied_bytes += end - start
            self._files.sync_data(writing)
        finally:
            self._files.close(writing)


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:
        return False  # another file system, or one without links
    return True


def store_image(
    staging: Path, backup: Path, source: str, taken_ms: int, *, may_link: bool, keep: int
) -> dict[str, int]:
    """Store the image as the newest of `keep` backups in the folder; return figures for the operator."""
    files = Files()
    files.make_directory(backup)
    os.chmod(backup, 0o700)  # it has the broker's keys
    for name in files.names(backup):
        if name.endswith(PARTIAL_SUFFIX):
            shutil.rmtree(backup / name)
    known = backup_ids(backup, files)
    taken_ms = max(taken_ms, int(known[-1]) + 1 if known else 0)
    identity = f"{taken_ms:0{ID_DIGITS}d}"
    before = backup / known[-1] if known else None
    previous = {entry.path: entry for entry in read_manifest(backup, known[-1], files).files} if known else {}
    partial = backup / f"{identity}{PARTIAL_SUFFIX}"
    store = _Store(staging, partial, previous, before)
    store.may_link = may_link
    store.store_all()
    manifest = Manifest(id=identity, taken_ms=taken_ms, source=source, files=store.stored)
    files.replace(partial / MANIFEST_NAME, encode_manifest(manifest))
    files.rename(partial, backup / identity)
    files.sync_directory(backup)
    files.sync_directory(backup.parent)
    for name in [*known, identity][:-keep]:
        files.rename(backup / name, backup / f"{name}{PARTIAL_SUFFIX}")
        shutil.rmtree(backup / f"{name}{PARTIAL_SUFFIX}")
    total = sum(entry.size_bytes for entry in store.stored)
    return {
        "id": int(identity),
        "files": len(store.stored),
        "bytes": total,
        "copied_bytes": store.copied_bytes,
    }


def remove_staging(data: Path) -> None:
    """Delete the images of this data directory, finished with or left by a killed command."""
    for path in data.glob(f"{STAGING_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)
