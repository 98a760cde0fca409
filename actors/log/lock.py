"""A directory's lock: one process at a time holds it, and the kernel drops it when the holder dies in any way.

The partition process takes it before it opens the log and keeps it for life. The lock is on the open file, not on the
name, so a stale file left by a killed holder does not block. The file contains the holder's process id, for
operators.
"""

import errno
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from .errors import LogLocked, StorageFailed

LOCK_NAME = "partition.lock"
RETRY_INTERVAL_S = 0.01


class DirectoryLock:
    """Holds `path` (a lock file, created when missing) until `release` or the end of the process.

    Waits at most `wait_ms` for a predecessor that is being killed. Raises LogLocked, which names the holder.
    """

    def __init__(self, path: Path, wait_ms: int = 2_000) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            self._acquire(time.monotonic() + wait_ms / 1000)
        except BaseException:
            os.close(self._descriptor)
            raise
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def _acquire(self, deadline_s: float) -> None:
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise StorageFailed(f"cannot lock {self.path}: {error.strerror}") from error
            if time.monotonic() >= deadline_s:
                raise LogLocked(f"{self.path} is in use by process {self._holder()}")
            # flock offers no timeout, and this process cannot poll for the death of the predecessor.
            time.sleep(RETRY_INTERVAL_S)

    def _holder(self) -> str:
        return os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"

    def release(self) -> None:
        """Release the directory. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "DirectoryLock":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
