"""Addresses of actors, and names of internal topics. They are stable while incarnations come and go. Pure.

An address outlives every process. The directory has its present endpoint (`endpoints.py` names those): nothing else
resolves an address, and nothing but this module reads its text.

    controller, supervisor, gateway,    kind
      http, console
    coordinator/GROUP, link/NODE,       kind, name
      mirror/NAME, door/PROTOCOL
    partition/TOPIC/N, replica/TOPIC/N, kind, name, number
      leader/TOPIC/N
    subscriber/GROUP/N, deployed/GROUP/N  kind, name, number
    gateway/N, scheduler/N,             kind, number
      transactions/N
"""

from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

INTERNAL_PREFIX = "__"
"""Prefix of the broker's own topics: clients may only read them."""
OFFSETS_TOPIC = "__offsets"
"""The internal topic in which coordinators keep their groups."""
DELAYED_TOPIC = "__delayed"
"""The internal topic in which schedulers keep delayed messages."""
TRANSACTIONS_TOPIC = "__transactions"
"""The internal topic in which the coordinators of transactions keep them."""

DIVERGED_PREFIX = "__diverged."
"""Prefix of topics with records of a former source, set aside when it rejoined the topic that was promoted."""

AUDIT_TOPIC = "__audit"
"""The internal topic with the records of administrative acts and of refusals."""

CACHED_ADDRESSES = 16_384
"""Addresses of partitions kept once they are made: a call needs one, and there are far fewer partitions than calls.
Those of coordinators are not kept, because any client may send any group."""


class Kind(StrEnum):
    """The kinds of actors. A supervisor takes children of any other kind as well."""

    PARTITION = "partition"
    """In a cluster the leader's address, wherever it is."""
    REPLICA = "replica"
    """In a cluster one node's copy of a partition."""
    LEADER = "leader"
    """The process of the leading replica, as its followers on other nodes reach it without a link."""
    COORDINATOR = "coordinator"
    SUBSCRIBER = "subscriber"
    DEPLOYED = "deployed"
    """A subscriber of a deployment, which the broker keeps by itself."""
    SCHEDULER = "scheduler"
    TRANSACTIONS = "transactions"
    GATEWAY = "gateway"
    MIRROR = "mirror"
    """Named by its mirror: it copies topics of another broker."""
    DOOR = "door"
    """Named by its protocol: it passes the connections of clients on to the gateway."""
    LINK = "link"
    """Named by its node: it passes requests between the nodes of a cluster."""
    HTTP = "http"
    """Serves metrics and probes over HTTP."""
    CONSOLE = "console"
    """Keeps the console running."""


_SUBSCRIBERS = (Kind.SUBSCRIBER, Kind.DEPLOYED)
_NAMED = frozenset(
    {
        *(Kind.PARTITION, Kind.REPLICA, Kind.LEADER),
        *(*_SUBSCRIBERS, Kind.COORDINATOR, Kind.LINK, Kind.MIRROR, Kind.DOOR),
    }
)
_NUMBERED = frozenset(
    {
        *(Kind.PARTITION, Kind.REPLICA, Kind.LEADER),
        *(*_SUBSCRIBERS, Kind.SCHEDULER, Kind.TRANSACTIONS, Kind.GATEWAY),
    }
)
_NAMED_OR_NUMBERED = _NAMED | _NUMBERED
_OF_GROUPS = frozenset({Kind.COORDINATOR, *_SUBSCRIBERS})


class TopicPartition(NamedTuple):
    """One partition of one topic: the key of every table by partition."""

    topic: str
    partition: int


