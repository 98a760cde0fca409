"""The controller's process: loads the catalog, performs the machine's effects. Impure and thin.

At the end of a turn the store settles the proposals. That may lead to the next decisions, which settle in the same
turn.
"""

import logging
from pathlib import Path
from typing import Any, ClassVar, Protocol, assert_never

import msgspec

from ...transport.actor import Actor, ActorContext
from ...transport.addresses import Address, coordinator_address, partition_address
from ...transport.loop import run_actor
from ...transport.protocol.deployments import is_proof
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.message import Request
from ...transport.protocol.topics import TopicConfig
from ..journal.sleep_mark import sleeping_groups, sleeping_partitions
from ..log.errors import LogError
from ..log.files import Files
from ..metadata.etcd.wire import Tls
from ..metadata.store import Applied, MetadataStore, Propose
from .catalog import Catalog
from .children import partition_folder
from .cluster.disk import KeepDisk
from .deployed_output import read_output
from .effects import (
    Effect,
    Event,
    Loaded,
    LookForReplica,
    MakeReplica,
    OutputRead,
    OwnEffect,
    OwnEvent,
    ReadOutput,
    RemoveRemains,
    RemoveReplica,
    RemoveTopic,
    TopicNotRemoved,
    TopicRemoved,
    TurnEnds,
)
from .internal_actors import AUDIT_CONFIG
from .machine import REQUESTS, ControllerMachine
from .storage import CatalogStorage, store_for

_log = logging.getLogger(__name__)


class ReplicaDoor(msgspec.Struct):
    """The endpoints of this node's replicas for followers on other nodes."""

    endpoint: str
    """To bind, at any port."""
    host: str
    """As other nodes reach it."""
    keys: str = ""
    """The file of the cluster's keys; empty: none."""


class ClusterArguments(msgspec.Struct):
    """The arguments of a controller on a node of a cluster."""

    node: str
    data_id: str
    store: str
    """URL of the metadata store."""
    endpoint: str
    peer_endpoint: str
    rack: str = ""
    tls: Tls | None = None
    """For the connections to the store."""
    replica_door: ReplicaDoor | None = None
    """None: followers on other nodes fetch through the links alone."""


class ControllerArguments(msgspec.Struct):
    topic_defaults: TopicConfig = TopicConfig()
    """Defaults for a topic's configuration."""
    offsets_partitions: int = 4
    """Number of partitions of the internal topic with the groups' offsets; used when it is created."""
    delayed_partitions: int = 2
    """Number of partitions of the internal topic with delayed messages; used when it is created."""
    disk_reserve_bytes: int = 0
    """The free space that partitions of users' topics leave on the disk."""
    slow_sync_ms: int = 0
    """A leader whose syncs take longer than this asks to be relieved; 0: never."""
    max_actors: int = 2**31
    """The number of actors that the machine has room for, checked when one is added."""
    actors_limit: str = ""
    """The limit of the system that `max_actors` comes from."""
    coordinator_idle_ms: int = 0
    """A group's coordinator sleeps after this time without members and work; 0: never."""
    offsets_retention_ms: int = -1
    """Offsets of a group without members are deleted when unused for this long; -1: never."""
    disconnect_grace_ms: int = 0
    """A group's member whose connection is lost has left after this time; 0: when its session ends."""
    partition_idle_ms: int = 0
    """A partition sleeps after this time without traffic; 0: never."""
    audit_retention_ms: int = AUDIT_CONFIG.retention_ms
    """Age at which records of the audit are deleted; -1: never."""
    audit_retention_bytes: int = AUDIT_CONFIG.retention_bytes
    """Size of the audit beyond which its oldest records are deleted; -1: any."""
    transaction_coordinators: int = 2
    """Number of coordinators, and of partitions of the internal topic with transactions; used when it is created."""
    cluster: ClusterArguments | None = None
    """None for a broker on one machine."""


class CatalogMachine(Protocol):
    """A controller's machine, on one machine or in a cluster."""

    @property
    def catalog(self) -> Catalog: ...

    def handle(self, event: Event, now: int) -> list[Effect]: ...


