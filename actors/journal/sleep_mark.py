"""The mark of an actor that sleeps: an empty file beside its snapshot. Impure and thin.

Written before the actor's process ends to sleep, removed durably before the next one is ready. So a broker that starts
leaves asleep who was asleep when it ended, and a death between mark and exit costs nothing: whoever sleeps has no work.
Called by the processes of the actors that sleep, and by the controller's at its start.
"""

from pathlib import Path
from urllib.parse import quote, unquote

from ..log.errors import StorageFull
from ..log.files import Files

SUFFIX = ".asleep"
FOLDER = "groups"


class SleepMark:
    def __init__(self, path: Path, files: Files) -> None:
        self._path = path
        self._files = files

    def set(self) -> None:
        try:
            self._files.replace(self._path, b"")
        except StorageFull:
            pass  # without it the next start of the broker starts the actor, which falls asleep again

    def clear(self) -> None:
        if self._files.read_whole(self._path) is None:
            return
        self._files.unlink(self._path)
        self._files.sync_directory(self._path.parent)


def group_file(data_directory: Path, group: str, suffix: str) -> Path:
    """One file of each kind for each group; no group's name leaves the folder."""
    return data_directory / FOLDER / f"{quote(group, safe='')}{suffix}"


def sleeping_groups(data_directory: Path, files: Files) -> frozenset[str]:
    """The groups whose coordinators slept last."""
    folder = data_directory / FOLDER
    if not folder.exists():
        return frozenset()
    names = (name for name in files.names(folder) if name.endswith(SUFFIX))
    return frozenset(unquote(name.removesuffix(SUFFIX)) for name in names)
