"""The mark of an actor that sleeps: a file beside its snapshot, `{"wake_at_ms": number | null}`. Impure and thin.

Written before the actor's process ends to sleep, removed durably before the next one is ready. So a broker that starts
does not start the actors that slept when it ended, and a death between mark and exit is harmless: a sleeping actor has
no work. Called by the processes of the actors that sleep, and by the controller's at its start.
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

from ...transport.addresses import Address
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
        """Write the mark. `wake_at_ms` is the time at which to wake the actor without a call."""
        try:
            self._files.replace(self._path, msgspec.json.encode(_Mark(wake_at_ms)))
        except StorageFull:
            pass  # without it the next start of the broker starts the actor, which falls asleep again

    def clear(self) -> None:
        """Remove the mark. Durable on return, also the removal by a predecessor that died before it synced the folder."""
        self._files.unlink(self._path)
        self._files.sync_directory(self._path.parent)


def group_file(data_directory: Path, group: str, suffix: str) -> Path:
    """Return the file of this kind for the group; no group name can lead outside the folder."""
    return data_directory / FOLDER / f"{quote(group, safe='')}{suffix}"


def partition_mark(directory: Path) -> Path:
    """Return the mark's file in the folder of a partition."""
    return directory / f"partition{SUFFIX}"


def sleeping_groups(data_directory: Path, files: Files) -> dict[str, int | None]:
    """Return the groups whose coordinators are asleep, with the time at which to wake each."""
    folder = data_directory / FOLDER
    if not files.exists(folder):
        return {}
    found: dict[str, int | None] = {}
    for name in files.names(folder):
        mark = _read(folder / name, files) if name.endswith(SUFFIX) else None
        if mark is not None:
            found[unquote(name.removesuffix(SUFFIX))] = mark.wake_at_ms
    return found


def sleeping_partitions(
    data_directory: Path, folders: Mapping[Address, str], files: Files
) -> dict[Address, int | None]:
    """Return the partitions that are asleep, of these addresses and folders, with the time at which to wake each."""
    found: dict[Address, int | None] = {}
    for address, folder in folders.items():
        mark = _read(partition_mark(data_directory / folder), files)
        if mark is not None:
            found[address] = mark.wake_at_ms
    return found


def _read(path: Path, files: Files) -> _Mark | None:
    """Return the mark; None if there is none, or it cannot be read: its actor is then started."""
    data = files.read_whole(path)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=_Mark)
    except msgspec.MsgspecError:
        return None
