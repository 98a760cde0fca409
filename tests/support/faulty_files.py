"""System calls of a log that fail on demand: die before a call, lose unsynced data, fill up, cannot sync."""

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medium import Medium
from planaria.actors.log.errors import StorageFailed, StorageFull
from planaria.actors.log.files import Buffer, Files

_CHANGES = frozenset(
    {
        "append",
        "close",
        "make_directory",
        "open_append",
        "open_write",
        "write_at",
        "rename",
        "rewrite",
        "sync_data",
        "sync_directory",
        "truncate",
        "unlink",
    }
)


class Died(Exception):
    """The process was killed here."""


class FaultyFiles(Files):
    """Real files with a record of their durable contents; `lose_unsynced` removes the rest, as a power cut does."""

    def __init__(self, die_before: int = -1, space_bytes: int | None = None) -> None:
        super().__init__()
        self.die_before = die_before
        self.space_bytes = space_bytes
        self.fail_syncs = False
        self.calls: list[str] = []
        self._open: set[int] = set()
        self._medium = Medium()

    def __getattribute__(self, name: str) -> Any:
        if name in _CHANGES:
            calls = object.__getattribute__(self, "calls")
            die_before = object.__getattribute__(self, "die_before")
            if len(calls) == die_before:
                raise Died(f"before call {die_before}, {name}")
            calls.append(name)
        return object.__getattribute__(self, name)

    def open_append(self, path: Path) -> int:
        self._medium.create(path)
        return self._opened(super().open_append(path), path)

    def open_write(self, path: Path) -> int:
        self._medium.create(path)
        return self._opened(super().open_write(path), path)

    def open_read(self, path: Path) -> int:
        return self._opened(super().open_read(path), path)

    def _opened(self, descriptor: int, path: Path) -> int:
        self._medium.opened(descriptor, path)
        self._open.add(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        super().close(descriptor)
        self._open.discard(descriptor)

    def release(self) -> None:
        """Close the open files of a process that died."""
        while self._open:
            os.close(self._open.pop())

    def write_at(self, descriptor: int, buffers: Sequence[Buffer], total_bytes: int, position: int) -> None:
        if self.space_bytes is None:
            super().write_at(descriptor, buffers, total_bytes, position)
            return
        inside = max(0, min(total_bytes, os.fstat(descriptor).st_size - position))
        fits = min(self.space_bytes, total_bytes - inside)
        self.space_bytes -= fits
        os.pwrite(descriptor, b"".join(buffers)[: inside + fits], position)
        if inside + fits < total_bytes:
            raise StorageFull("no space left on the faulty device")

    def append(self, descriptor: int, buffers: Sequence[Buffer], total_bytes: int) -> None:
        if self.space_bytes is None:
            super().append(descriptor, buffers, total_bytes)
            return
        fits = min(self.space_bytes, total_bytes)
        self.space_bytes -= fits
        os.write(descriptor, b"".join(buffers)[:fits])
        if fits < total_bytes:
            raise StorageFull("no space left on the faulty device")

    def truncate(self, path: Path, size_bytes: int) -> None:
        if self.space_bytes is not None:
            self.space_bytes += path.stat().st_size - size_bytes
        super().truncate(path, size_bytes)

    def unlink(self, path: Path) -> None:
        if self.space_bytes is not None and path.exists():
            self.space_bytes += path.stat().st_size
        self._medium.remove(path)
        super().unlink(path)

    def rename(self, source: Path, target: Path) -> None:
        if self.space_bytes is not None and target.exists():
            self.space_bytes += target.stat().st_size
        self._medium.rename(source, target)
        super().rename(source, target)

    def sync_data(self, descriptor: int) -> None:
        if self.fail_syncs:
            raise StorageFailed("the faulty device cannot sync")
        self._medium.sync(descriptor)

    def make_directory(self, path: Path) -> None:
        for folder in reversed([folder for folder in (path, *path.parents) if not folder.exists()]):
            self._medium.make_directory(folder)
            super().make_directory(folder)

    def sync_directory(self, path: Path) -> None:
        self._medium.sync_directory(path)

    def lose_unsynced(self, draw: random.Random) -> None:
        """Simulate a power cut."""
        self._medium.lose(draw)
