"""The room for more actors, checked before a decision that needs them. Pure.

Counts the actors that the catalog requires, without sleeping ones, and the hosted subscribers that are up, which only
the supervisor knows. A decision is never refused later: the supervisor quarantines actors that do not fit.
"""

from ...transport.addresses import DELAYED_TOPIC, TRANSACTIONS_TOPIC, Address, Kind
from ...transport.protocol.errors import ErrorCode, ProtocolError
from .catalog import Catalog
from .peers import Peers

MAX_PARTITIONS = 10_000
"""Maximum of all topics together, on any machine."""
MAX_GROUPS = 5_000
FIXED_ACTORS = 2
"""The controller and the gateway."""


class Room:
    def __init__(self, peers: Peers, max_actors: int, limit: str) -> None:
        self._peers = peers
        self._max_actors = max_actors
        self._limit = limit

    def check_partitions(self, catalog: Catalog, more: int) -> None:
        """Raises ProtocolError when there is no room for this many more partitions."""
        _check(sum(entry.partitions for entry in catalog.topics.values()), more, MAX_PARTITIONS, "partitions")
        self.check(catalog, more)

    def check_group(self, catalog: Catalog, more_partitions: int) -> None:
        """Raises ProtocolError when there is no room for one more group, and the partitions that it needs."""
        _check(len(catalog.groups), 1, MAX_GROUPS, "groups")
        self.check(catalog, 1 + more_partitions)

    def check(self, catalog: Catalog, more: int) -> None:
        """Raises ProtocolError when there is no room for this many more actors."""
        if more <= 0:
            return
        actors = actors_of(catalog) + sum(is_hosted(address) for address in self._peers.all_up())
        actors -= len(self._peers.asleep)
        if actors + more > self._max_actors:
            raise ProtocolError(
                ErrorCode.LIMIT_REACHED,
                f"{more} more actors: there are {actors}, and the limits of this machine allow {self._max_actors}: "
                f"{self._limit}",
            )


def actors_of(catalog: Catalog) -> int:
    """Return the number of actors that the catalog requires."""
    partitions = sum(entry.partitions for entry in catalog.topics.values())
    internal_actors = sum(
        catalog.topics[topic].partitions
        for topic in (DELAYED_TOPIC, TRANSACTIONS_TOPIC)
        if topic in catalog.topics
    )
    return FIXED_ACTORS + partitions + internal_actors + len(catalog.groups)


def is_hosted(address: Address) -> bool:
    return address.kind in (Kind.SUBSCRIBER, Kind.DEPLOYED)


def _check(there: int, more: int, limit: int, what: str) -> None:
    if there + more > limit and more > 0:
        raise ProtocolError(
            ErrorCode.LIMIT_REACHED, f"{what}: there are {there}, and a broker has at most {limit} in total"
        )
