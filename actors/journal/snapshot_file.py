"""The file of a journal's snapshot. Impure and thin.

A cache: an actor that cannot read it replays more. Called by the processes of the actors that keep one.
"""

from pathlib import Path

from ..log.errors import StorageFull
from ..log.files import Files


class SnapshotFile:
    def __init__(self, path: Path, files: Files) -> None:
        self._path = path
        self._files = files

    def read(self) -> bytes | None:
        """Return the content saved last; create the folder if it is missing."""
        self._files.make_directory(self._path.parent)
        self._files.sync_directory(self._path.parent.parent)
        return self._files.read_whole(self._path)

    def save(self, data: bytes) -> None:
        try:
            self._files.replace(self._path, data)
        except StorageFull:
            pass  # a full disk must not stop the actor: the older snapshot stays good, the next replay is longer

    def remove(self) -> None:
        """Remove the file. Durable on return."""
        self._files.unlink(self._path)
        self._files.sync_directory(self._path.parent)
