"""The generation of a node's data directory: by it an old copy of the directory is recognised. Pure.

    disk.json   {"made_as", "data_id", "generation"}     in the data directory
    disks/<n>   {"data_id", "generation"}                in the metadata store

The generation rises with each start, and every GENERATION_INTERVAL_MS while the node runs: in the directory first, then
in the store. So a directory that is behind the store has been restored from a copy, which lacks the records that its node
has acknowledged since; it gets another data id, and counts for nothing until it has caught up. A copy that is younger
than two intervals may be taken for the directory itself.
"""

from collections.abc import Mapping

from msgspec import Struct

GENERATION_INTERVAL_MS = 30_000


class DiskRecord(Struct, frozen=True):
    """The entry in the metadata store."""

    data_id: str
    generation: int = 0


class DiskState(Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file."""

    made_as: str
    """The data id in `node.json`. If there is another one now, the directory was declared to be a new one."""
    data_id: str
    generation: int

    @property
    def record(self) -> DiskRecord:
        return DiskRecord(self.data_id, self.generation)

    @property
    def next(self) -> "DiskState":
        return DiskState(self.made_as, self.data_id, self.generation + 1)


class KeepDisk(Struct, frozen=True):
    """Write the state into the data directory; DiskKept follows when it is durable, unless the disk is full."""

    state: DiskState


def is_foreign(known: DiskRecord | None, held: Mapping[str, str], topics: Mapping[str, str]) -> bool:
    """Return True if a store is not the one by which a directory was filled: an empty one, or another cluster's.

    It knows neither the directory's node nor any of the topics whose records are there. `held` and `topics` are the ids
    of topics by their names, in the directory and in the store. A store from a backup that was made before the node was
    added knows some of its topics.
    """
    return known is None and bool(held) and held.items().isdisjoint(topics.items())


def opened(found: DiskState | None, made_as: str, known: DiskRecord | None, new_id: str) -> DiskState:
    """Return the state of a directory at its start. `known` is the store's entry, `made_as` the id in `node.json`,
    `new_id` one for a directory that is an old copy."""
    if found is None or found.made_as != made_as:
        found = DiskState(made_as, made_as, 0)
    is_behind = known is not None and known.data_id == found.data_id and known.generation > found.generation
    is_replaced = known is not None and known.data_id != found.data_id and found.generation > 0
    if is_behind or is_replaced:
        return DiskState(made_as, new_id, 1)
    return found.next
