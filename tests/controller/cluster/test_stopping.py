"""A node that is asked to stop: refused, prepared until it leads nothing and is in no set, or forced."""

from typing import Any

import pytest

from planaria.actors.controller.cluster.stopping import FORCED_PREPARATION_MS, PREPARATION_MS, Conclude
from planaria.transport.protocol.control import StopState
from simulated_cluster import SimulatedCluster


def steady(partitions: int = 6, minimum: int = 2, factor: int = 3) -> SimulatedCluster:
    world = SimulatedCluster(1)
    world.create("T", partitions, factor, minimum)
    world.run(5_000)
    assert world.unled() == []
    return world


def ask(world: SimulatedCluster, name: str, state: StopState = "asked") -> None:
    node = world.nodes[name]
    node.perform(node.cluster.prepare_stop(state, world.now))


def concluded(world: SimulatedCluster, name: str, limit_ms: int = 2_000) -> str:
    """Return the refusal; empty if the node may stop."""
    until = world.now + limit_ms
    while not world.nodes[name].conclusions:
        assert world.now < until, "the preparation does not end"
        world.run(20)
    [conclusion] = world.nodes[name].conclusions
    return conclusion.refusal


def held(world: SimulatedCluster, name: str) -> list[Any]:
    """Return the partitions that wait for this node."""
    records = [(partition, each.record) for partition, each in world.truth.partitions.items()]
    return [partition for partition, each in records if name == each.leader or name in each.in_sync_nodes]


@pytest.mark.parametrize("is_leading", [False, True], ids=["another node", "the controller's node"])
def test_a_node_stops_once_it_leads_nothing_and_no_acknowledgement_waits_for_it(is_leading: bool) -> None:
    world = steady()
    name = next(
        node.name for node in world.nodes.values() if node.cluster.leadership.is_leading == is_leading
    )
    ask(world, name)
    assert concluded(world, name) == ""
    assert held(world, name) == []
    world.kill(name)
    world.start(name)
    world.run(8_000)
    assert {len(each.record.in_sync) for each in world.truth.partitions.values()} == {3}


def test_a_stop_that_would_leave_a_partition_below_its_minimum_is_refused_and_withdrawn() -> None:
    world = steady(minimum=3)
    ask(world, "n1")
    assert "without this node T/0, T/1, T/2 and 3 more would be below" in concluded(world, "n1")
    world.run(1_000)
    assert not world.truth.sessions["n1"].is_stopping
    assert len(held(world, "n1")) == 6


def test_of_two_nodes_that_stop_at_the_same_time_one_is_refused() -> None:
    world = steady()
    for name in ("n0", "n1"):
        ask(world, name)
    found = sorted(concluded(world, name) for name in ("n0", "n1"))
    assert found[0] == ""
    assert "would be below" in found[1]


def test_a_forced_stop_moves_what_it_can_and_waits_for_no_more() -> None:
    world = steady(factor=1, minimum=1)
    world.create("U", 3)
    world.run(2_000)
    ask(world, "n2", "forced")
    assert concluded(world, "n2") == ""
    assert {partition.topic for partition in held(world, "n2")} == {"T"}


def test_a_stop_that_takes_too_long_is_refused_unless_it_is_forced() -> None:
    world = steady()
    for name in ("n0", "n1"):
        world.kill(name)  # the links have not noticed, and no controller is left to move anything
    node = world.nodes["n2"]
    ask(world, "n2")
    for state, limit_ms in (("asked", PREPARATION_MS), ("forced", FORCED_PREPARATION_MS)):
        node.cluster.prepare_stop(state, world.now)  # type: ignore[arg-type]
        assert list(node.cluster._conclude(world.now + limit_ms - 1)) == []
        [conclusion] = node.cluster._conclude(world.now + limit_ms)
        assert isinstance(conclusion, Conclude)
        assert ("could not be moved within 10 s" in conclusion.refusal) == (state == "asked")


def test_a_node_out_of_its_session_is_refused() -> None:
    world = steady()
    cluster = world.nodes["n0"].cluster
    cluster._is_in_session = False
    [conclusion] = cluster.prepare_stop("asked", world.now)
    assert isinstance(conclusion, Conclude)
    assert "the metadata store does not answer" in conclusion.refusal
