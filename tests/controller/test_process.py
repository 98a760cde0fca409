"""The controller's process around its machine: saves of a turn, and behaviour on a failing disk."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from faulty_files import FaultyFiles
from planaria.actors.controller.effects import (
    CatalogSaved,
    Loaded,
    RemoveTopic,
    TopicNotRemoved,
    TopicRemoved,
)
from planaria.actors.controller.process import ControllerActor
from planaria.actors.log.errors import StorageFailed
from planaria.transport.actor import ActorContext
from planaria.transport.machine import Received, Reply, Sender
from planaria.transport.producer_ids import producer_id_of
from planaria.transport.protocol.control import EnsureGroup
from planaria.transport.protocol.data import InitProducer
from planaria.transport.protocol.topics import CreateTopic


class TurnLoop:
    """The loop's dispatch without its sockets: other effects are kept."""

    def __init__(self, actor: ControllerActor) -> None:
        self.actor = actor
        self.events: list[Any] = []
        self.effects: list[Any] = []
        self.now = 1_000_000
        actor.loop = self  # type: ignore[assignment]

    def dispatch(self, event: Any) -> None:
        self.events.append(event)
        for effect in self.actor.machine.handle(event, self.now):
            if type(effect).__module__.endswith("controller.effects"):
                self.actor.perform(effect)
            else:
                self.effects.append(effect)

    def progress(self) -> None:
        pass

    def turn(self, *requests: Any) -> list[Any]:
        """Return the replies of one turn."""
        del self.effects[:]
        for number, request in enumerate(requests):
            self.dispatch(Received(Sender((b"asker",), number), request))
        before = [effect for effect in self.effects if isinstance(effect, Reply)]
        assert before == [], "nothing is said before it is durable"
        self.actor.end_turn()
        return [effect.body for effect in self.effects if isinstance(effect, Reply)]


def start(data_directory: Path, files: FaultyFiles | None = None, **arguments: Any) -> TurnLoop:
    context = ActorContext(
        address="controller",
        incarnation=1,
        arguments=arguments,
        run_directory="/nowhere",
        data_directory=str(data_directory),
        control_endpoint="ipc:///nowhere",
        instance_id="instance",
    )
    loop = TurnLoop(ControllerActor(context, files or FaultyFiles()))
    loop.actor.start()
    return loop


def test_a_turn_is_saved_once_and_loaded_again(tmp_path: Path) -> None:
    files = FaultyFiles()
    loop = start(tmp_path, files, offsets_partitions=2)
    assert loop.events == [Loaded()]
    loop.turn(CreateTopic(topic="A"), CreateTopic(topic="B"), EnsureGroup(group="g"), InitProducer())
    assert [type(event) for event in loop.events].count(CatalogSaved) == 1
    found = start(tmp_path).actor.machine.catalog  # type: ignore[attr-defined]
    assert (sorted(found.topics), sorted(found.groups)) == (["A", "B", "__offsets"], ["g"])
    assert found.catalog_id == "instance"


def test_no_room_is_told_and_survived(tmp_path: Path) -> None:
    files = FaultyFiles(space_bytes=0)
    loop = start(tmp_path, files)
    (error,) = loop.turn(InitProducer())
    assert (error.code, error.retriable) == ("STORAGE_FULL", True)
    files.space_bytes = None
    (reply,) = loop.turn(InitProducer())
    assert reply.producer_id == producer_id_of(1, 0)


def test_a_failed_sync_ends_the_process(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.fail_syncs = True
    loop = start(tmp_path, files)
    with pytest.raises(StorageFailed):
        loop.turn(InitProducer())


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(msgspec.ValidationError, match="retention_ms"):
        start(tmp_path, topic_defaults={"retention_ms": "long"})


def test_files_that_cannot_be_removed_are_told(tmp_path: Path) -> None:
    loop = start(tmp_path)
    told: list[Any] = []
    loop.dispatch = told.append  # type: ignore[method-assign]
    loop.actor.perform(RemoveTopic("A", "1f"))
    (tmp_path / "topics" / "B" / "0").mkdir(parents=True)
    # An obstacle that is not one of our directories.
    (tmp_path / "topics" / ".deleted~2f").write_bytes(b"")
    loop.actor.perform(RemoveTopic("B", "2f"))
    assert [type(event) for event in told] == [TopicRemoved, TopicNotRemoved]
