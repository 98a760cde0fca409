"""Monitors: the nodes that watch a node. Pure.

Each node is watched by at most `MONITORS` others, so that the messages between nodes grow with their number and not with
its square. Every node computes the same monitors from the same nodes, so nothing has to be agreed on.
"""

from collections.abc import Collection
from zlib import crc32

MONITORS = 6


def monitors_of(nodes: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return for each node the nodes that watch it: its next neighbours on both sides, on a ring in the order of a hash.

    Every node computes the same ones, and each watches as many as watch it. A ring by name would let one rack watch
    itself.
    """
    ring = sorted(nodes, key=lambda name: (crc32(name.encode()), name))
    half = MONITORS // 2
    monitors = {}
    for at, node in enumerate(ring):
        if len(ring) - 1 <= MONITORS:
            monitors[node] = tuple(other for other in ring if other != node)
        else:
            offsets = [*range(-half, 0), *range(1, half + 1)]
            monitors[node] = tuple(ring[(at + offset) % len(ring)] for offset in offsets)
    return monitors
