"""The file system calls of a log: every call a log makes on a file goes through `Files`.

Owns the translation of system errors (no space: `StorageFull`; anything else: `StorageFailed`), the check of every
write's count, and the only correct way to replace a file. Independent of batches and segments. Tests inject a
subclass that writes short, fails to sync, or dies before the n-th call.
"""

import errno
import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import StorageFailed, StorageFull, Unreadable

TEMPORARY_SUFFIX = ".tmp"
BUFFERS_PER_WRITE = 1024
"""IOV_MAX on Linux and macOS: the maximum number of buffers in one writev."""

_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

Buffer = bytes | bytearray | memoryview


@contextmanager
def _translated(action: str, subject: object, *, is_final: bool = False) -> Iterator[None]:
    """Translate an OSError.

    With `is_final`, even a full disk is a failure: data that a sync or a close did not write is lost, not refused.
    """
    try:
        yield
    except OSError as error:
        raise _translation(error, action, subject, is_final) from error


def _translation(error: OSError, action: str, subject: object, is_final: bool) -> StorageFull | StorageFailed:
    named = _path_of(subject) if isinstance(subject, int) else subject
    message = f"{action} {named}: {error.strerror}"
    return StorageFull(message) if error.errno in _FULL_ERRORS and not is_final else StorageFailed(message)


def _path_of(descriptor: int) -> str:
    """Return the path of an open file, for a message."""
    try:
        if sys.platform == "darwin":
            return os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return f"descriptor {descriptor}"


def _sync_data_call() -> Callable[[int], object]:
    if sys.platform == "darwin":
        # On macOS fsync stops at the drive's cache; only this reaches the medium.
        return lambda descriptor: fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    return os.fdatasync


