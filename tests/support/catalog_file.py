"""A catalog on disk, saved whole by the product's own storage, as the controller's process uses it."""

from pathlib import Path

from planaria.actors.controller.catalog import Catalog
from planaria.actors.controller.folders import TopicFolders
from planaria.actors.controller.storage import CatalogStorage, store_for
from planaria.actors.log.errors import StorageFull
from planaria.actors.log.files import Files
from planaria.actors.metadata.store import Change, Delete, NotApplied, Propose, Put


class CatalogFile:
    def __init__(self, data_directory: Path, files: Files) -> None:
        self._storage = CatalogStorage(data_directory, files, store_for(data_directory, files))
        self._values: dict[str, bytes] | None = None

    @property
    def path(self) -> Path:
        return self._storage.path

    @property
    def folders(self) -> TopicFolders:
        return self._storage.folders

    def load(self, new_catalog_id: str) -> Catalog:
        catalog = self._storage.load(new_catalog_id, lambda: None)
        self._values = catalog.values() if catalog.revision else {}
        return catalog

    def save(self, catalog: Catalog) -> None:
        """Make the file show this catalog. Raises StorageFull."""
        if self._values is None:
            self.load(catalog.catalog_id)
        before, after = self._values or {}, catalog.values()
        changes: list[Change] = [Put(key, after[key]) for key in after if after[key] != before.get(key)]
        changes += [Delete(key) for key in before if key not in after]
        self._storage.propose(Propose(1, tuple(changes)), lambda: None)
        for event in self._storage.settle():
            if isinstance(event, NotApplied):
                raise StorageFull(event.error.message)
        self._values = after
