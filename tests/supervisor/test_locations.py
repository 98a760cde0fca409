"""An address for which another process answers is reported like a child's, and ends with the process that it needs."""

from typing import Any

import pytest

from planaria.supervisor.child_spec import DynamicSpec, SupervisorSpec
from planaria.transport.addresses import Address
from planaria.transport.protocol.control import (
    EVERYBODY,
    Locate,
    Location,
    PeerDown,
    PeerUp,
    StartChild,
    StopChild,
    Watch,
)
from planaria.transport.protocol.message import Done
from supervision import World, worker

LEADER = Address.parse("partition/T/0")
REPLICA = Address.parse("replica/T/0")
LINK = Address.parse("link/a")
HERE = Location(address=LEADER, target=REPLICA)
THERE = Location(address=LEADER, target=REPLICA, node="b", via=LINK)
NOWHERE = Location(address=LEADER)


@pytest.fixture
def world() -> World:
    children = (
        worker("controller", directory=EVERYBODY),
        worker("link/a"),
        worker("gateway/0", directory=EVERYBODY),
        DynamicSpec(name="replicas", kind="replica"),
        DynamicSpec(name="coordinators", kind="coordinator"),
    )
    world = World(SupervisorSpec(name="root", children=children))
    for address in ("controller", "link/a", "gateway/0"):
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
    assert up == PeerUp(address=LEADER, incarnation=1, endpoint="ipc://replica/T/0.1", target=REPLICA)
    assert locate(world, HERE) == []


def test_a_process_of_another_node_is_reached_at_the_link(world: World) -> None:
    [up] = locate(world, THERE)
    assert (up.endpoint, up.node, up.target) == ("ipc://link/a.1", "b", "replica/T/0")


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
    world.die("link/a")
    world.pass_time(0)
    world.ready("link/a")
    down, up = heard(world)
    assert isinstance(down, PeerDown)
    assert (up.endpoint, up.node, up.incarnation) == ("ipc://link/a.2", "b", 2)


def test_a_location_at_a_link_that_is_not_ready_waits_for_it(world: World) -> None:
    world.die("link/a")
    assert locate(world, THERE) == []
    world.pass_time(0)
    world.ready("link/a")
    assert [news.node for news in heard(world)] == ["b"]


def test_a_new_actor_and_a_watcher_receive_the_present_location(world: World) -> None:
    locate(world, THERE)
    world.give(Watch(address=LINK, incarnation=1, peer=LEADER))
    assert world.news["link/a"][-1].node == "b"
    world.die("gateway/0")
    world.pass_time(0)
    world.ready("gateway/0")
    assert heard(world)[-1].node == "b"


def test_an_address_without_a_process_is_reported_as_down(world: World) -> None:
    locate(world, THERE, NOWHERE)
    world.give(Watch(address=LINK, incarnation=1, peer=LEADER))
    assert isinstance(world.news["link/a"][-1], PeerDown)


def test_a_child_answers_for_its_own_address(world: World) -> None:
    world.ask(
        Locate(
            locations=(
                Location(
                    address=REPLICA,
                    target=Address("x"),
                    node="b",
                    via=LINK,
                ),
            )
        )
    )
    world.give(Watch(address=LINK, incarnation=1, peer=REPLICA))
    assert world.news["link/a"][-1].endpoint == "ipc://replica/T/0.1"


GROUP = Address.parse("coordinator/g")
GROUP_THERE = Location(address=GROUP, target=GROUP, node="b", via=LINK)


@pytest.fixture
def followed(world: World) -> World:
    """Return a world with a coordinator here, which is to move to another node."""
    world.ask(StartChild(spec=worker("coordinator/g")))
    world.ready("coordinator/g")
    world.news.clear()
    return world


def heard_of_group(world: World) -> list[Any]:
    return [news for news in world.news.get("gateway/0", []) if getattr(news, "address", "") == GROUP]


def test_a_location_waits_for_the_end_of_a_child_of_the_same_address(followed: World) -> None:
    followed.ask(StopChild(address=GROUP))
    followed.ask(Locate(locations=(GROUP_THERE,)))
    assert heard_of_group(followed) == []
    followed.die("coordinator/g")
    down, up = heard_of_group(followed)
    assert isinstance(down, PeerDown)
    assert (up.endpoint, up.node, up.incarnation) == ("ipc://link/a.1", "b", down.incarnation + 1)


def test_a_child_that_is_back_keeps_its_address_when_the_link_restarts(followed: World) -> None:
    followed.ask(StopChild(address=GROUP))
    followed.ask(Locate(locations=(GROUP_THERE,)))
    followed.die("coordinator/g")
    followed.ask(StartChild(spec=worker("coordinator/g")))
    followed.ready("coordinator/g")
    followed.news.clear()
    followed.die("link/a")
    followed.pass_time(0)
    followed.ready("link/a")
    assert heard_of_group(followed) == []
