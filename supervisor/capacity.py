"""How many actors the machine can run: each limit of the system divided by what one actor takes of it. Pure.

    limit                                     an actor takes                       kept back
    descriptors of the supervisor             DESCRIPTORS_PER_ACTOR                RESERVED_DESCRIPTORS
    processes and threads (cgroup, user)      TASKS_PER_ACTOR                      RESERVED_TASKS
    memory available, or left to the cgroup   MEMORY_PER_ACTOR_BYTES               RESERVED_MEMORY_BYTES

The smallest quotient counts. Children that exist already may use all of it, new ones NEW_PERCENT of it: the rest is for
starting again what exists, after the machine has become smaller. What measures is measurement.py; admission.py decides
by the result.
"""

from msgspec import Struct

DESCRIPTORS_PER_ACTOR = 4
"""Of the supervisor: the pidfd, the two pipes that multiprocessing keeps, the control connection."""
RESERVED_DESCRIPTORS = 64
"""For the supervisor's own files and sockets, a launch, questions of operators."""
TASKS_PER_ACTOR = 3
"""The actor and the two threads of its ZeroMQ context."""
RESERVED_TASKS = 64
MEMORY_PER_ACTOR_BYTES = 6_000_000
"""What an idle actor has for itself, as `planaria bench` measures it."""
RESERVED_MEMORY_BYTES = 64 * 1024 * 1024
NEW_PERCENT = 90


class SystemLimits(Struct, frozen=True, kw_only=True):
    """What the system gives to this broker, measured when it starts. None: unlimited, or not known."""

    descriptors: int | None = None
    """A process may have open."""
    tasks: int | None = None
    """Processes and threads that may still be made."""
    memory_bytes: int | None = None
    """That are available."""


class Capacity(Struct, frozen=True):
    """How many children there may be, the fixed ones included."""

    actors: int
    limit: str
    """Which limit that comes from, with its value, for the error."""

    @property
    def new_actors(self) -> int:
        """How many there may be after a new one has been added."""
        return self.actors * NEW_PERCENT // 100


UNLIMITED = Capacity(2**31, "no limit")


def capacity_of(limits: SystemLimits, max_actors: int = 0) -> Capacity:
    """The smallest of all capacities; `max_actors` (0: none) is the operator's own."""
    found = [UNLIMITED]
    if limits.descriptors is not None:
        room = (limits.descriptors - RESERVED_DESCRIPTORS) // DESCRIPTORS_PER_ACTOR
        found.append(Capacity(max(0, room), f"descriptors, {limits.descriptors} a process (RLIMIT_NOFILE)"))
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
