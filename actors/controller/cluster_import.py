"""The import of one machine's catalog into the metadata store of a cluster, with the broker stopped. Impure.

    catalog.json                                      the cluster's store
    all its keys                                      the same keys
    -                                                 partitions/<topic>/<n>: the node is the only replica, and leads

Nothing is copied: the topics' folders are those of the node's replicas from now on. No node of the cluster may run: its
controller would place the partitions itself. Every write is guarded by the absence of its key, in portions. An import
that was interrupted is repeated: keys that have the same value already are skipped. At the end the directory gets its
identity, and `catalog.json` is renamed: it is no broker's on one machine any more.

Called by `planaria cluster import`, which holds the lock of the data directory.
"""

import select
import uuid
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import msgspec

from ...transport.addresses import TopicPartition
from ...transport.protocol.errors import PlanariaError
from ..log.files import Files
from ..metadata.etcd.store import EtcdStore
from ..metadata.etcd.url import etcd_config
from ..metadata.store import (
    ABSENT,
    MAX_CHANGES,
    Applied,
    Changed,
    Guard,
    NotApplied,
    Propose,
    Put,
    Rejected,
    State,
    Unknown,
)
from .catalog import ID_KEY, Catalog, decode_catalog
from .cluster.mirror import NODES, PARTITIONS, partition_key, put
from .cluster.records import Member, PartitionRecord
from .storage import CATALOG_NAME

IMPORTED_SUFFIX = ".imported"
WAIT_S = 1.0


class ImportFailed(PlanariaError):
    """The message gives the reason, in one line. The directory is still a broker's on one machine."""


def import_catalog(
    data_directory: str, store_url: str, node: str, save_identity: Callable[[str], None]
) -> list[str]:
    """Import the catalog in a data directory; return lines of text. Raises ImportFailed, and the exceptions of the store.

    `save_identity` saves the identity of the data directory, with this data id.
    """
    path = Path(data_directory) / CATALOG_NAME
    files = Files()
    data = files.read_whole(path)
    if data is None:
        raise ImportFailed(
            f"{path} is missing: only the data directory of a broker on one machine is imported"
        )
    catalog = decode_catalog(data, str(path))
    if catalog.removing:
        raise ImportFailed(
            f"topic {next(iter(catalog.removing))!r} is being deleted: start the broker once, and stop it when it serves"
        )
    for topic, entry in catalog.topics.items():
        if entry.mirror is not None and entry.mirror.state == "rejoining":
            raise ImportFailed(
                f"topic {topic!r} rejoins the one that was promoted: start the broker until it follows"
            )
    store = EtcdStore(etcd_config(store_url, node), uuid.uuid4().hex)
    try:
        state = store.load(lambda: None)
        data_id = _data_id_in(state, node) or uuid.uuid4().hex
        missing = _missing(list(_puts(catalog, node, data_id)), state)
        numbers = count(1)
        for first in range(0, len(missing), MAX_CHANGES):
            _write(store, next(numbers), missing[first : first + MAX_CHANGES])
    finally:
        store.close()
    save_identity(data_id)
    files.rename(path, path.with_name(CATALOG_NAME + IMPORTED_SUFFIX))
    files.sync_directory(path.parent)
    partitions = sum(entry.partitions for entry in catalog.topics.values())
    found = f"{len(catalog.topics)} topics with {partitions} partitions, {len(catalog.groups)} groups"
    return [f"{found} and {len(catalog.quotas)} quotas are in the cluster, each partition on {node}"]


def _puts(catalog: Catalog, node: str, data_id: str) -> Iterator[Put]:
    """Return the entries of the cluster's store, the partitions before their topics."""
    for entry in catalog.topics.values():
        for number in range(entry.partitions):
            record = PartitionRecord(
                topic_id=entry.topic_id,
                replicas=(node,),
                leader=node,
                # Not 0: the folder exists, and is never made again.
                leader_epoch=1,
                in_sync=(Member(node, data_id),),
            )
            yield put(partition_key(TopicPartition(entry.topic, number)), record)
    for key, value in catalog.values().items():
        yield Put(key, value)


def _data_id_in(state: State, node: str) -> str | None:
    """Return the data id that an interrupted import has given this node."""
    for key, entry in state.entries.items():
        if key.startswith(f"{PARTITIONS}/"):
            record = msgspec.json.decode(entry.value, type=PartitionRecord)
            for member in record.in_sync:
                if member.node == node:
                    return member.data_id
    return None


def _missing(puts: list[Put], state: State) -> list[Put]:
    """Return the entries that the store has not. Raises ImportFailed if it has any others."""
    running = [key.partition("/")[2] for key in state.entries if key.startswith(f"{NODES}/")]
    if running:
        raise ImportFailed(f"stop the nodes of the cluster first: {', '.join(sorted(running))} run")
    imported = {change.key for change in puts}
    foreign = [
        key for key, entry in state.entries.items() if key.startswith("topics/") and key not in imported
    ]
    others = [
        change.key
        for change in puts
        if change.key in state.entries and not _is_same(change, state.entries[change.key].value)
    ]
    if foreign or others:
        first = sorted((*others, *foreign))[0]
        raise ImportFailed(
            f"the cluster has {first!r} already, of another origin: import into a cluster without topics"
        )
    return [change for change in puts if change.key not in state.entries]


def _is_same(change: Put, value: bytes) -> bool:
    # A cluster that was started without topics has an id of its own.
    return value == change.value or change.key == ID_KEY


def _write(store: EtcdStore, number: int, puts: list[Put]) -> None:
    guards = tuple(Guard(change.key, ABSENT) for change in puts)
    store.propose(Propose(number, tuple(puts), guards))
    while True:
        for event in store.settle():
            match event:
                case Applied(number=found) if found == number:
                    return
                case Rejected(number=found) | NotApplied(number=found) | Unknown(number=found) if (
                    found == number
                ):
                    raise ImportFailed("the metadata store did not take the entries: run the import again")
                case Changed() | State():
                    pass
        assert store.descriptor is not None
        select.select([store.descriptor], [], [], WAIT_S)
