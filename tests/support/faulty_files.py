"""An operating system that fails on demand: dies before a call, loses what was not synced, fills up, cannot sync."""

import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
    """Real files, and what is known to be on the medium for each; `lose_unsynced` takes the rest, as a power cut does."""

    def __init__(self, die_before: int = -1, space_bytes: int | None = None) -> None:
        super().__init__()
        self.die_before = die_before
        self.space_bytes = space_bytes
        self.fail_syncs = False
        self.calls: list[str] = []
        self._paths: dict[int, Path] = {}
        self._open: set[int] = set()
        self._synced: dict[Path, bytes] = {}
        self._unsynced_names: dict[Path, list[Callable[[], None]]] = {}
        """By directory: how to undo each change of its entries since it was synced, in order."""

    def __getattribute__(self, name: str) -> Any:
        if name in _CHANGES:
            calls = object.__getattribute__(self, "calls")
            die_before = object.__getattribute__(self, "die_before")
            if len(calls) == die_before:
                raise Died(f"before call {die_before}, {name}")
            calls.append(name)
        return object.__getattribute__(self, name)

    def open_append(self, path: Path) -> int:
        return self._opened(path, super().open_append)

    def open_write(self, path: Path) -> int:
        return self._opened(path, super().open_write)

    def open_read(self, path: Path) -> int:
        descriptor = super().open_read(path)
        self._open.add(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        super().close(descriptor)
        self._open.discard(descriptor)

    def release(self) -> None:
        """Close what a process that died had open."""
        while self._open:
            os.close(self._open.pop())

    def _opened(self, path: Path, call: Callable[[Path], int]) -> int:
        existing = path.read_bytes() if path.exists() else b""
        if not path.exists():
            self._changed(path.parent, lambda: self._take_away(path))
        descriptor = call(path)
        self._paths[descriptor] = path
        self._open.add(descriptor)
        self._synced.setdefault(path, existing)
        return descriptor

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
        self._synced[path] = self._synced.get(path, b"")[:size_bytes]

    def unlink(self, path: Path) -> None:
        if self.space_bytes is not None and path.exists():
            self.space_bytes += path.stat().st_size
        if path.exists():
            content = self._synced.get(path, path.read_bytes())
            self._changed(path.parent, lambda: self._put_back(path, content))
        super().unlink(path)
        self._synced.pop(path, None)

    def rename(self, source: Path, target: Path) -> None:
        if self.space_bytes is not None and target.exists():
            self.space_bytes += target.stat().st_size
        content = self._synced.get(source, source.read_bytes())
        replaced = self._synced.get(target, target.read_bytes()) if target.exists() else None
        super().rename(source, target)
        self._synced.pop(source, None)
        self._synced[target] = content

        def undo() -> None:
            self._put_back(source, self._synced.get(target, content))
            if replaced is None:
                self._take_away(target)
            else:
                self._put_back(target, replaced)

        self._changed(target.parent, undo)

    def sync_data(self, descriptor: int) -> None:
        if self.fail_syncs:
            raise StorageFailed("the faulty device cannot sync")
        path = self._paths[descriptor]
        self._synced[path] = path.read_bytes()

    def make_directory(self, path: Path) -> None:
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        super().make_directory(path)
        for folder in reversed(new):
            self._changed(folder.parent, lambda folder=folder: shutil.rmtree(folder, ignore_errors=True))  # type: ignore[misc]

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self._unsynced_names.pop(path, None)

    def _changed(self, directory: Path, undo: Callable[[], None]) -> None:
        self._unsynced_names.setdefault(directory, []).append(undo)

    def _put_back(self, path: Path, content: bytes) -> None:
        if path.parent.is_dir():
            path.write_bytes(content)
            self._synced[path] = content

    def _take_away(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._synced.pop(path, None)

    def lose_names(self, draw: random.Random) -> None:
        """Leave every directory as it was synced, with the first of the changes that came after, or none of them."""
        for undos in self._unsynced_names.values():
            kept = draw.choice([0, draw.randint(0, len(undos))])
            for undo in reversed(undos[kept:]):
                undo()
        self._unsynced_names.clear()

    def lose_unsynced(self, draw: random.Random) -> None:
        """Leave every file as it was synced, with a part of what came after: all bytes up to some point.

        Names are lost first: what a directory was not synced for is not there, or is there again.
        """
        self.lose_names(draw)
        for path, synced in self._synced.items():
            if path.exists() and (now := path.read_bytes()) != synced:
                reached = draw.randint(0, len(now))
                size_bytes = draw.randint(len(synced), max(len(synced), len(now)))
                path.write_bytes((now[:reached] + synced[reached:]).ljust(size_bytes, b"\0")[:size_bytes])
