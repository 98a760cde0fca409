"""Fail-backs: the steps that a controller stores, also in a cluster."""

from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from planaria.actors.controller.catalog import Catalog
from planaria.actors.controller.deployments import Nodes
from planaria.actors.controller.effects import TurnEnds
from planaria.actors.controller.machine import ControllerMachine
from planaria.actors.controller.rejoins import CUTS_KEPT
from planaria.actors.metadata.store import Applied, Changed, Propose
from planaria.transport.machine import Received, Sender
from planaria.transport.protocol.mirrored import Cut, Fork, TopicMirror
from planaria.transport.protocol.mirrors import (
    ChangeMirror,
    CreateMirror,
    MirrorSpec,
    MirrorTopic,
    RejoinTopic,
)
from planaria.transport.protocol.topics import TopicConfig

FORKS = (Fork(partition=0, offset=5, leader_epoch=1, first_epoch=1_001),)
CUT = Cut(partition=0, offset=5, end_offset=9, last_epoch=3)
SPEC = MirrorSpec(source="tcp://rome:5570", topics=("T",), is_failback=True)


class Controller:
    """A controller that decides alone; the test is the store."""

    def __init__(self, nodes: Nodes) -> None:
        catalog = Catalog(catalog_id="test").with_topic("T", 1, TopicConfig(), 0, topic_id="t1")
        durable = Catalog(catalog_id="test").applied(1, catalog.changes)
        self.revision = 1
        self.machine = ControllerMachine(durable, numbers=count(1), nodes=lambda: nodes)

    def decide(self, request: Any) -> TopicMirror | None:
        """Make a request, store what is decided, and return the state of the topic's mirror."""
        effects = list(self.machine.handle(Received(Sender((b"mirror",), 1), request), 0))
        effects += self.machine.handle(TurnEnds(), 0)
        for proposal in [each for each in effects if isinstance(each, Propose)]:
            self.revision += 1
            self.machine.handle(Changed(self.revision, proposal.changes), 0)
            self.machine.handle(Applied(proposal.number, self.revision), 0)
        return self.machine.catalog.topics["T"].mirror

    def begin(self, mirror: str) -> TopicMirror | None:
        self.decide(CreateMirror(mirror=mirror, spec=SPEC))
        topic: Any = {"topic": "T", "topic_id": "t1", "partitions": 1, "config": TopicConfig()}
        return self.decide(MirrorTopic(mirror=mirror, forks=FORKS, **topic))


@pytest.fixture(params=[Nodes(), Nodes("n1", ("n1", "n2"))], ids=["one broker", "a cluster"])
def controller(request: pytest.FixtureRequest) -> Controller:
    return Controller(request.param)


def step(mirror: str, kind: Any, *cuts: Cut) -> RejoinTopic:
    return RejoinTopic(mirror=mirror, topic="T", topic_id="t1", step=kind, cuts=cuts)


def test_cuts_are_kept_once_the_topic_follows(controller: Controller) -> None:
    assert controller.begin("m") == TopicMirror(mirror="m", state="rejoining", source_forks=FORKS)
    cutting = controller.decide(step("m", "cut", CUT))
    assert cutting is not None
    assert cutting.cuts == (CUT,)
    again = controller.decide(step("m", "survey"))
    assert again is not None
    assert (again.state, again.cuts) == ("rejoining", ())
    controller.decide(step("m", "cut", CUT))
    expected = TopicMirror(mirror="m", source_forks=FORKS, given_up=(CUT,))
    assert controller.decide(step("m", "done")) == expected


def test_cuts_of_a_deleted_mirror_are_kept_by_the_next_one(controller: Controller) -> None:
    """A replica that is not cut yet could not follow one that is."""
    controller.begin("m")
    controller.decide(step("m", "cut", CUT))
    controller.decide(ChangeMirror(mirror="m", action="delete"))
    after = controller.begin("n")
    assert after is not None
    assert (after.mirror, after.state, after.cuts, after.given_up) == ("n", "rejoining", (), (CUT,))


def test_only_the_cuts_of_the_last_fail_backs_are_kept(controller: Controller) -> None:
    found = controller.begin("m0")
    for number in range(CUTS_KEPT + 1):
        controller.decide(step(f"m{number}", "cut", replace(CUT, offset=number)))
        controller.decide(ChangeMirror(mirror=f"m{number}", action="delete"))
        found = controller.begin(f"m{number + 1}")
    assert found is not None
    assert [cut.offset for cut in found.given_up] == list(range(1, CUTS_KEPT + 1))
