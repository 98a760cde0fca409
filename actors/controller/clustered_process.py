"""The controller's process on a node of a cluster: the store is etcd, and folders are those of this node's replicas.
Impure and thin.

Unlike on one machine, a topic in the catalog says nothing of folders here: a folder is made when this node gets a
replica, and removed when it holds it no more.
"""

import logging
import select
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import ClassVar

import msgspec

from ...transport.actor import ActorContext
from ...transport.addresses import TopicPartition
from ...transport.loop import run_actor
from ...transport.protocol.errors import OperatorNeeded
from ...transport.protocol.message import Request
from ..log.errors import LogError, StorageFull
from ..log.files import Files
from ..metadata.etcd.store import EtcdStore
from ..metadata.etcd.url import etcd_config
from ..metadata.store import Changed, MetadataStore, Propose, State, StoreEvent
from .catalog import Catalog, catalog_of
from .children import ReplicaSettings
from .cluster import versions
from .cluster.disk import DiskRecord, DiskState, KeepDisk, is_foreign, opened
from .cluster.led_here import FollowerCommands
from .cluster.machine import Cluster
from .cluster.mirror import Mirror, disk_key
from .cluster.placement import stopping_nodes
from .cluster.records import NodeSession
from .clustered import REQUESTS, ClusteredController
from .deployments import Nodes
from .effects import (
    DiskKept,
    Loaded,
    LookForReplica,
    MakeReplica,
    OwnEffect,
    RemoveRemains,
    RemoveReplica,
    RemoveTopic,
    ReplicaLost,
    TopicRemoved,
)
from .folders import TOPICS_NAME
from .process import ControllerActor
from .replication import Replication
from .storage import CatalogStorage

DISK_FILE = "disk.json"
_log = logging.getLogger(__name__)


RIVAL_WAIT_S = 7.0
"""Longer than the session of a node whose machine was lost."""
RIVAL_POLL_S = 0.2


class NodeTaken(OperatorNeeded):
    """Another node of the same id is running."""


class WrongVersion(OperatorNeeded):
    """Another node does not speak the protocol of this one."""


class StoreForeign(OperatorNeeded):
    """The metadata store knows nothing of this node's records."""


SHOWN = 3
"""Topics named in a refusal."""


class ClusterStorage(CatalogStorage):
    """The store of a cluster, and the folders of the replicas of `node`, this one.

    A store that was started empty by mistake would get new topics in place of those whose records are here, with offsets
    that begin at 0 again: it is refused, at the start and while the node runs.
    """

    def __init__(self, data_directory: Path, files: Files, store: MetadataStore, node: str) -> None:
        super().__init__(data_directory, files, store)
        self.state: State
        self._node = node

    def load(self, new_catalog_id: str, progress: Callable[[], None]) -> Catalog:
        self.state = self._store.load(progress)
        self._check(self.state)
        return catalog_of(self.state, new_catalog_id)

    def settle(self) -> list[StoreEvent]:
        """As the base class. Raises StoreForeign."""
        events = super().settle()
        for event in events:
            if isinstance(event, State):
                self._check(event)
        return events

    def disk_record(self, state: State) -> DiskRecord | None:
        entry = state.entries.get(disk_key(self._node))
        return None if entry is None else msgspec.json.decode(entry.value, type=DiskRecord)

    def _check(self, state: State) -> None:
        held = self.folders.ids_of_records()
        topics = {name: entry.topic_id for name, entry in catalog_of(state, "").topics.items()}
        if is_foreign(self.disk_record(state), held, topics):
            named = ", ".join([*sorted(held)[:SHOWN], *(["..."] if len(held) > SHOWN else [])])
            raise StoreForeign(
                f"etcd knows nothing of this node, but {TOPICS_NAME}/ holds records of {named}: restore etcd from its"
                f" snapshot, or, to give up these records, move {TOPICS_NAME}/ out of the data directory"
            )

    def propose(self, proposal: Propose, progress: Callable[[], None]) -> None:
        """Propose; no folder belongs to it."""
        self._store.propose(proposal)


