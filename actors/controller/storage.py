"""The controller's files: the catalog and the removal of deleted topics. Impure; called by `process.py` alone.

    data directory/catalog.json                    replaced whole: written aside, synced, renamed, directory synced
    data directory/topics/<topic>/                 the partitions' own directories
    data directory/topics/.deleted~<topic id>/     a deleted topic on its way out: `~` is in no topic's name

A failed sync crashes the controller (it is never tried again on the same file); no room is told and changes nothing.
"""

from collections.abc import Callable
from pathlib import Path

from ..log.files import Files
from .catalog import Catalog, decode_catalog, encode_catalog

CATALOG_NAME = "catalog.json"
TOPICS_NAME = "topics"
DELETED_PREFIX = ".deleted~"


class CatalogFile:
    def __init__(self, data_directory: Path, files: Files) -> None:
        self._path = data_directory / CATALOG_NAME
        self._files = files

    def load(self, new_catalog_id: str) -> Catalog:
        """The catalog on disk, or a new and empty one. Raises CatalogCorrupt, which names the file."""
        data = self._files.read_whole(self._path)
        if data is None:
            return Catalog(catalog_id=new_catalog_id)
        return decode_catalog(data, str(self._path))

    def save(self, catalog: Catalog) -> None:
        """Durable when it returns. Raises StorageFull when there is no room and StorageFailed for the rest."""
        self._files.replace(self._path, encode_catalog(catalog))


class TopicDirectories:
    def __init__(self, data_directory: Path, files: Files) -> None:
        self._path = data_directory / TOPICS_NAME
        self._files = files

    def remove(self, topic: str, topic_id: str, progress: Callable[[], None]) -> None:
        """Take the topic's directory out of the way durably, then delete it. Repeating it does no harm."""
        directory = self._path / topic
        aside = self._path / f"{DELETED_PREFIX}{topic_id}"
        if directory.is_dir():
            self._files.rename(directory, aside)
            self._files.sync_directory(self._path)
        if aside.is_dir():
            self._delete(aside, progress)

    def remove_leftovers(self, progress: Callable[[], None]) -> None:
        """Delete what a crash left of deleted topics."""
        if not self._path.is_dir():
            return
        for name in self._files.names(self._path):
            if name.startswith(DELETED_PREFIX):
                self._delete(self._path / name, progress)

    def _delete(self, directory: Path, progress: Callable[[], None]) -> None:
        # File by file: unlinking a large file takes its time, and the supervisor must see that this moves.
        for name in self._files.names(directory):
            entry = directory / name
            if entry.is_dir() and not entry.is_symlink():
                self._delete(entry, progress)
            else:
                self._files.unlink(entry)
            progress()
        directory.rmdir()
