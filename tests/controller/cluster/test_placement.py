"""Replicas are placed on different nodes and racks, evenly; plans move as little as they need to."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planaria.actors.controller.cluster.placement import (
    Load,
    TooFewNodes,
    evacuate,
    place,
    rebalance,
    usable,
)
from planaria.actors.controller.cluster.records import Member, NodeSession, NodeSettings, PartitionRecord
from planaria.transport.addresses import TopicPartition


def session(node: str, rack: str = "") -> NodeSession:
    return NodeSession(
        node=node, data_id=f"disk-{node}", start_id="1", endpoint="", peer_endpoint="", rack=rack
    )


def nodes_of(count: int, racks: int = 1) -> dict[str, NodeSession]:
    return {f"n{i}": session(f"n{i}", f"r{i % racks}") for i in range(count)}


def record(*replicas: str) -> PartitionRecord:
    members = tuple(Member(node, f"disk-{node}") for node in replicas)
    return PartitionRecord(replicas=replicas, leader=replicas[0], in_sync=members)


def records(placed: list[tuple[str, ...]]) -> dict[TopicPartition, PartitionRecord]:
    return {TopicPartition("T", number): record(*replicas) for number, replicas in enumerate(placed)}


@given(nodes=st.integers(3, 9), racks=st.integers(1, 4), partitions=st.integers(1, 40))
def test_new_partitions_are_spread(nodes: int, racks: int, partitions: int) -> None:
    known = nodes_of(nodes, racks)
    placed = place(known, {}, partitions, 3)
    assert all(len(set(replicas)) == 3 for replicas in placed)
    for replicas in placed:
        assert len({known[node].rack for node in replicas}) == min(3, racks)
    load = Load(known, records(placed))
    assert max(load.leaders.values()) - min(load.leaders.values()) <= 1 or racks > 1
    if racks == 1:
        assert max(load.replicas.values()) - min(load.replicas.values()) <= 1


def test_more_replicas_than_nodes_are_refused_with_the_numbers() -> None:
    with pytest.raises(TooFewNodes, match="replication_factor 3: only 2 nodes"):
        place(nodes_of(2), {}, 1, 3)


def test_cordoned_and_leaving_nodes_get_nothing_new() -> None:
    settings = {"n0": NodeSettings(is_cordoned=True), "n1": NodeSettings(is_leaving=True)}
    assert set(usable(nodes_of(4), settings)) == {"n2", "n3"}


def test_a_new_node_is_filled_first() -> None:
    known = nodes_of(3)
    old = records(place(known, {}, 8, 2))
    known["new"] = session("new")
    assert all("new" in replicas for replicas in place(known, old, 4, 2))


@given(nodes=st.integers(4, 8), partitions=st.integers(1, 30))
def test_an_evacuated_node_holds_nothing_and_other_replicas_stay(nodes: int, partitions: int) -> None:
    known = nodes_of(nodes)
    old = records(place(known, {}, partitions, 3))
    for move in evacuate("n0", known, old):
        before = old[move.partition].replicas
        assert "n0" in before
        assert "n0" not in move.replicas
        assert len(set(move.replicas)) == 3
        assert set(before) - {"n0"} <= set(move.replicas)
    moved = {move.partition for move in evacuate("n0", known, old)}
    assert moved == {partition for partition, entry in old.items() if "n0" in entry.replicas}


def test_an_evacuated_follower_does_not_change_the_preferred_leader() -> None:
    known = nodes_of(4)
    [move] = evacuate("n1", known, {TopicPartition("T", 0): record("n0", "n1", "n2")})
    assert move.replicas[0] == "n0"


@given(nodes=st.integers(3, 7), added=st.integers(1, 3), partitions=st.integers(1, 40))
def test_a_rebalanced_cluster_is_even_and_stays_as_it_is(nodes: int, added: int, partitions: int) -> None:
    known = nodes_of(nodes)
    old = records(place(known, {}, partitions, 3))
    for number in range(added):
        known[f"new{number}"] = session(f"new{number}")
    moves = rebalance(known, old)
    after = dict(old)
    for move in moves:
        assert len(set(move.replicas)) == 3
        after[move.partition] = record(*move.replicas)
    counts = Counter(node for entry in after.values() for node in entry.replicas)
    loads = [counts[node] for node in known]
    assert max(loads) - min(loads) <= 1
    assert rebalance(known, after) == []


def test_a_plan_begins_from_the_targets_of_moves_in_progress() -> None:
    known = nodes_of(4)
    moving = msgspec.structs.replace(record("n0", "n1", "n2", "n3"), target=("n3", "n1", "n2"))
    assert evacuate("n0", known, {TopicPartition("T", 0): moving}) == []


def test_a_departure_counts_a_replica_that_stays_on_a_cordoned_node_and_none_that_leaves_as_well() -> None:
    held = {TopicPartition("T", 0): record("n0", "n1", "n2")}
    usable_nodes = {name: each for name, each in nodes_of(4).items() if name != "n1"}
    [move] = evacuate("n0", usable_nodes, held)
    assert set(move.replicas) == {"n1", "n2", "n3"}
    with pytest.raises(TooFewNodes, match="only 2 nodes"):
        evacuate("n0", usable_nodes, held, leaving={"n0", "n1"})


def test_no_node_to_avoid_or_outside_of_the_usable_ones_is_preferred_by_a_plan() -> None:
    known = nodes_of(3)
    crowded = {TopicPartition("T", number): record("n0", "n1", "n2") for number in range(6)}
    for draining, down in (("n1", "n2"), ("n2", "n1")):
        usable_nodes = {name: each for name, each in known.items() if name != down}
        assert rebalance(usable_nodes, crowded, avoid={draining}) == []
    two = {TopicPartition("T", number): record("n0") for number in range(6)}
    moved = rebalance(known, two, avoid={"n1"})
    assert {node for move in moved for node in move.replicas} == {"n2"}
    assert {replicas[0] for replicas in place(known, {}, 6, 3, avoid={"n0"})} == {"n1", "n2"}
