"""The controllers of a cluster over two faults in a row: each schedule is drawn from a seed, and has a limit of time.

The second fault comes while the cluster is occupied with the first, or a topic has just been created. As long as a node
lives that has every committed record, partitions are led again long before a session ends.
"""

import os
from collections.abc import Callable
from itertools import product
from typing import Any

import msgspec
import pytest

from planaria.actors.controller.cluster import deciding, elections, local_replicas, operators
from planaria.actors.controller.cluster.assignments import Assignments, RequiredTopic
from planaria.actors.controller.cluster.operators import Situation
from planaria.actors.controller.cluster.records import PartitionRecord
from planaria.actors.controller.cluster.suspicion import Suspicion
from planaria.transport.addresses import TopicPartition
from planaria.transport.machine import Sender
from planaria.transport.protocol.cluster import ElectLeader
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.message import Done
from simulated_cluster import LEASE_MS, SimulatedCluster, steady, time_until_led

SEEDS = int(os.environ.get("PLANARIA_CLUSTER_SEEDS", "15"))
MOMENTS_MS = (20, 40, 60, 100, 200, 500, 1_000)
FAILOVER_MS = 3_000
T0 = TopicPartition("T", 0)


def lose(world: SimulatedCluster, name: str) -> None:
    """Kill or freeze a node."""
    if world.random.random() < 0.5:
        world.kill(name)
    else:
        world.nodes[name].is_frozen = True


def lose_a_process(world: SimulatedCluster) -> None:
    running = [node for node in world.nodes.values() if node.runs and node.running]
    if running:
        node = world.random.choice(running)
        node.process_dies(world.random.choice(list(node.running)))


def lose_a_node_around_a_creation(seed: int) -> None:
    """Create a topic, a moment before or after a node is lost, and lose perhaps a process of another node."""
    world = steady(seed, partitions=3)
    choose = world.random
    victim = choose.choice(list(world.nodes))
    minimum = choose.choice((1, 2))
    is_created_first = choose.random() < 0.7
    if is_created_first:
        world.create("U", 6, minimum=minimum)
        while not any(partition.topic == "U" for partition in world.truth.partitions):
            world.run(20)
        if minimum > 1:  # or else a process that leads may acknowledge alone
            world.run(20 * choose.randrange(60))
    lose(world, victim)
    world.run(choose.choice(MOMENTS_MS))
    if not is_created_first:
        world.create("U", 6, minimum=minimum)
        world.run(20)
    if choose.random() < 0.5:
        lose_a_process(world)
    assert time_until_led(world, FAILOVER_MS) < FAILOVER_MS
    assert victim in world.truth.sessions


def lose_a_node_beside_one_that_returns(seed: int) -> SimulatedCluster:
    """Start a node that was killed, and lose another one, a moment later."""
    world = steady(seed)
    choose = world.random
    back, victim, _ = choose.sample(sorted(world.nodes), 3)
    world.kill(back)
    time_until_led(world, FAILOVER_MS)
    world.run(choose.choice((500, 2_000, 6_000)))
    world.start(back)
    world.run(choose.choice(MOMENTS_MS))
    lose(world, victim)
    assert time_until_led(world, FAILOVER_MS) < FAILOVER_MS
    return world


def lose_all_replicas_but_one_that_missed_records(seed: int) -> None:
    """Order an unclean election just after the death of the leader, on a node that knows nothing of its death."""
    world = steady(seed, partitions=1)
    choose = world.random
    record = world.truth.partitions[T0].record
    back = choose.choice(record.replicas[1:])
    world.kill(back)
    world.run(2_000)
    for name in choose.sample([name for name in world.nodes if name != back], 2):
        world.kill(name)
        world.run(choose.choice((*MOMENTS_MS, 6_000)))
    world.start(back)
    order = ElectLeader(topic="T", partition=0, unclean=True)
    world.permits_unclean = True
    node, began = world.nodes[back], world.now
    while not (_has_unclean_epochs(world) or any(answer.body == Done() for answer in node.answers)):
        node.perform(node.cluster.operations.operate(Sender((b"operator",), 1), order, "prod"))
        world.run(choose.choice((100, 1_000)))
        assert world.now - began < 15_000
    assert time_until_led(world, FAILOVER_MS) < FAILOVER_MS


def quarantine_a_leader_that_is_alone_in_sync(seed: int, minimum: int) -> tuple[SimulatedCluster, str]:
    """It is quarantined while the others are away, which are there again now."""
    world = SimulatedCluster(seed)
    world.create("T", 1, minimum=minimum)
    world.run(3_000)
    choose = world.random
    leader = world.truth.partitions[T0].record.leader
    others = [name for name in world.nodes if name != leader]
    for name in others:
        world.kill(name)
    world.run(LEASE_MS + 3_000)
    assert [member.node for member in world.truth.partitions[T0].record.in_sync] == [leader]
    node = world.nodes[leader]
    node.process_dies(T0, is_quarantined=True)
    node.running.pop(T0)  # it does not start again
    for name in others:
        world.start(name)
        world.run(choose.choice(MOMENTS_MS))
    while len(node.cluster.live) < len(world.nodes):
        world.run(20)
    return world, leader


def lead_without_a_quarantined_leader(seed: int) -> None:
    """The others are eligible: nothing was committed without them."""
    world, leader = quarantine_a_leader_that_is_alone_in_sync(seed, minimum=2)
    assert time_until_led(world, FAILOVER_MS) < FAILOVER_MS
    record = world.truth.partitions[T0].record
    assert record.leader != leader
    assert not record.unclean_epochs


