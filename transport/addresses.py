"""What actors and internal topics are called: the stable names behind which incarnations come and go. Pure.

An address outlives every process; where it can be reached at the moment is in the directory (`endpoints.py` names that).
"""

SUPERVISOR = "supervisor"
CONTROLLER = "controller"

INTERNAL_PREFIX = "__"
"""Topics whose names begin with it are the broker's own: clients may read them and nothing else."""
OFFSETS_TOPIC = "__offsets"
"""The internal topic in which coordinators keep their groups."""


def partition_address(topic: str, partition: int) -> str:
    return f"partition/{topic}/{partition}"


def coordinator_address(group: str) -> str:
    return f"coordinator/{group}"


def topic_of(address: str) -> str | None:
    """The topic of a partition's address, None for any other actor."""
    kind, _, rest = address.partition("/")
    return rest.rpartition("/")[0] if kind == "partition" else None


def is_internal(topic: str) -> bool:
    return topic.startswith(INTERNAL_PREFIX)
