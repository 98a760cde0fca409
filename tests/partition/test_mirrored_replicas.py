"""Replicas of a partition that follows one of another broker: random histories, and epochs."""

from typing import Any

import pytest

from planaria.actors.partition.follower import CommittedRecordsMissing
from planaria.transport.batch import stamp
from planaria.transport.protocol.data import Produce
from planaria.transport.protocol.mirrored import FORK_EPOCHS, Fork, TopicMirror
from planaria.transport.protocol.mirrors import MirrorAppend, SealMirror, SealMirrorReply
from planaria.transport.protocol.replication import Follow, Lead, Member
from simulated_mirrored_replicas import NAMES, simulate_mirrored
from simulated_replicas import CLIENT, NODES, ReplicaWorld, a_batch, address_of, ask, settle

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
    fork = Fork(partition=0, offset=0, leader_epoch=5_000, first_epoch=5_000 + FORK_EPOCHS)
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


def test_a_sealed_copy_names_its_fork_when_the_last_replica_has_reported_in_the_present_epoch() -> None:
    """The log is committed already, so the reports do not move the high watermark."""
    world = ReplicaWorld(0, TopicMirror(mirror="m"))
    world.is_quiet = True
    world.claim()
    settle(world)
    assert len(world.record.in_sync) == len(NODES)
    world.used_epoch = world.record.leader_epoch
    world.claim()
    while world.links["controller", "a"]:
        world._deliver("controller", "a")
    assert ask(world.nodes["a"], SealMirror(**NAMES)) is None
    settle(world)
    answers = [message[3] for message in world.links["a", CLIENT]]
    assert [answer.leader_epoch for answer in answers if isinstance(answer, SealMirrorReply)] == [
        world.record.leader_epoch
    ]


@pytest.mark.parametrize("unclean", [(), (8,)], ids=["none", "an unclean election"])
def test_records_of_a_source_are_given_up_after_an_unclean_election_whatever_their_epochs(
    unclean: tuple[int, ...],
) -> None:
    """Node b knows records of epoch 5,000 as committed. Node c lacks them, and leads in epoch 9."""
    world = ReplicaWorld(0, TopicMirror(mirror="m"))
    world.is_quiet = True
    world.claim()
    settle(world)
    frames = [bytes(stamp(a_batch(b"%d" % offset), offset, 5_000)) for offset in range(3)]
    for offset, frame in enumerate(frames):
        ask(world.nodes["a"], MirrorAppend(**NAMES, offset=offset), frame)
        settle(world)
    holder, elected = world.nodes["b"], world.nodes["c"]
    world.nodes["a"].crash()
    elected.crash()
    elected.disk.batches, elected.disk.durable, elected.disk.snapshot = [], 0, None
    world.checks.after_step = lambda: None  # type: ignore[method-assign]
    elected.start()
    common: Any = {**NAMES, "leader_epoch": 9, "revision": 9, "unclean_epochs": unclean}
    data_ids = {name: f"{name}1" for name in NODES}
    member = (Member("c", "c1"),)
    assert ask(elected, Lead(**common, replicas=data_ids, in_sync=member)).role == "leader"
    ask(elected, MirrorAppend(**NAMES, offset=0), frames[0])
    ask(holder, Follow(**common, leader="c", address=address_of("c")))
    if not unclean:
        with pytest.raises(CommittedRecordsMissing, match="from offset 1 to 1"):
            settle(world)
        return
    settle(world)
    assert [frame for _, frame in holder.disk.batches] == frames[:1]
    ask(elected, MirrorAppend(**NAMES, offset=1), *frames[1:])
    settle(world)
    assert [frame for _, frame in holder.disk.batches] == frames