def order_a_leader_in_place_of_a_quarantined_one(seed: int) -> None:
    """The others may lack records. The order is given at the quarantined leader's node, and answers may be lost."""
    world, leader = quarantine_a_leader_that_is_alone_in_sync(seed, minimum=1)
    node, choose = world.nodes[leader], world.random
    order = ElectLeader(topic="T", partition=0, unclean=True)
    world.permits_unclean = True
    began = world.now
    while not any(answer.body == Done() for answer in node.answers):
        for answer in node.answers:
            assert not isinstance(answer.body, ErrorBody) or answer.body.retriable, answer.body
        node.perform(node.cluster.operations.operate(Sender((b"operator",), 1), order, "prod"))
        world.run(choose.choice((100, 1_000)))
        assert world.now - began < 15_000
    assert time_until_led(world, FAILOVER_MS) < FAILOVER_MS
    assert world.truth.partitions[T0].record.leader != leader


def restart_beside_a_dead_node(seed: int) -> None:
    """Kill two of three nodes and start one again: its link knows nothing of the other, and reports come late."""
    world = steady(seed)
    choose = world.random
    back, gone = killed = choose.sample(sorted(world.nodes), 2)
    choose.shuffle(killed)
    for name in killed:
        world.kill(name)
        world.run(choose.choice((20, 500, 1_000)))
    world.start(back)
    for _ in range(4):
        world.run(choose.choice((100, 200, 600, 1_000)))
        for route in product(world.nodes, world.nodes):
            if world.nodes[route[0]].runs and route not in world.delays and choose.random() < 0.7:
                world.delay(*route, choose.choice((400, 3_000)))
    world.run(8_000)
    assert gone not in world.truth.sessions


def _has_unclean_epochs(world: SimulatedCluster) -> bool:
    """Return True if the election was made, though its answer was lost."""
    return any(versioned.record.unclean_epochs for versioned in world.truth.partitions.values())


@pytest.mark.parametrize("seed", range(SEEDS))
def test_partitions_of_a_new_topic_wait_for_no_node_that_is_lost_around_its_creation(seed: int) -> None:
    lose_a_node_around_a_creation(seed)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_node_is_lost_while_another_one_returns(seed: int) -> None:
    lose_a_node_beside_one_that_returns(seed)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_an_unclean_election_that_is_answered_is_made(seed: int) -> None:
    lose_all_replicas_but_one_that_missed_records(seed)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_quarantined_leader_that_is_alone_in_sync_hands_over_to_an_eligible_replica(seed: int) -> None:
    lead_without_a_quarantined_leader(seed)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_quarantined_leader_does_not_keep_an_operator_from_an_unclean_election(seed: int) -> None:
    order_a_leader_in_place_of_a_quarantined_one(seed)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_dead_node_is_suspected_until_its_session_ends(seed: int) -> None:
    restart_beside_a_dead_node(seed)


def _without_eligible(self: Assignments, topic: RequiredTopic, replicas: tuple[str, ...]) -> PartitionRecord:
    return msgspec.structs.replace(FIRST_RECORD(self, topic, replicas), eligible=())


def _suspected_nodes_wait(self: Assignments, suspected: frozenset[str]) -> Any:
    return ([], "") if suspected else PLACED(self, suspected)


def _trusts_at_once(self: Suspicion, node: Any, proven_at: int | None, now: int) -> None:
    if now - node.suspected_at > 100:
        node.is_suspected = False


def _never_suspects(self: Suspicion, now: int) -> frozenset[str]:
    return frozenset()


def _any_replica(record: PartitionRecord, live: dict[str, str], minimum: int) -> PartitionRecord | None:
    node = next((node for node in record.replicas if node in live), None)
    return None if node is None else elections.forced(record, live, node)


def _answer_is_not_needed(situation: Any, request: ElectLeader, ends: Any = operators.NO_ENDS) -> Any:
    return ELECTED(situation, msgspec.structs.replace(request, unclean=bool(ends)), ends)


def _nobody_is_eligible(record: PartitionRecord, live: dict[str, str], minimum: int) -> None:
    return None


def _quarantine_is_unknown(self: Situation, partition: TopicPartition) -> dict[str, str]:
    return self.live


FIRST_RECORD = Assignments._first_record
PLACED = Assignments._placed
ELECTED = operators.elected

PLANTED: dict[str, tuple[object, str, object, Callable[[int], object]]] = {
    "a new partition has one member": (
        *(Assignments, "_first_record", _without_eligible),
        lose_a_node_around_a_creation,
    ),
    "nothing is placed while a node is suspected": (
        *(Assignments, "_placed", _suspected_nodes_wait),
        lose_a_node_around_a_creation,
    ),
    "a suspected node is trusted without a ping": (
        *(Suspicion, "_reconsider", _trusts_at_once),
        restart_beside_a_dead_node,
    ),
    "only the session decides": (Suspicion, "decide", _never_suspects, lose_a_node_beside_one_that_returns),
    "any replica is elected": (deciding, "successor", _any_replica, lose_a_node_beside_one_that_returns),
    "only members of the set take over from a quarantined leader": (
        *(local_replicas, "successor", _nobody_is_eligible),
        lead_without_a_quarantined_leader,
    ),
    "a quarantined leader has to answer": (
        *(Situation, "able_to_lead", _quarantine_is_unknown),
        order_a_leader_in_place_of_a_quarantined_one,
    ),
    "a leader that has a session need not answer": (
        *(operators, "elected", _answer_is_not_needed),
        lose_all_replicas_but_one_that_missed_records,
    ),
}


def _search(schedule: Callable[[int], object]) -> None:
    for seed in range(200):
        schedule(seed)


@pytest.mark.parametrize("bug", PLANTED)
def test_the_schedules_find_planted_bugs(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, careless, schedule = PLANTED[bug]
    monkeypatch.setattr(owner, name, careless)
    with pytest.raises(AssertionError):
        _search(schedule)