class Address(str):
    """The name of an actor. It is its own text, so that logs, messages and tables take it as it is: `partition/T/0`.

    The text is made once. It compares and hashes as fast as any text.
    """

    __slots__ = ("kind", "name", "number")
    kind: str
    name: str
    number: int | None

    def __new__(cls, kind: str, name: str = "", number: int | None = None) -> "Address":
        text = f"{kind}/{name}" if name else kind
        address = super().__new__(cls, text if number is None else f"{text}/{number}")
        object.__setattr__(address, "kind", kind)
        object.__setattr__(address, "name", name)
        object.__setattr__(address, "number", number)
        return address

    @staticmethod
    def parse(text: str) -> "Address":
        """Return the address with this text. Raises ValueError if there is none."""
        kind, _, name = text.partition("/")
        number = None
        if name and kind in _NUMBERED:
            name, _, last = name.rpartition("/")
            number = int(last) if last.isascii() and last.isdigit() else None
        address = Address(kind, name, number)
        if not kind or address != text or not address._is_complete:
            raise ValueError(f"{text[:250]!r} is not the address of an actor")
        return address

    @property
    def _is_complete(self) -> bool:
        if self == GATEWAY or self.kind not in _NAMED_OR_NUMBERED:
            return True
        is_named, is_numbered = bool(self.name), self.number is not None
        return is_named == (self.kind in _NAMED) and is_numbered == (self.kind in _NUMBERED)

    @property
    def topic(self) -> str | None:
        """Topic of a partition; None for any other actor."""
        return self.name if self.kind == Kind.PARTITION else None

    @property
    def topic_partition(self) -> TopicPartition | None:
        """Topic and number of a partition; None for any other actor."""
        if self.kind != Kind.PARTITION:
            return None
        assert self.number is not None
        return TopicPartition(self.name, self.number)

    @property
    def replica_of(self) -> TopicPartition | None:
        """Topic and number of the partition of which this is a replica; None for any other actor."""
        if self.kind != Kind.REPLICA:
            return None
        assert self.number is not None
        return TopicPartition(self.name, self.number)

    @property
    def group(self) -> str | None:
        """Group of a coordinator or of a hosted subscriber; None for any other actor."""
        return self.name if self.kind in _OF_GROUPS else None

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("an address does not change")

    def __reduce__(self) -> tuple[Any, ...]:
        return Address, (self.kind, self.name, self.number)


def as_text(value: object) -> str:
    """Encode an address, for msgspec, which does not encode a subclass of `str` as it is."""
    if isinstance(value, Address):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be encoded")


def from_text(kind: type[Any], found: object) -> Address:
    """Decode an address, for msgspec. Raises ValueError."""
    assert kind is Address, kind
    if not isinstance(found, str):
        raise ValueError(f"Expected `str`, got `{type(found).__name__}`")
    return Address.parse(found)


SUPERVISOR = Address("supervisor")
CONTROLLER = Address("controller")
GATEWAY = Address(Kind.GATEWAY)
"""The public endpoint, as clients address it."""
HTTP = Address(Kind.HTTP)
CONSOLE = Address(Kind.CONSOLE)


@lru_cache(CACHED_ADDRESSES)
def partition_address(topic: str, partition: int) -> Address:
    return Address(Kind.PARTITION, topic, partition)


@lru_cache(CACHED_ADDRESSES)
def replica_address(topic: str, partition: int) -> Address:
    return Address(Kind.REPLICA, topic, partition)


def leader_address(topic: str, partition: int) -> Address:
    return Address(Kind.LEADER, topic, partition)


def link_address(node: str) -> Address:
    """Return the address of a node's link."""
    return Address(Kind.LINK, node)


def mirror_address(mirror: str) -> Address:
    return Address(Kind.MIRROR, mirror)


def coordinator_address(group: str) -> Address:
    return Address(Kind.COORDINATOR, group)


@lru_cache(CACHED_ADDRESSES)
def scheduler_address(number: int) -> Address:
    """Return the address of the scheduler that keeps its messages in this partition of `__delayed`."""
    return Address(Kind.SCHEDULER, number=number)


@lru_cache(CACHED_ADDRESSES)
def transactions_address(number: int) -> Address:
    """Return the address of the coordinator that keeps its transactions in this partition of `__transactions`."""
    return Address(Kind.TRANSACTIONS, number=number)


def subscriber_address(group: str, number: int) -> Address:
    return Address(Kind.SUBSCRIBER, group, number)


def deployed_address(group: str, number: int) -> Address:
    return Address(Kind.DEPLOYED, group, number)


def is_internal(topic: str) -> bool:
    return topic.startswith(INTERNAL_PREFIX)
