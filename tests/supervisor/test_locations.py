"""An address for which another process answers is reported like a child's, and ends with the process that it needs."""

from typing import Any

import pytest

from planaria.supervisor.child_spec import DynamicSpec, SupervisorSpec
from planaria.transport.protocol.control import Locate, Location, PeerDown, PeerUp, StartChild, Watch
from planaria.transport.protocol.message import Done
from supervision import World, worker

LEADER = "partition/T/0"
HERE = Location(address=LEADER, target="replica/T/0")
THERE = Location(address=LEADER, target="replica/T/0", node="b", via="link/0")
NOWHERE = Location(address=LEADER)


@pytest.fixture
def world() -> World:
    children = (
        worker("controller", directory=("",)),
        worker("link/0"),
        worker("gateway/0", directory=("",)),
        DynamicSpec(name="replicas", prefix="replica/"),
    )
    world = World(SupervisorSpec(name="root", children=children))
    for address in ("controller", "link/0", "gateway/0"):
        world.ready(address)
    world.ask(StartChild(spec=worker("replica/T/0")))
    world.ready("replica/T/0")
    world.news.clear()
    return world


def locate(world: World, *locations: Location) -> list[Any]:
    """Return the notifications about the leader that the gateway received."""
    world.news.clear()
    assert world.ask(Locate(locations=locations)) == Done()
    return heard(world)


def heard(world: World) -> list[Any]:
    return [news for news in world.news.get("gateway/0", []) if getattr(news, "address", "") == LEADER]


def test_a_process_of_this_node_answers_at_its_own_endpoint(world: World) -> None:
    [up] = locate(world, HERE)
    assert up == PeerUp(address=LEADER, incarnation=1, endpoint="ipc://replica/T/0.1", target="replica/T/0")
    assert locate(world, HERE) == []


def test_a_process_of_another_node_is_reached_at_the_link(world: World) -> None:
    [up] = locate(world, THERE)
    assert (up.endpoint, up.node, up.target) == ("ipc://link/0.1", "b", "replica/T/0")


def test_a_leader_that_moves_is_down_and_up_with_a_higher_incarnation(world: World) -> None:
    [first] = locate(world, THERE)
    down, second = locate(world, HERE)
    assert (down.incarnation, second.incarnation) == (first.incarnation, first.incarnation + 1)
    [down] = locate(world, NOWHERE)
    assert isinstance(down, PeerDown)
    assert down.incarnation == second.incarnation


def test_a_location_here_ends_with_its_process_and_waits_for_the_controller(world: World) -> None:
    locate(world, HERE)
    world.news.clear()
    world.die("replica/T/0")
    [down] = heard(world)
    assert isinstance(down, PeerDown)
    world.pass_time(0)
    world.ready("replica/T/0")
    assert heard(world) == [down], "the next process leads only after it has claimed"
    [up] = locate(world, HERE)
    assert up.endpoint == "ipc://replica/T/0.2"


def test_a_location_there_comes_back_with_the_link(world: World) -> None:
    locate(world, THERE)
    world.news.clear()
    world.die("link/0")
    world.pass_time(0)
    world.ready("link/0")
    down, up = heard(world)
    assert isinstance(down, PeerDown)
    assert (up.endpoint, up.node, up.incarnation) == ("ipc://link/0.2", "b", 2)


def test_a_location_at_a_link_that_is_not_ready_waits_for_it(world: World) -> None:
    world.die("link/0")
    assert locate(world, THERE) == []
    world.pass_time(0)
    world.ready("link/0")
    assert [news.node for news in heard(world)] == ["b"]


def test_a_new_actor_and_a_watcher_receive_the_present_location(world: World) -> None:
    locate(world, THERE)
    world.give(Watch(address="link/0", incarnation=1, peer=LEADER))
    assert world.news["link/0"][-1].node == "b"
    world.die("gateway/0")
    world.pass_time(0)
    world.ready("gateway/0")
    assert heard(world)[-1].node == "b"


def test_an_address_without_a_process_is_reported_as_down(world: World) -> None:
    locate(world, THERE, NOWHERE)
    world.give(Watch(address="link/0", incarnation=1, peer=LEADER))
    assert isinstance(world.news["link/0"][-1], PeerDown)


def test_a_child_answers_for_its_own_address(world: World) -> None:
    world.ask(Locate(locations=(Location(address="replica/T/0", target="x", node="b", via="link/0"),)))
    world.give(Watch(address="link/0", incarnation=1, peer="replica/T/0"))
    assert world.news["link/0"][-1].endpoint == "ipc://replica/T/0.1"
