"""Capacity of the machine in actors: each system limit divided by one actor's consumption. Pure.

    limit                                     an actor takes                       kept back
    descriptors of the supervisor             DESCRIPTORS_PER_ACTOR                reserved_descriptors
    processes and threads (cgroup, user)      TASKS_PER_ACTOR                      RESERVED_TASKS
    memory available, or left to the cgroup   MEMORY_PER_ACTOR_BYTES               RESERVED_MEMORY_BYTES

The smallest quotient counts. Existing children may use all of it, new ones NEW_PERCENT of it: the rest is reserved for
restarting existing children after the machine has become smaller. measurement.py measures the limits; admission.py
applies the result.
"""

from msgspec import Struct

DESCRIPTORS_PER_ACTOR = 5
"""In the supervisor: the pidfd, the two pipes that multiprocessing keeps, the control connection, and the socket on
which that was accepted (transport/door.py)."""
CONTROL_DESCRIPTORS_PER_ACTOR = 2
OWN_DESCRIPTORS = 24
"""For the supervisor's own files and sockets, and a launch."""
OPERATORS_DESCRIPTORS = 24
"""For operators' connections to the control socket."""
BATCH_DESCRIPTORS = 128
"""Connections that are accepted together, at most (`MAX_BACKLOG` in transport/door.py)."""
TASKS_PER_ACTOR = 3
"""The actor and the two threads of its ZeroMQ context."""
RESERVED_TASKS = 64
MEMORY_PER_ACTOR_BYTES = 6_500_000
"""Private memory of an idle actor, as `planaria bench` measures it."""
RESERVED_MEMORY_BYTES = 64 * 1024 * 1024
NEW_PERCENT = 90


class SystemLimits(Struct, frozen=True, kw_only=True):
    """System limits of this broker, measured when it starts. None: unlimited, or unknown."""

    descriptors: int | None = None
    """Maximum of open descriptors per process."""
    tasks: int | None = None
    """Processes and threads that may still be created."""
    memory_bytes: int | None = None
    """Available memory."""


class Capacity(Struct, frozen=True):
    """Maximum number of children, including the fixed ones."""

    actors: int
    limit: str
    """Limit that determines the maximum, with its value, for the error."""

    @property
    def new_actors(self) -> int:
        """Maximum number of children when a new one is added."""
        return self.actors * NEW_PERCENT // 100


UNLIMITED = Capacity(2**31, "no limit")


def reserved_descriptors(descriptors: int) -> int:
    """Return the descriptors of the supervisor that are kept back. A batch is an eighth of the control socket's limit,
    which is two fifths of all."""
    batch = min(BATCH_DESCRIPTORS, descriptors // 20 + OPERATORS_DESCRIPTORS // 8 + 1)
    return OWN_DESCRIPTORS + OPERATORS_DESCRIPTORS + batch


def control_connections(limits: SystemLimits) -> int:
    """Return the limit of the control socket: a connection from each actor, and some from operators."""
    if limits.descriptors is None:
        return UNLIMITED.actors
    return CONTROL_DESCRIPTORS_PER_ACTOR * _actors_by_descriptors(limits.descriptors) + OPERATORS_DESCRIPTORS


def _actors_by_descriptors(descriptors: int) -> int:
    return max(0, descriptors - reserved_descriptors(descriptors)) // DESCRIPTORS_PER_ACTOR


def capacity_of(limits: SystemLimits, max_actors: int = 0) -> Capacity:
    """Return the smallest of all capacities; `max_actors` (0: none) is the operator's own limit."""
    found = [UNLIMITED]
    if limits.descriptors is not None:
        room = _actors_by_descriptors(limits.descriptors)
        found.append(Capacity(room, f"descriptors, {limits.descriptors} a process (RLIMIT_NOFILE)"))
    if limits.tasks is not None:
        room = (limits.tasks - RESERVED_TASKS) // TASKS_PER_ACTOR
        found.append(
            Capacity(max(0, room), f"processes and threads, {limits.tasks} left (pids, RLIMIT_NPROC)")
        )
    if limits.memory_bytes is not None:
        room = (limits.memory_bytes - RESERVED_MEMORY_BYTES) // MEMORY_PER_ACTOR_BYTES
        found.append(Capacity(max(0, room), f"memory, {limits.memory_bytes >> 20} MiB available"))
    if max_actors:
        found.append(Capacity(max_actors, "the option max_actors"))
    return min(found, key=lambda capacity: capacity.actors)
