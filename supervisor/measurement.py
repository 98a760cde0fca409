"""Measures the system limits of a broker: descriptors, processes, memory. Called once, when a broker starts.

Linux provides all of them; elsewhere unknown limits count as unlimited. In cgroups (version 2), every level above the
process's own counts.
"""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from .capacity import SystemLimits

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def measure(proc: Path = PROC, cgroups: Path = CGROUPS) -> SystemLimits:
    tasks = [_tasks_left(folder) for folder in _folders(proc, cgroups)]
    memory = [_memory_left_bytes(folder) for folder in _folders(proc, cgroups)]
    return SystemLimits(
        descriptors=_limited(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        tasks=_least(*tasks, _user_tasks_left(proc)),
        memory_bytes=_least(*memory, _table(proc / "meminfo").get("MemAvailable:")),
    )


def _limited(limit: int) -> int | None:
    return None if limit == resource.RLIM_INFINITY else limit


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _folders(proc: Path, cgroups: Path) -> Iterator[Path]:
    """Yield the cgroup of this process and those above it."""
    for line in _text(proc / "self/cgroup").splitlines():
        hierarchy, _, path = line.partition("::")
        if hierarchy == "0":
            folder = cgroups / path.lstrip("/")
            yield folder
            yield from (above for above in folder.parents if above.is_relative_to(cgroups))


def _tasks_left(folder: Path) -> int | None:
    limit, used = _number(folder / "pids.max"), _number(folder / "pids.current")
    return None if limit is None else max(0, limit - (used or 0))


def _memory_left_bytes(folder: Path) -> int | None:
    limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
    if limit is None:
        return None
    # Cached files not read for a while are dropped as soon as memory is needed.
    cached = _table(folder / "memory.stat").get("inactive_file", 0)
    return max(0, limit - max(0, (used or 0) - cached))


def _user_tasks_left(proc: Path) -> int | None:
    limit = _limited(resource.getrlimit(resource.RLIMIT_NPROC)[0])
    if limit is None or os.getuid() == 0:
        return None
    return max(0, limit - sum(_threads(folder) for folder in proc.glob("[0-9]*")))


def _threads(process: Path) -> int:
    """Return the number of threads of a process of this user."""
    try:
        is_own = process.stat().st_uid == os.getuid()
    except OSError:  # it has ended
        return 0
    return _table(process / "status").get("Threads:", 0) if is_own else 0


def _table(path: Path) -> dict[str, int]:
    """Parse lines of a name and a number; in bytes where the file says kB."""
    found: dict[str, int] = {}
    for line in _text(path).splitlines():
        name, *values = line.split()[:3] or [""]
        if values and values[0].isdigit():
            found[name] = int(values[0]) * (1024 if values[1:] == ["kB"] else 1)
    return found


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
