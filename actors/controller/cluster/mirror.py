"""The mirror: the cluster's part of the metadata store, as this node has it. Pure.

Follows the store's events (`metadata/store.py`): a State replaces everything, a Changed the keys in it. Revisions are
those at which each key was last written; they guard this node's writes.
"""

from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from ....transport.addresses import TopicPartition
from ...metadata.store import Change, Changed, Put, State
from .deciding import Versioned
from .disk import DiskRecord
from .leadership import Present
from .records import Leader, NodeSession, NodeSettings, PartitionRecord, Removal

CONTROLLER_KEY = "controller"
NODES = "nodes"
SETTINGS = "settings"
PARTITIONS = "partitions"
REMOVALS = "removals"
DISKS = "disks"
_TYPES: dict[str, type[Struct]] = {
    CONTROLLER_KEY: Leader,
    NODES: NodeSession,
    SETTINGS: NodeSettings,
    PARTITIONS: PartitionRecord,
    REMOVALS: Removal,
    DISKS: DiskRecord,
}

Value: TypeAlias = Leader | NodeSession | NodeSettings | PartitionRecord | Removal | DiskRecord


def node_key(node: str) -> str:
    return f"{NODES}/{node}"


def disk_key(node: str) -> str:
    return f"{DISKS}/{node}"


def settings_key(node: str) -> str:
    return f"{SETTINGS}/{node}"


def removal_key(node: str, topic_id: str, partition: int | None = None) -> str:
    suffix = "" if partition is None else f".{partition}"
    return f"{REMOVALS}/{node}/{topic_id}{suffix}"


def partition_key(partition: TopicPartition) -> str:
    return f"{PARTITIONS}/{partition.topic}/{partition.partition}"


def partition_of(key: str) -> TopicPartition:
    topic, _, number = key.partition("/")[2].rpartition("/")
    return TopicPartition(topic, int(number))


def put(key: str, value: Value, *, in_session: bool = False) -> Put:
    return Put(key, msgspec.json.encode(value), in_session)


class Mirror:
    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.present: Present | None = None
        self.sessions: dict[str, NodeSession] = {}
        """Replaced with each change, so that the same mapping means the same nodes."""
        self.session_revisions: dict[str, int] = {}
        self.settings: dict[str, NodeSettings] = {}
        self.settings_revisions: dict[str, int] = {}
        self.partitions: dict[TopicPartition, Versioned] = {}
        self.removals: dict[str, tuple[Removal, int]] = {}
        """By their keys, with the revisions."""
        self.disks: dict[str, tuple[DiskRecord, int]] = {}
        """The generation of each node's directory, and its revision."""

    def holds(self, node: str, partition: TopicPartition) -> bool:
        """Return True if a node is to have a replica of this partition."""
        versioned = self.partitions.get(partition)
        return versioned is not None and node in versioned.record.replicas

    def leader_epoch_of(self, topic: str, partition: int) -> int | None:
        """Return the leader epoch of a partition by its newest record; None if there is none."""
        versioned = self.partitions.get(TopicPartition(topic, partition))
        return None if versioned is None else versioned.record.leader_epoch

    def load(self, state: State) -> None:
        self.clear()
        for key, entry in state.entries.items():
            self._put(key, entry.value, entry.modified)

    def apply(self, changed: Changed) -> list[str]:
        """Return the keys of the cluster that changed."""
        return self._apply(changed.revision, changed.changes)

    def _apply(self, revision: int, changes: Iterable[Change]) -> list[str]:
        keys = []
        for change in changes:
            if change.key.partition("/")[0] in _TYPES:
                keys.append(change.key)
                if isinstance(change, Put):
                    self._put(change.key, change.value, revision)
                else:
                    self._delete(change.key)
        return keys

    def _put(self, key: str, data: bytes, revision: int) -> None:
        kind, _, name = key.partition("/")
        if kind not in _TYPES:
            return
        value: Any = msgspec.json.decode(data, type=_TYPES[kind])
        if kind == PARTITIONS:
            self.partitions[partition_of(key)] = Versioned(value, revision)
        elif kind == NODES:
            self.sessions = {**self.sessions, name: value}
            self.session_revisions[name] = revision
        elif kind == SETTINGS:
            self.settings[name] = value
            self.settings_revisions[name] = revision
        elif kind == REMOVALS:
            self.removals[key] = (value, revision)
        elif kind == DISKS:
            self.disks[name] = value, revision
        else:
            self.present = Present(value, revision)

    def _delete(self, key: str) -> None:
        kind, _, name = key.partition("/")
        if kind == PARTITIONS:
            self.partitions.pop(partition_of(key), None)
        elif kind == NODES:
            self.sessions = {node: session for node, session in self.sessions.items() if node != name}
            self.session_revisions.pop(name, None)
        elif kind == SETTINGS:
            self.settings.pop(name, None)
            self.settings_revisions.pop(name, None)
        elif kind == REMOVALS:
            self.removals.pop(key, None)
        elif kind == DISKS:
            self.disks.pop(name, None)
        else:
            self.present = None
