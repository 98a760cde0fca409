"""The operating system for everything below one folder: dies before the n-th call, loses unsynced data.

For code that makes its system calls directly. Within the block the functions of `os` that change files, and `io.open`,
are replaced, and nothing else, so the tested code runs unchanged. Syncs reach only the model.
"""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medium import Medium


class Died(Exception):
    """The process was killed here."""


class FaultySystem:
    """A context manager. `calls` are those made, `touched` the names of all files that were created or renamed."""

    def __init__(self, root: Path, medium: Medium, die_before: int = -1) -> None:
        self.calls: list[str] = []
        self.touched: set[str] = set()
        self.medium = medium
        self._root = root
        self._die_before = die_before
        self._descriptors: dict[int, Path] = {}
        self._streams: set[int] = set()
        """Descriptors that a Python stream closes."""
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> "FaultySystem":
        for module, name, replacement in (
            (os, "open", self._opened(os.open)),
            (os, "close", self._closed(os.close)),
            (os, "mkdir", self._named("mkdir", os.mkdir, self.medium.make_directory)),
            (os, "rmdir", self._named("rmdir", os.rmdir, self.medium.remove)),
            (os, "unlink", self._named("unlink", os.unlink, self.medium.remove)),
            (os, "remove", self._named("unlink", os.remove, self.medium.remove)),
            (os, "rename", self._renamed(os.rename)),
            (os, "replace", self._renamed(os.replace)),
            (os, "truncate", self._named("truncate", os.truncate, lambda _: None)),
            *((os, name, self._written(name, getattr(os, name))) for name in ("write", "writev", "pwrite")),
            (os, "ftruncate", self._written("truncate", os.ftruncate)),
            (os, "fsync", self._synced),
            (os, "fdatasync", self._synced),
            (io, "open", self._streamed(io.open)),
        ):
            self._patch.setattr(module, name, replacement)
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
        for descriptor in self._descriptors.keys() - self._streams:
            os.close(descriptor)
        self._descriptors.clear()

    def step(self, call: str) -> None:
        """Count a call; the tested code calls it directly where it changes a file without a system call."""
        if len(self.calls) == self._die_before:
            raise Died(f"before call {self._die_before}, {call}")
        self.calls.append(call)

    def _is_inside(self, path: object) -> bool:
        return isinstance(path, str | Path) and Path(path).is_relative_to(self._root)

    def _opened(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            if not self._is_inside(path) or options.get("dir_fd") is not None:
                descriptor = real(path, flags, *arguments, **options)
                self._descriptors.pop(descriptor, None)
                return descriptor
            path = Path(path)
            if flags & os.O_CREAT and not path.exists():
                self.step("create")
                self.touched.add(path.name)
                self.medium.create(path)
            elif flags & os.O_TRUNC:
                self.step("truncate")
                self.medium.create(path)
            descriptor = real(path, flags & ~os.O_TRUNC, *arguments, **options)
            if not path.is_dir():
                self.medium.opened(descriptor, path)
                if flags & os.O_TRUNC:
                    os.truncate(descriptor, 0)
            self._descriptors[descriptor] = path
            self._streams.discard(descriptor)
            return descriptor

        return call

    def _closed(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(descriptor: int) -> None:
            self._descriptors.pop(descriptor, None)
            real(descriptor)

        return call

    def _named(self, name: str, real: Callable[..., Any], tell: Callable[[Path], None]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            is_named = self._is_inside(path) and options.get("dir_fd") is None
            if is_named and Path(path).parent.is_dir() and (name == "mkdir") != os.path.lexists(path):
                self.step(name)
                tell(Path(path))
            return real(path, *arguments, **options)

        return call

    def _renamed(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(source: Any, target: Any, **options: Any) -> None:
            if self._is_inside(source):
                self.step("rename")
                self.touched.add(Path(target).name)
                self.medium.rename(Path(source), Path(target))
            real(source, target, **options)

        return call

    def _written(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: int, *arguments: Any) -> Any:
            if descriptor in self._descriptors:
                self.step(name)
            return real(descriptor, *arguments)

        return call

    def _synced(self, descriptor: int) -> None:
        path = self._descriptors.get(descriptor)
        if path is None:
            return
        self.step("sync")
        if path.is_dir():
            self.medium.sync_directory(path)
        else:
            self.medium.sync(descriptor)

    def _streamed(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: str, flags: int) -> int:
            descriptor = os.open(path, flags, 0o666)
            self._streams.add(descriptor)
            return descriptor

        def call(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if self._is_inside(file) and set(mode) & set("wax+"):
                options["opener"] = opened
            return real(file, mode, *arguments, **options)

        return call
