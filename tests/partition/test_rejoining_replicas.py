"""Replicas of a partition that rejoins the topic that was promoted in its place: random histories, and single cases."""

from typing import Any

import pytest

from planaria.actors.partition.follower import CommittedRecordsMissing
from planaria.transport.protocol.data import Produce
from planaria.transport.protocol.errors import ErrorCode
from planaria.transport.protocol.mirrored import FORK_EPOCHS, Cut, Fork, TopicMirror
from planaria.transport.protocol.mirrors import RejoinPartition
from simulated_mirrored_replicas import NAMES
from simulated_rejoining_replicas import simulate_rejoining
from simulated_replicas import NODES, ReplicaWorld, a_batch, ask

FOUND = (11, 18)
"""Seeds that find a mirror which goes on with another one's fail-back and forgets its cuts."""
FORK = Fork(partition=0, offset=2, leader_epoch=1, first_epoch=1_001)
REJOINS = TopicMirror(mirror="m", state="rejoining", source_forks=(FORK,))
CUT = Cut(partition=0, offset=2, end_offset=6, last_epoch=9)
CUTS = TopicMirror(mirror="m", state="rejoining", source_forks=(FORK,), cuts=(CUT,))
FOLLOWS = TopicMirror(mirror="m", source_forks=(FORK,), given_up=(CUT,))


@pytest.mark.parametrize("seed", [*FOUND, *range(6)])
def test_every_record_is_set_aside_before_it_is_cut_on_all_replicas(seed: int) -> None:
    simulate_rejoining(seed)


@pytest.mark.chaos
def test_many_random_histories() -> None:
    for seed in range(2_000):
        try:
            simulate_rejoining(seed)
        except BaseException as error:
            raise AssertionError(f"simulate_rejoining({seed})") from error


@pytest.fixture
def world() -> ReplicaWorld:
    """Return three replicas with six records, led by node a, which do not know of any mirror yet."""
    world = ReplicaWorld(0)
    world.is_quiet = True
    world.claim()
    rest(world)
    for number in range(6):
        ask(world.nodes["a"], Produce(topic="ORDERS", partition=0), a_batch(b"%d" % number))
        world._drain()
    # These records are cut as if they had been set aside.
    world.checks.after_step = lambda: None  # type: ignore[method-assign]
    world.checks.committed.clear()
    return world


def ends(world: ReplicaWorld) -> list[int]:
    return [world.nodes[name].disk.end_offset for name in NODES]


def give(world: ReplicaWorld, mirror: TopicMirror, *names: str) -> None:
    world.mirror = mirror
    for name in names:
        world.assign(name)
    rest(world)


def rest(world: ReplicaWorld) -> None:
    """Let followers that were refused fetch again."""
    for _ in range(3):
        world._drain()
        world.pass_time(1_000)
    world._drain()


def answered(world: ReplicaWorld, mirror: TopicMirror) -> Any:
    return ask(world.nodes["a"], RejoinPartition(**NAMES, mirror=mirror))


def rejoining(world: ReplicaWorld) -> None:
    give(world, REJOINS, *NODES)
    world.claim()
    rest(world)


def test_a_leader_that_does_not_know_that_its_topic_rejoins_does_not_answer(world: ReplicaWorld) -> None:
    """It takes producers still: the records that it names now would not be all."""
    assert answered(world, REJOINS).code == ErrorCode.PARTITION_OFFLINE
    give(world, REJOINS, *NODES)
    assert world.nodes["a"].machine._role.name == "undecided"
    world.claim()
    rest(world)
    reply = answered(world, REJOINS)
    assert (reply.cut_offset, reply.log_end_offset, reply.is_done) == (2, 6, False)
    refused = ask(world.nodes["a"], Produce(topic="ORDERS", partition=0), a_batch(b"x"))
    assert refused.code == ErrorCode.TOPIC_IS_MIRRORED


def test_nothing_is_named_before_all_replicas_in_sync_hold_the_log(world: ReplicaWorld) -> None:
    rejoining(world)
    world.nodes["c"].crash()
    world._drain()
    assert answered(world, REJOINS).code == ErrorCode.PARTITION_OFFLINE


def test_the_leader_cuts_in_a_later_epoch_and_the_others_follow(world: ReplicaWorld) -> None:
    rejoining(world)
    before = world.record.leader_epoch
    give(world, CUTS, *NODES)
    assert world.nodes["a"].machine._role.name == "undecided"
    world.claim()
    rest(world)
    assert world.record.leader_epoch > before
    assert ends(world) == [2, 2, 2]
    assert answered(world, CUTS).is_done


@pytest.mark.parametrize("known", [REJOINS, None], ids=["the topic rejoins", "nothing"])
@pytest.mark.parametrize("found", [CUTS, FOLLOWS], ids=["cutting", "following"])
def test_a_follower_that_does_not_know_of_the_cut_learns_it_from_its_leader(
    world: ReplicaWorld, known: TopicMirror | None, found: TopicMirror
) -> None:
    rejoining(world)
    give(world, CUTS, "a", "b")
    world.cut |= {("a", "c"), ("controller", "c")}
    world.claim()
    rest(world)
    give(world, found, "a", "b")
    assert ends(world) == [2, 2, 6]
    world.cut.clear()
    world.links["controller", "c"].clear()
    give(world, known, "c")  # type: ignore[arg-type]
    assert ends(world) == [2, 2, 2]


def test_a_leader_with_more_than_was_set_aside_is_not_cut(world: ReplicaWorld) -> None:
    rejoining(world)
    cuts = TopicMirror(
        mirror="m",
        state="rejoining",
        source_forks=(FORK,),
        cuts=(Cut(partition=0, offset=2, end_offset=3, last_epoch=9),),
    )
    give(world, cuts, *NODES)
    world.claim()
    rest(world)
    assert ends(world) == [6, 6, 6]
    assert not answered(world, cuts).is_done


@pytest.mark.parametrize("given_up", [(CUT,), ()], ids=["cut", "not cut"])
def test_a_replica_that_was_away_is_cut_when_the_topic_follows(
    world: ReplicaWorld, given_up: tuple[Cut, ...]
) -> None:
    """Without a fail-back that has set its records aside it ends, so that nothing is lost silently."""
    rejoining(world)
    give(world, CUTS, "a", "b")
    world.cut |= {("a", "c"), ("controller", "c")}
    world.claim()
    rest(world)
    mirror = TopicMirror(mirror="m", source_forks=(FORK,), given_up=given_up)
    give(world, mirror, "a", "b")
    assert ends(world) == [2, 2, 6]
    world.cut.clear()
    world.assign("c")
    if given_up:
        world._drain()
        assert ends(world) == [2, 2, 2]
    else:
        with pytest.raises(CommittedRecordsMissing, match="from offset 2 to"):
            world._drain()


def test_records_of_the_promoted_topic_are_never_given_up() -> None:
    assert CUT.gives_up(2, 9)
    assert not CUT.gives_up(2, 10)
    assert not CUT.gives_up(1, 1)


def test_a_copy_that_is_promoted_leads_in_later_epochs_than_its_source_has_had() -> None:
    """It has copied none of the records that its source wrote after its own promotion."""
    assert TopicMirror(mirror="m").epoch_after(0, 1) == 1 + FORK_EPOCHS
    assert FOLLOWS.epoch_after(0, 1) == 1_001 + FORK_EPOCHS
    assert FOLLOWS.epoch_after(0, 1_500) == 1_500 + FORK_EPOCHS
