"""The catalog's file. Impure; called by `process.py` and `recovery.py` alone.

    data directory/catalog.json     replaced whole: written aside, synced, renamed, directory synced

Folders are made before the catalog names them (`folders.py`). The file read at the start is rewritten before it is
trusted: a predecessor may have died between its rename and the sync of the directory, so the cache may show a file
that the medium lacks. A failed sync crashes the controller (it is never retried on the same file); a full disk is
reported and changes nothing.
"""

from pathlib import Path

from ..log.errors import StorageFull
from ..log.files import Files
from .catalog import Catalog, CatalogCorrupt, CatalogMissing, decode_catalog, encode_catalog
from .folders import TOPICS_NAME, TopicFolders

CATALOG_NAME = "catalog.json"
_WAY_OUT = 'restore it from a backup, or run "planaria recover --catalog"'


class CatalogFile:
    def __init__(self, data_directory: Path, files: Files) -> None:
        self.path = data_directory / CATALOG_NAME
        self._files = files
        self._folders = TopicFolders(data_directory, files)

    def load(self, new_catalog_id: str) -> Catalog:
        """Return the catalog on disk, or an empty one. Raises CatalogCorrupt and CatalogMissing, which name the file."""
        data = self._files.read_whole(self.path)
        if data is None:
            if self._folders.hold_records():
                raise CatalogMissing(f"{self.path} is missing, but {TOPICS_NAME}/ holds records; {_WAY_OUT}")
            return Catalog(catalog_id=new_catalog_id)
        try:
            catalog = decode_catalog(data, str(self.path))
        except CatalogCorrupt as error:
            raise CatalogCorrupt(f"{error}; {_WAY_OUT}") from error
        try:
            self._files.replace(self.path, data)
        except StorageFull:
            self._files.sync_directory(self.path.parent)
        self._folders.adopt(catalog)
        return catalog

    def save(self, catalog: Catalog) -> None:
        """Save the catalog, durably on return. Raises StorageFull when there is no room, and StorageFailed otherwise."""
        self._folders.make(catalog)
        self._files.replace(self.path, encode_catalog(catalog))

    @property
    def folders(self) -> TopicFolders:
        return self._folders
