"""Orphans: children that the catalog does not require, looked up once at the start, and stopped. Pure.

A controller that dies between a durable deletion and its stop command leaves a process behind that is no longer in
the catalog. So its successor compares the running children with the required ones, and stops those that neither the
durable nor the latest catalog contains.
"""

from collections.abc import Callable

from ...transport.addresses import SUPERVISOR, Address, Kind, deployed_address
from ...transport.machine import Call
from ...transport.protocol.operations import Status, StatusReply
from .child_commands import ChildCommands
from .children import all_specs
from .decisions import Decisions
from .effects import Effect
from .keys import OrphanSearch

TIMEOUT_MS = 10_000
KINDS = frozenset(
    {Kind.PARTITION, Kind.COORDINATOR, Kind.SCHEDULER, Kind.TRANSACTIONS, Kind.DEPLOYED, Kind.MIRROR}
)
"""The kinds that the catalog determines; other children are started and stopped by other actors."""


class Orphans:
    def __init__(
        self, decisions: Decisions, commands: ChildCommands, mirrors: Callable[[], set[Address]] = set
    ) -> None:
        """`mirrors` returns the addresses of the mirrors that belong on this node."""
        self._decisions = decisions
        self._commands = commands
        self._mirrors = mirrors

    def ask(self) -> list[Effect]:
        return [
            Call(OrphanSearch(), SUPERVISOR, Status(), StatusReply, timeout_ms=TIMEOUT_MS, is_endless=True)
        ]

    def on_answered(self, reply: StatusReply) -> list[Effect]:
        """Stop the orphans in the reply.

        It is older than decisions made meanwhile, which may not be durable yet, so a child in either catalog is kept.
        """
        catalogs = (self._decisions.durable, self._decisions.latest)
        called_for = {spec.address for catalog in catalogs for spec in all_specs(catalog)}
        called_for |= {
            deployed_address(group, number)
            for catalog in catalogs
            for group, deployment in catalog.deployments.items()
            for number in range(1, deployment.spec.workers + 1)
            if not deployment.is_paused
        }
        called_for |= self._mirrors()
        orphans = [
            actor.address
            for actor in reply.actors
            if actor.address.kind in KINDS
            and actor.address not in called_for
            and not self._commands.is_open(actor.address)
        ]
        return self._commands.stop(orphans)
