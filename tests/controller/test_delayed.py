"""The topic of delayed messages and its schedulers, with the machine alone."""

from controller_driver import ControllerDriver
from planaria.transport.protocol.control import EnsureInternalActors
from planaria.transport.protocol.errors import ErrorCode
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.topics import DeleteTopic


def test_they_are_made_once_and_together() -> None:
    controller = ControllerDriver(delayed_partitions=3)
    assert isinstance(controller.answer(EnsureInternalActors(topic="__delayed")), Done)
    for number in range(3):
        spec = controller.specs[f"scheduler/{number}"]
        assert spec.start == "planaria.actors.scheduler.process:main"
        assert not spec.directory, "it watches the actors that it calls"
        assert spec.arguments == {"topic": "__delayed", "number": number, "schedulers": 3}
        config = controller.specs[f"partition/__delayed/{number}"].arguments["config"]
        assert (config["retention_ms"], config["cleanup"], config["flush"]) == (-1, "compact", "batch")
    assert isinstance(controller.answer(EnsureInternalActors(topic="__delayed")), Done)
    assert len(controller.saved) == 1


def test_a_catalog_that_could_not_be_saved_makes_none() -> None:
    controller = ControllerDriver()
    controller.is_full = True
    assert controller.answer(EnsureInternalActors(topic="__delayed")).code == ErrorCode.STORAGE_FULL
    assert controller.specs == {}


def test_a_later_controller_starts_them_again_and_takes_them_for_no_strays() -> None:
    controller = ControllerDriver()
    controller.ask(EnsureInternalActors(topic="__delayed"))
    successor = ControllerDriver(controller.saved[-1])
    successor.orphans = {"scheduler/0", "scheduler/7"}
    successor.load()
    assert {"scheduler/0", "scheduler/1"} <= successor.specs.keys()
    assert "scheduler/7" not in successor.orphans


def test_nobody_deletes_the_topic() -> None:
    controller = ControllerDriver()
    controller.ask(EnsureInternalActors(topic="__delayed"))
    assert controller.answer(DeleteTopic(topic="__delayed")).code == ErrorCode.FORBIDDEN
