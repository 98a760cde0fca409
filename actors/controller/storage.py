"""The catalog's store and the topics' folders, held together. Impure; called by `process.py` and `recovery.py` alone.

    data directory/catalog.json     the store of one machine: `metadata/store_file.py`

Folders are made before the store names their topics (`folders.py`). `store_for` chooses the store.
"""

from collections.abc import Callable
from pathlib import Path

from ...transport.protocol.errors import ErrorBody, ErrorCode
from ..log.errors import StorageFull
from ..log.files import Files
from ..metadata.file_format import CatalogCorrupt
from ..metadata.store import MetadataStore, NotApplied, Propose, Put, StoreEvent
from ..metadata.store_file import FileStore
from .catalog import Catalog, CatalogMissing, catalog_of, entry_of
from .folders import TOPICS_NAME, TopicFolders

CATALOG_NAME = "catalog.json"
_WAY_OUT = 'restore it from a backup, or run "planaria recover --catalog"'


def store_for(data_directory: Path, files: Files) -> MetadataStore:
    """Return the store of a controller: on one machine, the file in its data directory."""
    return FileStore(data_directory / CATALOG_NAME, files)


class CatalogStorage:
    def __init__(self, data_directory: Path, files: Files, store: MetadataStore) -> None:
        self.path = data_directory / CATALOG_NAME
        self.folders = TopicFolders(data_directory, files)
        self._store = store
        self._refused: list[StoreEvent] = []

    @property
    def descriptor(self) -> int | None:
        return self._store.descriptor

    def load(self, new_catalog_id: str, progress: Callable[[], None]) -> Catalog:
        """Return the catalog in the store, or an empty one. Raises CatalogCorrupt and CatalogMissing, which name the
        file."""
        try:
            state = self._store.load(progress)
            if state.revision == 0 and self.folders.hold_records():
                raise CatalogMissing(f"{self.path} is missing, but {TOPICS_NAME}/ holds records; {_WAY_OUT}")
            catalog = catalog_of(state, new_catalog_id)
        except CatalogCorrupt as error:
            raise CatalogCorrupt(f"{error}; {_WAY_OUT}") from error
        self.folders.adopt(catalog)
        return catalog

    def propose(self, proposal: Propose, progress: Callable[[], None]) -> None:
        """Make the folders of the topics in the proposal, then propose it; without room for them it is not made."""
        entries = [
            entry_of(change)
            for change in proposal.changes
            if isinstance(change, Put) and change.key.startswith("topics/")
        ]
        try:
            self.folders.make(entries, progress)
        except StorageFull as full:
            error = ErrorBody(ErrorCode.STORAGE_FULL, str(full), True)
            self._refused.append(NotApplied(proposal.number, error))
        else:
            self._store.propose(proposal)

    def settle(self) -> list[StoreEvent]:
        """Return the events of the store, and the proposals that are refused. Raises StorageFailed."""
        refused, self._refused = self._refused, []
        return [*refused, *self._store.settle()]

    def alarms(self) -> tuple[str, ...]:
        return self._store.alarms()

    def close(self) -> None:
        self._store.close()