class ControllerActor(Actor[OwnEvent, OwnEffect]):
    follows_connections: ClassVar[bool] = True
    requests: ClassVar[tuple[type[Request], ...]] = REQUESTS
    machine: CatalogMachine

    def __init__(
        self, context: ActorContext, files: Files | None = None, store: MetadataStore | None = None
    ) -> None:
        super().__init__(context)
        self._files = files or Files()
        self._arguments = msgspec.convert(context.arguments, ControllerArguments)
        data_directory = Path(context.data_directory)
        store = store or store_for(data_directory, self._files)
        self._storage = CatalogStorage(data_directory, self._files, store)
        self._folders = self._storage.folders

    def start(self) -> None:
        catalog = self._storage.load(self.context.instance_id, self.loop.progress)
        self._folders.remove_leftovers(self.loop.progress)
        self._compare(catalog)
        is_restarted = self.context.incarnation > 1
        self.machine = self._controller(catalog, asleep=self._asleep(catalog), is_restarted=is_restarted)
        self.loop.dispatch(Loaded())

    def _controller(self, catalog: Catalog, **options: Any) -> ControllerMachine:
        return ControllerMachine(
            catalog,
            topic_defaults=self._arguments.topic_defaults,
            offsets_partitions=self._arguments.offsets_partitions,
            delayed_partitions=self._arguments.delayed_partitions,
            disk_reserve_bytes=self._arguments.disk_reserve_bytes,
            transaction_coordinators=self._arguments.transaction_coordinators,
            max_actors=self._arguments.max_actors,
            actors_limit=self._arguments.actors_limit,
            coordinator_idle_ms=self._arguments.coordinator_idle_ms,
            offsets_retention_ms=self._arguments.offsets_retention_ms,
            disconnect_grace_ms=self._arguments.disconnect_grace_ms,
            partition_idle_ms=self._arguments.partition_idle_ms,
            audit=msgspec.structs.replace(
                AUDIT_CONFIG,
                retention_ms=self._arguments.audit_retention_ms,
                retention_bytes=self._arguments.audit_retention_bytes,
            ),
            is_proof=lambda given: is_proof(given, self.context.secret),
            **options,
        )

    def _asleep(self, catalog: Catalog) -> dict[Address, int | None]:
        """Return the actors that slept when the broker ended: they stay asleep if the configuration allows it."""
        data_directory = Path(self.context.data_directory)
        groups = sleeping_groups(data_directory, self._files) if self._arguments.coordinator_idle_ms else {}
        found = {coordinator_address(group): wake_at_ms for group, wake_at_ms in groups.items()}
        if self._arguments.partition_idle_ms:
            folders = {
                partition_address(entry.topic, partition): partition_folder(entry.topic, partition)
                for entry in catalog.topics.values()
                for partition in range(entry.partitions)
            }
            found |= sleeping_partitions(data_directory, folders, self._files)
        return found

    def perform(self, effect: OwnEffect) -> None:
        match effect:
            case Propose():
                self._storage.propose(effect, self.loop.progress)
            case RemoveTopic():
                self._remove(effect)
            case ReadOutput():
                self._read_output(effect)
            case MakeReplica() | RemoveReplica() | RemoveRemains() | LookForReplica() | KeepDisk():
                raise AssertionError(f"this broker is not part of a cluster: {effect!r}")
            case _:
                assert_never(effect)

    def end_turn(self) -> None:
        self.loop.dispatch(TurnEnds())
        began_ns = self.loop.meters.clock_ns()
        while events := self._storage.settle():
            self.loop.meters.on_synced(began_ns)
            for event in events:
                self.loop.dispatch(event)
                if self.alarms and isinstance(event, Applied):
                    self._compare(self.machine.catalog)
            self.loop.dispatch(TurnEnds())
            began_ns = self.loop.meters.clock_ns()

    def alarms_now(self) -> tuple[str, ...]:
        return (*self.alarms, *self._storage.alarms())

    def close(self) -> None:
        self._storage.close()

    def _compare(self, catalog: Catalog) -> None:
        before, self.alarms = self.alarms, tuple(self._folders.differences(catalog))
        for line in self.alarms:
            if line not in before:
                _log.error("%s", line)

    def _read_output(self, order: ReadOutput) -> None:
        try:
            reply = read_output(Path(self.context.data_directory), order.request, order.node)
        except OSError as error:
            body = ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, f"the output cannot be read: {error}", True)
            self.loop.dispatch(OutputRead(order.sender, body))
        else:
            self.loop.dispatch(OutputRead(order.sender, reply))

    def _remove(self, order: RemoveTopic) -> None:
        try:
            self._folders.remove(order.topic, order.topic_id, self.loop.progress)
        except (LogError, OSError) as error:
            body = ErrorBody(
                ErrorCode.STORAGE_FULL, f"topic {order.topic!r} left files behind: {error}", True
            )
            self.loop.dispatch(TopicNotRemoved(order.topic, body))
        else:
            self.loop.dispatch(TopicRemoved(order.topic))


def main(context: ActorContext) -> None:
    run_actor(ControllerActor(context), context)
