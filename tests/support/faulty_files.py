"""An operating system that fails on demand: dies before a call, loses what was not synced, fills up, cannot sync."""

import os
import random
from collections.abc import Sequence
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
        self._synced: dict[Path, int] = {}

    def __getattribute__(self, name: str) -> Any:
        if name in _CHANGES:
            calls = object.__getattribute__(self, "calls")
            die_before = object.__getattribute__(self, "die_before")
            if len(calls) == die_before:
                raise Died(f"before call {die_before}, {name}")
            calls.append(name)
        return object.__getattribute__(self, name)

    def open_append(self, path: Path) -> int:
        existing = path.stat().st_size if path.exists() else 0
        descriptor = super().open_append(path)
        self._paths[descriptor] = path
        self._synced.setdefault(path, existing)
        return descriptor

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
        self._synced[path] = min(self._synced.get(path, 0), size_bytes)

    def unlink(self, path: Path) -> None:
        if self.space_bytes is not None and path.exists():
            self.space_bytes += path.stat().st_size
        super().unlink(path)
        self._synced.pop(path, None)

    def rename(self, source: Path, target: Path) -> None:
        if self.space_bytes is not None and target.exists():
            self.space_bytes += target.stat().st_size
        super().rename(source, target)
        self._synced[target] = self._synced.pop(source)

    def sync_data(self, descriptor: int) -> None:
        if self.fail_syncs:
            raise StorageFailed("the faulty device cannot sync")
        path = self._paths[descriptor]
        self._synced[path] = os.fstat(descriptor).st_size

    def lose_unsynced(self, draw: random.Random) -> None:
        """Cut every file somewhere between what was synced and its end."""
        for path, synced in self._synced.items():
            if path.exists() and path.stat().st_size > synced:
                os.truncate(path, draw.randint(synced, path.stat().st_size))
