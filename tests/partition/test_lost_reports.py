"""Messages about a follower that nobody answers are lost: its leader learns the same soon, and producers hardly wait."""

import pytest

from planaria.actors.partition import follower
from planaria.actors.partition.in_sync import BEHIND_MS, DOWN_GRACE_MS, TICK_MS
from planaria.transport.protocol.data import Produce, ProduceReply
from planaria.transport.protocol.replication import ReplicaDurable, ReplicaReported
from simulated_replicas import CLIENT, ReplicaWorld, a_batch, ask, settle

STEP_MS = 50
LOOK_MS = BEHIND_MS + TICK_MS


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> ReplicaWorld:
    """Node a leads and always counts as busy, so that followers report their syncs with messages of their own."""
    monkeypatch.setattr(follower, "BUSY_BYTES", 1)
    found = ReplicaWorld(0)
    found.is_quiet = True
    found.claim()
    settle(found)
    return found


def lose(world: ReplicaWorld, kind: type) -> int:
    """Lose all messages of a kind that are on their way; return how many."""
    lost = 0
    for queue in world.links.values():
        for message in [each for each in queue if isinstance(each[3], kind)]:
            queue.remove(message)
            lost += 1
    return lost


def publish(world: ReplicaWorld) -> None:
    answer = ask(world.nodes["a"], Produce(topic="ORDERS", partition=0, acks="all"), a_batch(b"x"))
    assert answer is None, "it waits for the followers"


def is_acknowledged(world: ReplicaWorld) -> bool:
    return any(isinstance(message[3], ProduceReply) for message in world.links.get(("a", CLIENT), []))


def time_until_acknowledged(world: ReplicaWorld, limit_ms: int) -> int:
    began = world.now
    settle(world)
    while not is_acknowledged(world):
        assert world.now - began < limit_ms
        world.pass_time(STEP_MS)
        settle(world)
    return world.now - began


def deliver_batches(world: ReplicaWorld) -> None:
    """Let the followers get the batches of the turn, fetch again, and report their syncs."""
    for name in ("b", "c"):
        world._deliver("a", name)


def test_a_report_that_is_lost_alone_delays_an_acknowledgement_by_one_look(world: ReplicaWorld) -> None:
    publish(world)
    deliver_batches(world)
    assert lose(world, ReplicaDurable) == 2
    assert 0 < time_until_acknowledged(world, LOOK_MS + STEP_MS) <= LOOK_MS


def test_no_follower_is_looked_at_again_as_long_as_its_reports_arrive(world: ReplicaWorld) -> None:
    publish(world)
    assert time_until_acknowledged(world, STEP_MS) == 0
    for _ in range(5):
        world.pass_time(TICK_MS)
        assert not any(world.links.get(("a", name)) for name in ("b", "c")), "a fetch was answered"


def test_a_late_report_that_a_replica_has_ended_is_corrected_at_once(world: ReplicaWorld) -> None:
    """Its next process has fetched already, and would report nothing before the next record."""
    before = world.revision
    reported = ReplicaReported(topic="ORDERS", topic_id="t1", partition=0, replica="b", is_up=False)
    ask(world.nodes["a"], reported)
    settle(world)
    for _ in range(3 * DOWN_GRACE_MS // STEP_MS):
        world.pass_time(STEP_MS)
        settle(world)
    assert world.revision == before, "nothing was proposed"


def test_a_leader_that_starts_beside_a_dead_node_waits_for_no_replica_there(world: ReplicaWorld) -> None:
    """The report of the death went to the leader's process before, which has ended as well."""
    world.nodes["c"].crash()
    world.nodes["a"].crash()
    lose(world, ReplicaReported)
    world.nodes["a"].start()
    world.claim()
    settle(world)
    assert world.record.in_sync_nodes >= {"a", "b"}
    publish(world)
    assert time_until_acknowledged(world, 500) <= 200
    assert world.record.in_sync_nodes == {"a", "b"}
