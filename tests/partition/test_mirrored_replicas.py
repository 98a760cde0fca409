"""Replicas of a partition that follows one of another broker: random histories, and epochs."""

import pytest

from planaria.transport.protocol.data import Produce
from planaria.transport.protocol.mirrored import FORK_EPOCHS, Fork, TopicMirror
from simulated_mirrored_replicas import simulate_mirrored
from simulated_replicas import ReplicaWorld, a_batch, ask, settle

FOUND = (24, 610, 950)
"""Seeds that have found faults: a fork of a leader that was replaced, of a set below its minimum, and before a replica
with more than the leader had been cut."""


@pytest.mark.parametrize("seed", [*FOUND, *range(5)])
def test_the_copy_and_the_fork_are_the_same_on_all_replicas(seed: int) -> None:
    simulate_mirrored(seed)


@pytest.mark.chaos
def test_many_random_histories() -> None:
    for seed in range(1_000):
        try:
            simulate_mirrored(seed)
        except BaseException as error:
            raise AssertionError(f"simulate_mirrored({seed})") from error


def test_a_promoted_partition_asks_for_an_epoch_beyond_those_of_its_source() -> None:
    """Its controller has not to know which: it claims one above the epoch that the process names."""
    world = ReplicaWorld(0, TopicMirror(mirror="m"))
    world.is_quiet = True
    world.claim()
    settle(world)
    before = world.record.leader_epoch
    fork = Fork(partition=0, offset=0, leader_epoch=5_000)
    world.mirror = TopicMirror(mirror="m", state="promoted", forks=(fork,))
    world.claim()
    world._drain()
    assert world.used_epoch == 5_000 + FORK_EPOCHS - 1
    world.claim()
    settle(world)
    assert world.record.leader_epoch == 5_000 + FORK_EPOCHS > before
    ask(world.nodes["a"], Produce(topic="ORDERS", partition=0), a_batch(b"own"))
    settle(world)
    assert [header.leader_epoch for header, _ in world.nodes["b"].disk.batches] == [5_000 + FORK_EPOCHS]
