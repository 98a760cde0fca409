"""A leader whose disk is slow asks to be relieved by replicas whose disks are not, and by those alone."""

import pytest

from planaria.actors.partition.sync_times import MIN_SLOW, MIN_SYNCS, WINDOW_MS, SyncTimes
from planaria.transport.protocol.data import Produce
from planaria.transport.protocol.replication import Member
from simulated_replicas import SLOW_SYNC_MS, ReplicaWorld, a_batch, ask, settle

B, C = Member("b", "b1"), Member("c", "c1")


def times(own: list[int], b: list[int], c: list[int], limit_ms: int = 100) -> SyncTimes:
    found = SyncTimes(limit_ms)
    for now, sync_ms in enumerate(b):
        found.on_reported(B, sync_ms, now)
    for now, sync_ms in enumerate(c):
        found.on_reported(C, sync_ms, now)
    for now, sync_ms in enumerate(own):
        found.on_own(sync_ms, now)
    return found


GOOD, SLOW = [10] * MIN_SYNCS, [500] * MIN_SYNCS


@pytest.mark.parametrize(
    ("found", "successors"),
    [
        (times(SLOW, GOOD, GOOD), ["b", "c"]),
        (times(SLOW, GOOD, SLOW), ["b"]),
        (times(SLOW, SLOW, SLOW), []),
        (times(GOOD, GOOD, GOOD), []),
        (times([500] * (MIN_SLOW - 1), GOOD, GOOD), []),
        (times([10] * (100 * MIN_SLOW) + [500] * MIN_SLOW, GOOD, GOOD), []),
        (times([10] * 90 + [500] * MIN_SLOW, GOOD, GOOD), ["b", "c"]),
        (times(SLOW, GOOD[1:], []), []),
        (times(SLOW, GOOD, GOOD, 0), []),
        (times([*SLOW, 10], GOOD, GOOD), []),
    ],
)
def test_only_the_slow_disk_among_good_ones_is_relieved(found: SyncTimes, successors: list[str]) -> None:
    assert found.relief([B, C], 1_000) == successors


def test_a_leader_asks_once_a_window_and_forgets_what_is_older() -> None:
    found = times(SLOW, GOOD, GOOD)
    assert found.relief([B], 100) == ["b"]
    assert found.relief([B], 100 + WINDOW_MS - 1) == []
    later = 100 + WINDOW_MS
    found.on_own(500, later)
    assert found.relief([B], later) == [], "the earlier syncs are too old"


@pytest.mark.parametrize("slow", ["a", "b", "abc"])
def test_a_slow_disk_under_a_leader_is_noticed_by_its_syncs(slow: str) -> None:
    world = ReplicaWorld(0)
    world.is_quiet = True
    world.claim()
    settle(world)
    for name in slow:
        world.nodes[name].sync_ms = SLOW_SYNC_MS + 1
    for number in range(2 * MIN_SYNCS):
        ask(world.nodes["a"], Produce(topic="ORDERS", partition=0), a_batch(b"%d" % number))
        settle(world)
    assert world.reliefs == ([("a", ("b", "c"))] if slow == "a" else [])
