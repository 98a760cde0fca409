"""Orphans: actors left running by a controller that died before its command took effect."""

from controller_driver import ControllerDriver
from planaria.transport.machine import Answered, Call
from planaria.transport.protocol.control import EnsureGroup
from planaria.transport.protocol.groups import DeleteGroup
from planaria.transport.protocol.operations import Status
from planaria.transport.protocol.topics import CreateTopic


def a_broker() -> ControllerDriver:
    controller = ControllerDriver()
    controller.ask(CreateTopic(topic="A", partitions=2))
    controller.ask(EnsureGroup(group="g"))
    controller.ask(EnsureGroup(group="h"))
    return controller


def test_a_crash_between_a_groups_deletion_and_the_order_to_stop_leaves_no_coordinator() -> None:
    controller = a_broker()
    running = set(controller.specs)
    controller.ask(DeleteGroup(group="g"))
    successor = ControllerDriver(controller.saved[-1])
    successor.orphans = running
    successor.load()
    assert "coordinator/g" not in successor.orphans
    assert successor.orphans == running - {"coordinator/g"}
    assert set(successor.specs) == successor.orphans


def test_partitions_without_a_topic_are_stopped_and_the_children_of_others_are_not() -> None:
    controller = a_broker()
    successor = ControllerDriver(controller.saved[-1])
    successor.orphans = {"partition/GONE/0", "partition/A/2", "subscriber/g/0", "partition/A/1"}
    successor.load()
    assert successor.orphans == {"subscriber/g/0", "partition/A/1"}


def test_a_supervisor_that_does_not_answer_is_asked_again() -> None:
    controller = a_broker()
    successor = ControllerDriver(controller.saved[-1])
    successor.orphans = {"coordinator/gone"}
    successor.refuses_orders = True
    successor.load()
    successor.refuses_orders = False
    successor.advance(2_000)
    assert successor.orphans == set()


def test_what_is_decided_while_the_answer_is_on_its_way_stays() -> None:
    controller = a_broker()
    [question] = [
        effect
        for effect in controller.machine._orphans.ask()
        if isinstance(effect, Call) and isinstance(effect.request, Status)
    ]
    controller.is_save_held = True
    controller.ask(EnsureGroup(group="new"))
    controller.ask(DeleteGroup(group="h"))
    controller.orphans = {"coordinator/new", "coordinator/gone"}
    controller.give(Answered(question.key, controller._status()))
    assert controller.orphans == {"coordinator/new"}
    assert "coordinator/h" in controller.specs, "its deletion is not durable yet"