class Files:
    """The real operating system. Methods raise StorageFull or StorageFailed, never OSError."""

    def __init__(self) -> None:
        self._sync_data = _sync_data_call()

    def make_directory(self, path: Path) -> None:
        with _translated("cannot create", path):
            path.mkdir(parents=True, exist_ok=True)

    def exists(self, path: Path) -> bool:
        return path.exists()

    def names(self, directory: Path) -> list[str]:
        """Return the names in a directory, sorted, so that no result depends on the file system's order."""
        with _translated("cannot list", directory):
            return sorted(os.listdir(directory))

    def size_bytes(self, path: Path) -> int:
        with _translated("cannot stat", path):
            return os.stat(path).st_size

    def modified_ms(self, path: Path) -> int:
        """Return the time of the last write to the file, by the machine's wall clock."""
        with _translated("cannot stat", path):
            return os.stat(path).st_mtime_ns // 1_000_000

    def free_bytes(self, directory: Path) -> int:
        """Return the space that an unprivileged process may still use on the file system of `directory`."""
        with _translated("cannot measure the disk of", directory):
            usage = os.statvfs(directory)
        return usage.f_bavail * usage.f_frsize

    def open_append(self, path: Path) -> int:
        """Open for appending and reading; creates the file. Sync the directory before relying on a new one."""
        with _translated("cannot open", path):
            return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def open_write(self, path: Path) -> int:
        """Open for `write_at` and reading; creates the file. Sync the directory before relying on a new one."""
        with _translated("cannot open", path):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def open_read(self, path: Path) -> int:
        with _translated("cannot open", path):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self, descriptor: int) -> None:
        with _translated("cannot close", descriptor, is_final=True):
            os.close(descriptor)

    def append(self, descriptor: int, buffers: Sequence[Buffer], total_bytes: int) -> None:
        """Append all `buffers`, `total_bytes` together.

        A write may stop short without an error: on failure an unknown prefix has been written, and the caller cuts it
        off.
        """
        # `_translated` is inlined here and in `sync_data`: both run in every turn.
        try:
            first = os.writev(descriptor, buffers[:BUFFERS_PER_WRITE])
            if first < total_bytes:
                self._append_rest(descriptor, buffers, first, total_bytes)
        except OSError as error:
            raise _translation(error, "cannot append to", descriptor, is_final=False) from error

    def write_at(self, descriptor: int, buffers: Sequence[Buffer], total_bytes: int, position: int) -> None:
        """Write all `buffers` at `position`, which is the end of the data. Fails as `append` does."""
        try:
            os.lseek(descriptor, position, os.SEEK_SET)
            first = os.writev(descriptor, buffers[:BUFFERS_PER_WRITE])
            if first < total_bytes:
                self._append_rest(descriptor, buffers, first, total_bytes)
        except OSError as error:
            raise _translation(error, "cannot write to", descriptor, is_final=False) from error

    def _append_rest(
        self, descriptor: int, buffers: Sequence[Buffer], written: int, total_bytes: int
    ) -> None:
        remaining = [memoryview(buffer).cast("B") for buffer in buffers]
        skip = written
        start = 0
        while written < total_bytes:
            while skip >= len(remaining[start]):
                skip -= len(remaining[start])
                start += 1
            remaining[start] = remaining[start][skip:]
            count = os.writev(descriptor, remaining[start : start + BUFFERS_PER_WRITE])
            if count == 0:
                raise OSError(errno.ENOSPC, "the write made no progress")
            written += count
            skip = count

    def read(self, descriptor: int, size_bytes: int, position: int) -> bytes:
        """Return up to `size_bytes` from `position`; fewer only at the end of the file. Raises Unreadable."""
        with _translated("cannot read", descriptor):
            data = self._pread(descriptor, size_bytes, position)
            while len(data) < size_bytes:
                more = self._pread(descriptor, size_bytes - len(data), position + len(data))
                if not more:
                    break
                data += more
            return data

    def _pread(self, descriptor: int, size_bytes: int, position: int) -> bytes:
        try:
            return os.pread(descriptor, size_bytes, position)
        except OSError as error:
            if error.errno == errno.EIO:
                message = f"the device cannot read {size_bytes} bytes at {position}: {error.strerror}"
                raise Unreadable(message) from error
            raise

    def read_whole(self, path: Path) -> bytes | None:
        """Return a small file's contents, or None if it does not exist."""
        with _translated("cannot read", path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def rewrite(self, path: Path, data: bytes, position: int) -> None:
        """Write the same bytes over themselves, so that the kernel marks their pages dirty again."""
        with _translated("cannot rewrite", path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(descriptor, memoryview(data)[written:], position + written)
            finally:
                os.close(descriptor)

    def truncate(self, path: Path, size_bytes: int) -> None:
        with _translated("cannot truncate", path):
            os.truncate(path, size_bytes)

    def sync_data(self, descriptor: int) -> None:
        """Make everything appended so far durable. After a failure the descriptor must never be synced again."""
        try:
            self._sync_data(descriptor)
        except OSError as error:
            raise _translation(error, "cannot sync", descriptor, is_final=True) from error

    def sync_directory(self, path: Path) -> None:
        """Make creations, renames and deletions in a directory durable."""
        with _translated("cannot sync directory", path, is_final=True):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        with _translated("cannot rename", source):
            os.replace(source, target)

    def unlink(self, path: Path) -> None:
        """Delete a file. A missing file is no error, because deletions are repeated after a crash."""
        with _translated("cannot delete", path):
            path.unlink(missing_ok=True)

    def write_aside(self, path: Path, data: bytes) -> None:
        """Replace a file so that a crash leaves the old or the new one, whole: write aside, sync, rename.

        Durable only after `sync_directory`; one call may cover several files.
        """
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        self.unlink(temporary)
        descriptor = self.open_append(temporary)
        try:
            self.append(descriptor, [data], len(data))
            self.sync_data(descriptor)
        except StorageFull:
            self.unlink(temporary)
            raise
        finally:
            self.close(descriptor)
        self.rename(temporary, path)

    def replace(self, path: Path, data: bytes) -> None:
        """Call `write_aside`, and make the result durable."""
        self.write_aside(path, data)
        self.sync_directory(path.parent)
