"""The controller's process around its machine: saves of a turn, and behaviour on a failing disk."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from faulty_files import FaultyFiles
from manual_loop import ManualLoop, context_of
from planaria.actors.controller.effects import (
    Loaded,
    RemoveTopic,
    TopicNotRemoved,
    TopicRemoved,
    TurnEnds,
)
from planaria.actors.controller.process import ControllerActor
from planaria.actors.log.errors import StorageFailed
from planaria.actors.metadata.store import Applied
from planaria.transport.machine import Received, Sender
from planaria.transport.producer_ids import producer_id_of
from planaria.transport.protocol.control import EnsureGroup
from planaria.transport.protocol.data import InitProducer
from planaria.transport.protocol.topics import CreateTopic


class TurnLoop(ManualLoop):
    """Remembers the events of the turns."""

    def __init__(self, actor: ControllerActor) -> None:
        super().__init__(actor, actor.context, lambda: 1_000_000)
        self.actor = actor
        self.events: list[Any] = []

    def dispatch(self, event: Any) -> None:
        self.events.append(event)
        super().dispatch(event)

    def ask(self, *requests: Any) -> list[Any]:
        """Return the replies of one turn."""
        self.replies.clear()
        self.turn(
            *(Received(Sender((b"asker",), number), request) for number, request in enumerate(requests))
        )
        return [reply.body for reply in self.replies]


def start(data_directory: Path, files: FaultyFiles | None = None, **arguments: Any) -> TurnLoop:
    context = context_of("controller", 1, arguments, str(data_directory))
    loop = TurnLoop(ControllerActor(context, files or FaultyFiles()))
    loop.start()
    return loop


def test_a_turn_is_saved_once_and_loaded_again(tmp_path: Path) -> None:
    files = FaultyFiles()
    loop = start(tmp_path, files, offsets_partitions=2)
    assert loop.events[:2] == [Loaded(), TurnEnds()]
    loop.ask(CreateTopic(topic="A"), CreateTopic(topic="B"), EnsureGroup(group="g"), InitProducer())
    assert [type(event) for event in loop.events].count(Applied) == 1
    found = start(tmp_path).actor.machine.catalog  # type: ignore[attr-defined]
    assert (sorted(found.topics), sorted(found.groups)) == (["A", "B", "__offsets"], ["g"])
    assert found.catalog_id == "run"


def test_no_room_is_told_and_survived(tmp_path: Path) -> None:
    files = FaultyFiles(space_bytes=0)
    loop = start(tmp_path, files)
    (error,) = loop.ask(InitProducer())
    assert (error.code, error.retriable) == ("STORAGE_FULL", True)
    files.space_bytes = None
    (reply,) = loop.ask(InitProducer())
    assert reply.producer_id == producer_id_of(1, 0)


def test_a_failed_sync_ends_the_process(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.fail_syncs = True
    loop = start(tmp_path, files)
    with pytest.raises(StorageFailed):
        loop.ask(InitProducer())


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
