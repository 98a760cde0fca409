"""Names of actors and internal topics. They are stable while incarnations come and go. Pure.

An address outlives every process. The directory has its present endpoint (`endpoints.py` names those).
"""

from typing import NamedTuple

SUPERVISOR = "supervisor"
CONTROLLER = "controller"
GATEWAY = "gateway"
"""The public endpoint, as clients address it."""
TRANSACTIONS_PREFIX = "transactions/"
_COORDINATOR_PREFIX = "coordinator/"

INTERNAL_PREFIX = "__"
"""Prefix of the broker's own topics: clients may only read them."""
OFFSETS_TOPIC = "__offsets"
"""The internal topic in which coordinators keep their groups."""
DELAYED_TOPIC = "__delayed"
"""The internal topic in which schedulers keep delayed messages."""
TRANSACTIONS_TOPIC = "__transactions"
"""The internal topic in which the coordinators of transactions keep them."""


class TopicPartition(NamedTuple):
    """One partition of one topic: the key of every table by partition."""

    topic: str
    partition: int


def partition_address(topic: str, partition: int) -> str:
    return f"partition/{topic}/{partition}"


def coordinator_address(group: str) -> str:
    return _COORDINATOR_PREFIX + group


def coordinator_group(address: str) -> str | None:
    """Return the group of a coordinator's address, None for any other actor."""
    return address.removeprefix(_COORDINATOR_PREFIX) if address.startswith(_COORDINATOR_PREFIX) else None


def scheduler_address(number: int) -> str:
    """Return the address of the scheduler that keeps its messages in this partition of `__delayed`."""
    return f"scheduler/{number}"


def transactions_address(number: int) -> str:
    """Return the address of the coordinator that keeps its transactions in this partition of `__transactions`."""
    return f"{TRANSACTIONS_PREFIX}{number}"


def subscriber_address(group: str, number: int) -> str:
    return f"subscriber/{group}/{number}"


def subscriber_group(address: str) -> str | None:
    """Return the group in a hosted subscriber's address, None for any other actor."""
    kind, _, rest = address.partition("/")
    return rest.rpartition("/")[0] if kind == "subscriber" else None


def topic_partition_of(address: str) -> TopicPartition | None:
    """Return the topic and partition of a partition's address, None for any other actor."""
    kind, _, rest = address.partition("/")
    if kind != "partition":
        return None
    topic, _, number = rest.rpartition("/")
    return TopicPartition(topic, int(number))


def topic_of(address: str) -> str | None:
    """Return the topic of a partition's address, None for any other actor."""
    tp = topic_partition_of(address)
    return None if tp is None else tp[0]


def is_internal(topic: str) -> bool:
    return topic.startswith(INTERNAL_PREFIX)