class ClusterControllerActor(ControllerActor):
    needs_supervisor = True
    requests: ClassVar[tuple[type[Request], ...]] = REQUESTS
    machine: ClusteredController
    _storage: ClusterStorage

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        arguments = self._arguments.cluster
        assert arguments is not None
        self._cluster = arguments
        self._cluster_part: Cluster | None = None
        """None before the store is read."""
        life = f"{context.instance_id}/{context.incarnation}"
        config = etcd_config(arguments.store, arguments.node, arguments.tls)
        self._name = config.cluster
        self._store = EtcdStore(config, life)
        self._storage = ClusterStorage(Path(context.data_directory), self._files, self._store, arguments.node)
        self._folders = self._storage.folders

    def start(self) -> None:
        catalog = self._storage.load(self.context.instance_id, self.loop.progress)
        disk = self._open_disk()
        early = self._await_name(disk.data_id)
        own = self._own(disk)
        mismatch = versions.refusal(own, mirror_of(self._storage.state, early).sessions)
        if mismatch:
            raise WrongVersion(mismatch)
        self._folders.remove_leftovers(self.loop.progress)
        self._compare(catalog)
        numbers, commands = count(1), FollowerCommands()
        self.machine = ClusteredController(
            self._controller(
                catalog,
                numbers=numbers,
                commands=commands,
                replication=Replication(self._nodes),
                nodes=self._nodes_of_workers,
            ),
            commands,
            own,
            self._storage.state,
            numbers,
            name=self._name,
            settings=self._replica_settings(),
            disk=disk,
        )
        self._cluster_part = self.machine.cluster
        if self._store.descriptor is not None:
            # The end of the turn settles the events.
            self.loop.watch(self._store.descriptor, lambda: None)
        self.loop.dispatch(Loaded())
        for event in early:
            self.loop.dispatch(event)

    def _await_name(self, data_id: str) -> list[StoreEvent]:
        """Wait until no other data directory has a session under this node's id. Return the events of the store until
        then. Raises NodeTaken."""
        mirror, events = Mirror(), list[StoreEvent]()
        mirror.load(self._storage.state)
        ends_at, descriptor = time.monotonic() + RIVAL_WAIT_S, self._store.descriptor
        assert descriptor is not None
        while (found := mirror.sessions.get(self._cluster.node)) and found.data_id != data_id:
            if time.monotonic() >= ends_at:
                raise taken(found)
            self.loop.progress()
            select.select([descriptor], [], [], RIVAL_POLL_S)
            for event in self._store.settle():
                events.append(event)
                if isinstance(event, State):
                    mirror.load(event)
                elif isinstance(event, Changed):
                    mirror.apply(event)
        return events

    def end_turn(self) -> None:
        super().end_turn()
        rival = self._cluster_part.rival if self._cluster_part is not None else None
        if rival is not None:
            raise taken(rival)

    def _nodes(self) -> int:
        return self.machine.nodes()

    def _nodes_of_workers(self) -> Nodes:
        """Return the nodes over which the workers of deployments are spread."""
        cluster = self.machine.cluster
        stopping = stopping_nodes(cluster.mirror.sessions)
        return Nodes(self._cluster.node, [node for node in sorted(cluster.live) if node not in stopping])

    def _open_disk(self) -> DiskState:
        """Return the state of the data directory, with the generation of this start."""
        path = Path(self.context.data_directory) / DISK_FILE
        known = self._storage.disk_record(self._storage.state)
        data = self._files.read_whole(path)
        found = None if data is None else msgspec.json.decode(data, type=DiskState)
        state = opened(found, self._cluster.data_id, known, uuid.uuid4().hex)
        if found is not None and found.made_as == state.made_as and found.data_id != state.data_id:
            _log.warning(
                "the data directory is an old copy: its replicas count for nothing until they have caught up"
            )
        try:
            self._files.replace(path, msgspec.json.encode(state))
        except StorageFull:
            if found is None or found.data_id != state.data_id:
                raise
            return found
        return state

    def _keep(self, state: DiskState) -> None:
        with suppress(StorageFull):  # the generation stays as it is
            self._files.replace(Path(self.context.data_directory) / DISK_FILE, msgspec.json.encode(state))
            self.loop.dispatch(DiskKept(state))

    def _replica_settings(self) -> ReplicaSettings:
        arguments, door = self._arguments, self._cluster.replica_door
        return ReplicaSettings(
            arguments.disk_reserve_bytes,
            arguments.slow_sync_ms,
            peer_endpoint="" if door is None else door.endpoint,
            peer_host="" if door is None else door.host,
            peer_keys="" if door is None else door.keys,
        )

    def _own(self, disk: DiskState) -> NodeSession:
        cluster = self._cluster
        return NodeSession(
            node=cluster.node,
            data_id=disk.data_id,
            start_id=self.context.instance_id,
            endpoint=cluster.endpoint,
            peer_endpoint=cluster.peer_endpoint,
            rack=cluster.rack,
            protocol=versions.NEWEST_PROTOCOL,
            oldest_protocol=versions.OLDEST_PROTOCOL,
        )

    def perform(self, effect: OwnEffect) -> None:
        match effect:
            case MakeReplica(entry=entry, partition=partition):
                self._folders.make_replica(entry, partition)
            case RemoveReplica(partition=partition):
                self._remove_replica(partition)
            case RemoveRemains():
                self._remove_remains(effect)
            case LookForReplica(partition=partition, topic_id=topic_id):
                if not self._folders.has_replica(*partition, topic_id):
                    self.loop.dispatch(ReplicaLost(partition))
            case KeepDisk(state=state):
                self._keep(state)
            case RemoveTopic(topic=topic):
                self.loop.dispatch(TopicRemoved(topic))
            case _:
                super().perform(effect)

    def alarms_now(self) -> tuple[str, ...]:
        unplaced = self._cluster_part.assignments.unplaced if self._cluster_part is not None else ""
        return (*super().alarms_now(), *([f"partitions wait for a node: {unplaced}"] if unplaced else ()))

    def _remove_remains(self, remains: RemoveRemains) -> None:
        topic, topic_id, partition = remains.topic, remains.topic_id, remains.partition
        try:
            if partition is None:
                self._folders.remove(topic, topic_id, self.loop.progress)
            elif self._folders.has_replica(topic, partition, topic_id):
                self._folders.remove_replica(topic, partition, self.loop.progress)
        except (LogError, OSError) as error:
            _log.error("%s, no longer on this node: files remain: %s", topic, error)

    def _remove_replica(self, partition: TopicPartition) -> None:
        try:
            self._folders.remove_replica(*partition, self.loop.progress)
        except (LogError, OSError) as error:
            _log.error("%s/%s: files remain: %s", *partition, error)


def mirror_of(state: State, later: Iterable[StoreEvent]) -> Mirror:
    """Return the cluster as the store shows it after these events."""
    mirror = Mirror()
    mirror.load(state)
    for event in later:
        if isinstance(event, State):
            mirror.load(event)
        elif isinstance(event, Changed):
            mirror.apply(event)
    return mirror


def taken(rival: NodeSession) -> NodeTaken:
    return NodeTaken(
        f"node {rival.node!r} is running already, at {rival.endpoint}, with another data directory or a copy of this one:"
        " give this one another name, or stop that one"
    )


def main(context: ActorContext) -> None:
    run_actor(ClusterControllerActor(context), context)
