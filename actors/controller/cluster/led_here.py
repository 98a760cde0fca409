"""The actors of this node that follow the leaders of partitions, and the locations of all leaders. Pure.

A coordinator, a scheduler or a transaction coordinator runs on the node that leads the partition with its state. Who
answers for the address of a partition, or of such an actor, is reported to the supervisor by `Locate`.
"""

from collections.abc import Callable, Iterable, Mapping

from ....transport.addresses import SUPERVISOR, Address, TopicPartition
from ....transport.machine import Call
from ....transport.protocol.control import ChildSpec, Locate, Location
from ....transport.protocol.message import Done
from ..child_commands import ChildCommands
from ..effects import Effect
from ..keys import LocateCall
from .deciding import Versioned
from .elections import DataIds
from .followers import FOLLOWED
from .locating import Locations
from .records import NodeSession

LOCATE_TIMEOUT_MS = 30_000


class FollowerCommands(ChildCommands):
    """The commands of the controller's own roles: in a cluster they start nothing, because leaders decide it."""

    def start(
        self, specs: Iterable[ChildSpec], asleep: Mapping[Address, int | None] | None = None
    ) -> list[Effect]:
        return []

    def start_here(self, specs: Iterable[ChildSpec]) -> list[Effect]:
        return super().start(specs)


class LedHere:
    """`specs` returns those of the actors that follow a partition's leader."""

    def __init__(
        self,
        own: NodeSession,
        commands: FollowerCommands,
        specs: Callable[[TopicPartition], list[ChildSpec]],
    ) -> None:
        self._own = own
        self._commands = commands
        self._specs = specs
        self._locations = Locations(own.node)
        self._leading: dict[TopicPartition, int] = {}
        """Epochs in which replicas of this node have confirmed that they lead."""
        self._following: dict[TopicPartition, list[Address]] = {}
        """Actors that run here because the leader of their partition does; undecided for partitions not in it."""

    def confirm(self, partition: TopicPartition, leader_epoch: int | None) -> None:
        """Note that the replica of this node leads in this epoch; None: that it does not lead."""
        if leader_epoch is None:
            self._leading.pop(partition, None)
        else:
            self._leading[partition] = leader_epoch

    def forget_locations(self) -> None:
        """Report all of them again: the supervisor may not have received them."""
        self._locations.forget()

    def relocate(
        self,
        partitions: Iterable[TopicPartition],
        records: Mapping[TopicPartition, Versioned],
        live: DataIds,
    ) -> list[Effect]:
        """Report who answers for these partitions, and start or stop the actors that follow their leaders."""
        effects: list[Effect] = []
        locations: list[Location] = []
        for partition in list(partitions):
            versioned = records.get(partition)
            leads_here = self._leads(partition, versioned)
            specs = self._specs(partition)
            effects += self._follow(partition, specs, versioned, leads_here=leads_here)
            locations += self._locations.changes(
                partition, versioned, live, [spec.address for spec in specs], leads_here=leads_here
            )
        if locations:
            request = Locate(locations=tuple(locations))
            effects.append(Call(LocateCall(), SUPERVISOR, request, Done, timeout_ms=LOCATE_TIMEOUT_MS))
        return effects

    def _claimed_here(self, versioned: Versioned | None) -> bool:
        """Return True if the leader is a process of this start of the node, whether it is up or not."""
        claim = "" if versioned is None else versioned.record.claim
        return claim.rpartition("/")[0] == self._own.start_id

    def _leads(self, partition: TopicPartition, versioned: Versioned | None) -> bool:
        return (
            versioned is not None
            and versioned.record.leader == self._own.node
            and self._leading.get(partition) == versioned.record.leader_epoch
        )

    def _follow(
        self,
        partition: TopicPartition,
        all_specs: list[ChildSpec],
        versioned: Versioned | None,
        *,
        leads_here: bool,
    ) -> list[Effect]:
        """Start or stop the actors that follow this partition's leader.

        A controller that has just started stops those that an earlier one may have left here, unless the leader has
        been on this node since then: they would serve a state that is not theirs any more.
        """
        specs = all_specs if leads_here else []
        wanted = [spec.address for spec in specs]
        present = self._following.get(partition)
        if present is None:
            if not leads_here and self._claimed_here(versioned):
                return []
            present = [] if leads_here else [spec.address for spec in all_specs]
        if partition.topic in FOLLOWED:
            self._following[partition] = wanted
        if wanted == present:
            return []
        gone = [address for address in present if address not in wanted]
        new = [spec for spec in specs if spec.address not in present]
        return [*self._commands.stop(gone), *self._commands.start_here(new)]
