"""The mark of an actor that sleeps: a file beside its snapshot, `{"wake_at_ms": number | null}`. Impure and thin.

Written before the actor's process ends to sleep, removed durably before the next one is ready. So a broker that starts
leaves asleep who was asleep when it ended, and a death between mark and exit costs nothing: whoever sleeps has no work.
Called by the processes of the actors that sleep, and by the controller's at its start.
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

from ..log.errors import StorageFull
from ..log.files import Files

SUFFIX = ".asleep"
FOLDER = "groups"


class _Mark(msgspec.Struct):
    wake_at_ms: int | None = None


class SleepMark:
    def __init__(self, path: Path, files: Files) -> None:
        self._path = path
        self._files = files

    def set(self, wake_at_ms: int | None) -> None:
        """`wake_at_ms`: when it is to be woken though nobody has called."""
        try:
            self._files.replace(self._path, msgspec.json.encode(_Mark(wake_at_ms)))
        except StorageFull:
            pass  # without it the next start of the broker starts the actor, which falls asleep again

    def clear(self) -> None:
        """Durable when it returns, also what a predecessor removed that died before it synced the folder."""
        self._files.unlink(self._path)
        self._files.sync_directory(self._path.parent)


def group_file(data_directory: Path, group: str, suffix: str) -> Path:
    """One file of each kind for each group; no group's name leaves the folder."""
    return data_directory / FOLDER / f"{quote(group, safe='')}{suffix}"


def partition_mark(directory: Path) -> Path:
    """In the folder of a partition."""
    return directory / f"partition{SUFFIX}"


def sleeping_groups(data_directory: Path, files: Files) -> dict[str, int | None]:
    """The groups whose coordinators slept last, and when each is to be woken."""
    folder = data_directory / FOLDER
    if not folder.exists():
        return {}
    found: dict[str, int | None] = {}
    for name in files.names(folder):
        mark = _read(folder / name, files) if name.endswith(SUFFIX) else None
        if mark is not None:
            found[unquote(name.removesuffix(SUFFIX))] = mark.wake_at_ms
    return found


def sleeping_partitions(
    data_directory: Path, folders: Mapping[str, str], files: Files
) -> dict[str, int | None]:
    """Of partitions, by address with their folders, those that slept last, and when each is to be woken."""
    found: dict[str, int | None] = {}
    for address, folder in folders.items():
        mark = _read(partition_mark(data_directory / folder), files)
        if mark is not None:
            found[address] = mark.wake_at_ms
    return found


def _read(path: Path, files: Files) -> _Mark | None:
    """None: there is no mark, or none that can be read. Whoever it is of is started."""
    data = files.read_whole(path)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=_Mark)
    except msgspec.MsgspecError:
        return None
