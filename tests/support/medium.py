"""Contents of files after a power cut: a model of a disk that keeps only synced data.

Strict POSIX: the contents of a file are durable once it was synced, its name once its directory was. Of later changes,
any may have reached the medium, in or out of order, and of a file's contents any pages. `FaultyFiles` and
`FaultySystem` report each call before it is made; files older than the model count as durable.
"""

import os
import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

PAGE_BYTES = 512
"""Unit of a device write. Smaller than a page of memory, so that small files have several."""


class _File:
    def __init__(self, path: Path) -> None:
        self.path: Path | None = path
        self.synced = self.cached = path.read_bytes() if path.is_file() else b""

    def look(self) -> None:
        """Record the writes since the last look."""
        if self.path is not None and self.path.is_file():
            self.cached = self.path.read_bytes()

    def survivor(self, draw: random.Random) -> bytes:
        """Return the synced contents, the cached contents, or a mixture of both."""
        old, new = self.synced, self.cached
        if old == new:
            return old
        size_bytes = draw.choice([len(old), len(new), draw.randint(*sorted((len(old), len(new))))])
        reached = draw.choice([0, len(new), draw.randint(0, len(new))])
        mixed = bytearray((new[:reached] + old[reached:]).ljust(size_bytes, b"\0")[:size_bytes])
        if draw.random() < 0.3:
            for at in range(0, size_bytes, PAGE_BYTES):
                end = min(at + PAGE_BYTES, size_bytes)
                mixed[at:end] = draw.choice([old, new])[at:end].ljust(end - at, b"\0")
        return bytes(mixed)


class _Directory:
    def __init__(self) -> None:
        self.durable: dict[str, _Node] = {}
        self.names: dict[str, _Node] = {}
        self._changes: list[Mapping[str, _Node | None]] = []
        """Changes since the directory was synced, in order; each is one call, which happens completely or not."""

    def change(self, change: "Mapping[str, _Node | None]") -> None:
        _apply(change, self.names)
        self._changes.append(change)

    def sync(self) -> None:
        self.durable = dict(self.names)
        self._changes.clear()

    def survivors(self, draw: random.Random) -> "dict[str, _Node]":
        """Return the synced names, with some of the later changes applied: a prefix, or any of them."""
        kept = draw.choice([0, len(self._changes), draw.randint(0, len(self._changes))])
        changes = self._changes[:kept]
        if draw.random() < 0.5:
            changes = [change for change in self._changes if draw.random() < 0.5]
        found = dict(self.durable)
        for change in changes:
            _apply(change, found)
        return found


_Node = _File | _Directory


def _apply(change: Mapping[str, _Node | None], names: dict[str, _Node]) -> None:
    for name, node in change.items():
        names.pop(name, None)
        if node is not None:
            names[name] = node


class Medium:
    def __init__(self) -> None:
        self._root = _Directory()
        self._open: dict[int, _File] = {}

    # -- reported before the call

    def create(self, path: Path) -> None:
        """Record a new file, unless it exists."""
        if not path.exists():
            self._directory(path.parent).change({path.name: _File(path)})

    def make_directory(self, path: Path) -> None:
        self._directory(path.parent).change({path.name: _Directory()})

    def remove(self, path: Path) -> None:
        node = self._node(path)
        if node is not None:
            self._look(node, path, is_all=True)
            self._directory(path.parent).change({path.name: None})
            if isinstance(node, _File):
                node.path = None

    def rename(self, source: Path, target: Path) -> None:
        assert source.parent == target.parent, "no rename is atomic across directories here"
        node, replaced = self._node(source), self._node(target)
        assert node is not None
        self._look(node, source, is_all=True)
        if replaced is not None:
            self._look(replaced, target, is_all=True)
        self._directory(source.parent).change({source.name: None, target.name: node})
        if isinstance(replaced, _File):
            replaced.path = None
        if isinstance(node, _File):
            node.path = target

    def sync_directory(self, path: Path) -> None:
        self._directory(path).sync()

    def sync(self, descriptor: int) -> None:
        file = self._open[descriptor]
        file.look()
        file.synced = file.cached

    # -- reported after the call

    def opened(self, descriptor: int, path: Path) -> None:
        file = self._node(path)
        assert isinstance(file, _File), path
        self._open[descriptor] = file

    # -- power cut

    def lose(self, draw: random.Random) -> None:
        """Reduce the real disk to the contents after a power cut. These are then durable."""
        self._look(self._root, Path("/"))
        self._settle(self._root, Path("/"), draw)
        self._root = _Directory()
        self._open.clear()

    def _settle(self, directory: _Directory, path: Path, draw: random.Random) -> None:
        survivors = directory.survivors(draw)
        for name, node in directory.names.items():
            if survivors.get(name) is not node:
                _delete(path / name)
        for name, node in survivors.items():
            self._put(node, path / name, draw)

    def _put(self, node: _Node, path: Path, draw: random.Random) -> None:
        if isinstance(node, _Directory):
            path.mkdir(exist_ok=True)
            self._settle(node, path, draw)
        elif (survivor := node.survivor(draw)) != node.cached or not path.exists():
            path.write_bytes(survivor)

    # -- current contents

    def _directory(self, path: Path) -> _Directory:
        directory = self._root
        for at, name in _steps(path):
            found = self._child(directory, at, name)
            assert isinstance(found, _Directory), at / name
            directory = found
        return directory

    def _node(self, path: Path) -> _Node | None:
        return self._child(self._directory(path.parent), path.parent, path.name)

    def _child(self, directory: _Directory, at: Path, name: str) -> _Node | None:
        """Return a child. A file older than the model is durable; one removed without a report is gone."""
        path = at / name
        if not path.exists():
            if directory.names.pop(name, None) is not None:
                directory.durable.pop(name, None)
        elif name not in directory.names:
            node = _Directory() if path.is_dir() else _File(path)
            directory.names[name] = directory.durable[name] = node
        return directory.names.get(name)

    def _look(self, node: _Node, path: Path, is_all: bool = False) -> None:
        """Record the contents below a node: all of it before its removal, else the reported files."""
        if isinstance(node, _File):
            node.path = path
            node.look()
            return
        for name in sorted({*node.names, *(os.listdir(path) if is_all else ())}):
            child = self._child(node, path, name)
            if child is not None:
                self._look(child, path / name, is_all)


def _steps(path: Path) -> Iterator[tuple[Path, str]]:
    at = Path("/")
    for name in path.parts[1:]:
        yield at, name
        at /= name


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
