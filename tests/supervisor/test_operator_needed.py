"""A child that reports that only an operator can help is not restarted repeatedly."""

from planaria.transport.addresses import Address
from planaria.transport.protocol.control import ActorFailed, StartChild
from supervision import World, broker_like, worker


def refuse(world: World, address: str) -> None:
    reason = "Lost: bring it back"
    world.give(
        ActorFailed(
            address=Address.parse(address),
            incarnation=world.incarnations[address],
            reason=reason,
            traceback="",
            needs_operator=True,
        )
    )
    world.die(address, "exit code 1")


def test_it_is_quarantined_at_its_first_death_and_can_be_revived() -> None:
    world = World(broker_like())
    world.ask(StartChild(spec=worker("partition/T/0")))
    world.ready("controller")
    refuse(world, "partition/T/0")
    assert world.state("partition/T/0") == "quarantined"


def test_a_fixed_child_fails_the_start_at_once() -> None:
    world = World(broker_like())
    refuse(world, "controller")
    assert world.failed == "controller cannot start: Lost: bring it back"
