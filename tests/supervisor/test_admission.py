"""A tree on a machine that is too small for all of its children."""

from planaria.supervisor.capacity import Capacity
from planaria.transport.addresses import Address
from planaria.transport.protocol.control import StartChild, StopChild
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.operations import Revive
from supervision import World, broker_like, worker


def small_world(actors: int, partitions: int = 0) -> World:
    world = World(broker_like(), capacity=Capacity(actors, "descriptors, 256 a process"))
    world.ready("controller")
    world.ready("gateway/0", endpoint="tcp://127.0.0.1:1")
    for number in range(partitions):
        world.ask(StartChild(spec=worker(f"partition/T/{number}")))
    for number in range(min(partitions, actors - 2)):
        world.ready(f"partition/T/{number}")
    return world


def test_what_does_not_fit_is_quarantined_with_the_limit_as_its_reason() -> None:
    world = small_world(4, partitions=5)
    assert [world.state(f"partition/T/{number}") for number in range(5)] == ["ready"] * 2 + [
        "quarantined"
    ] * 3
    assert "descriptors, 256 a process" in str(world.reason("partition/T/4"))
    assert {news.address for news in world.news["gateway/0"] if getattr(news, "quarantined", False)} == {
        "partition/T/2",
        "partition/T/3",
        "partition/T/4",
    }


def test_fixed_children_are_started_on_any_machine() -> None:
    world = small_world(0, partitions=1)
    assert world.up is not None
    assert world.state("partition/T/0") == "quarantined"


def test_a_child_that_died_has_its_place_still() -> None:
    world = small_world(3, partitions=2)
    world.die("partition/T/0")
    assert world.state("partition/T/1") == "quarantined", "the dead one's place was given away"
    world.pass_time(100)
    world.ready("partition/T/0")
    assert world.state("partition/T/0") == "ready"


def test_a_place_that_becomes_free_is_given_to_one_that_waits_for_it() -> None:
    world = small_world(3, partitions=2)
    world.ask(StopChild(address=Address.parse("partition/T/0")))
    world.die("partition/T/0", "exit code 0")
    assert world.state("partition/T/1") == "starting"


def test_revive_makes_no_room() -> None:
    world = small_world(3, partitions=2)
    world.ask(Revive(address="partition/T/1"))
    assert world.state("partition/T/1") == "quarantined"
    world.ask(StopChild(address=Address.parse("partition/T/1")))
    assert world.state("partition/T/1") == "unknown"


def test_a_new_child_that_must_fit_is_refused_above_the_share_for_new_ones() -> None:
    world = small_world(10, partitions=7)
    refusal = world.ask(StartChild(spec=worker("coordinator/g"), must_fit=True))
    assert isinstance(refusal, ErrorBody)
    assert (refusal.code, refusal.retriable) == ("LIMIT_REACHED", False)
    assert "allow 9" in refusal.message
    assert world.state("coordinator/g") == "unknown"
    assert world.ask(StartChild(spec=worker("partition/T/0"), must_fit=True)) == Done(), "it is there already"
    assert world.ask(StartChild(spec=worker("coordinator/g"))) == Done()
    assert world.state("coordinator/g") == "starting"
