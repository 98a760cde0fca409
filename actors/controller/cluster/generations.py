"""The generation of this node's directory while the node runs: raised now and then, first there, then in the store. Pure.

Called by the cluster's part of the controller. `disk.py` has the reason, and the comparison at the start.
"""

from collections.abc import Iterator

from ...metadata.store import ABSENT, Guard, Propose
from .disk import GENERATION_INTERVAL_MS, DiskState, KeepDisk
from .mirror import Mirror, disk_key, put
from .proposals import Generation, Proposals


class Generations:
    def __init__(self, node: str, disk: DiskState | None, mirror: Mirror, proposals: Proposals) -> None:
        """`disk` is the state in the directory; without one nothing is done."""
        self._key = disk_key(node)
        self._node = node
        self._disk = disk
        self._mirror = mirror
        self._proposals = proposals
        self._next_at: int | None = None

    def age(self, now: int) -> Iterator[KeepDisk]:
        """Raise the generation in the directory, if it is time to and the store has the present one."""
        if self._next_at is None:
            self._next_at = now + GENERATION_INTERVAL_MS
        if self._disk is not None and now >= self._next_at and self._is_known:
            self._next_at = now + GENERATION_INTERVAL_MS
            yield KeepDisk(self._disk.next)

    def on_kept(self, state: DiskState) -> None:
        self._disk = state

    def due(self) -> Iterator[Propose]:
        """Write the generation to the store, unless it has it."""
        if self._disk is None or self._is_known or self._proposals.is_open(Generation):
            return
        known = self._mirror.disks.get(self._node)
        guard = Guard(self._key, ABSENT if known is None else known[1])
        yield self._proposals.propose(Generation(), (put(self._key, self._disk.record),), (guard,))

    @property
    def _is_known(self) -> bool:
        known = self._mirror.disks.get(self._node)
        return self._disk is not None and known is not None and known[0] == self._disk.record
