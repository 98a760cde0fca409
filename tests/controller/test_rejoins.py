"""Fail-backs: the steps that a controller stores, also in a cluster."""

from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from planaria.actors.controller.catalog import Catalog, TopicEntry
from planaria.actors.controller.deployments import Nodes
from planaria.actors.controller.effects import TurnEnds
from planaria.actors.controller.machine import ControllerMachine
from planaria.actors.controller.rejoins import CUTS_KEPT, with_topic_mirror
from planaria.actors.metadata.store import Applied, Changed, Propose
from planaria.transport.machine import Received, Reply, Sender
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.mirrored import Cut, Fork, TopicMirror
from planaria.transport.protocol.mirrors import (
    ChangeMirror,
    CreateMirror,
    MirrorSpec,
    MirrorTopic,
    RejoinTopic,
)
from planaria.transport.protocol.topics import DeleteTopic, TopicConfig

DIVERGED = "__diverged.T"
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
        self.refusals: list[ErrorBody] = []

    @property
    def topics(self) -> dict[str, TopicEntry]:
        return self.machine.catalog.topics

    def decide(self, request: Any) -> TopicMirror:
        """Make a request, store what is decided, and return the state of the topic's mirror."""
        effects = list(self.machine.handle(Received(Sender((b"mirror",), 1), request), 0))
        replies = [each.body for each in effects if isinstance(each, Reply)]
        self.refusals = [each for each in replies if isinstance(each, ErrorBody)]
        effects += self.machine.handle(TurnEnds(), 0)
        for proposal in [each for each in effects if isinstance(each, Propose)]:
            self.revision += 1
            self.machine.handle(Changed(self.revision, proposal.changes), 0)
            self.machine.handle(Applied(proposal.number, self.revision), 0)
        mirror = self.topics["T"].mirror
        return TopicMirror(mirror="") if mirror is None else mirror

    def begin(self, mirror: str, forks: tuple[Fork, ...] = FORKS) -> TopicMirror:
        self.decide(CreateMirror(mirror=mirror, spec=SPEC))
        return self.describe(mirror, forks)

    def describe(self, mirror: str, forks: tuple[Fork, ...] = FORKS) -> TopicMirror:
        """Tell of the source's topic, as the mirror does before each attempt."""
        topic: Any = {"topic": "T", "topic_id": "t1", "partitions": 1, "config": TopicConfig()}
        return self.decide(MirrorTopic(mirror=mirror, forks=forks, **topic))

    def put(self, catalog: Catalog) -> None:
        """Change the catalog as an operator's recovery of it does."""
        self.revision += 1
        self.machine.handle(Changed(self.revision, catalog.changes), 0)


@pytest.fixture(params=[Nodes(), Nodes("n1", ("n1", "n2"))], ids=["one broker", "a cluster"])
def controller(request: pytest.FixtureRequest) -> Controller:
    return Controller(request.param)


def step(mirror: str, kind: Any, *cuts: Cut) -> RejoinTopic:
    return RejoinTopic(mirror=mirror, topic="T", topic_id="t1", step=kind, cuts=cuts)


def test_cuts_are_kept_once_the_topic_follows(controller: Controller) -> None:
    assert controller.begin("m") == TopicMirror(mirror="m", state="rejoining", source_forks=FORKS)
    assert controller.decide(step("m", "cut", CUT)).cuts == (CUT,)
    expected = TopicMirror(mirror="m", source_forks=FORKS, given_up=(CUT,))
    assert controller.decide(step("m", "done")) == expected


def test_cuts_that_are_dropped_are_kept_for_the_replicas_that_were_cut(controller: Controller) -> None:
    """One partition has grown; another one, or one of its replicas, is cut already, and others are not."""
    controller.begin("m")
    other = replace(CUT, partition=1)
    controller.decide(step("m", "cut", CUT, other))
    again = controller.decide(step("m", "survey"))
    assert (again.state, again.cuts, again.given_up) == ("rejoining", (), (CUT, other))
    grown = replace(CUT, end_offset=12, last_epoch=4)
    controller.decide(step("m", "cut", grown))
    # The later cut of a partition has all that the earlier one had.
    assert controller.decide(step("m", "done")).given_up == (other, grown)


@pytest.mark.parametrize("forks", [FORKS, (replace(FORKS[0], offset=3),)], ids=["of the same", "of another"])
@pytest.mark.parametrize("is_cut", [False, True], ids=["setting aside", "cutting"])
def test_the_next_mirror_goes_on_with_the_records_of_one_that_was_deleted(
    controller: Controller, forks: tuple[Fork, ...], is_cut: bool
) -> None:
    controller.begin("m")
    before = controller.decide(step("m", "set_aside"))
    assert before.diverged == DIVERGED
    if is_cut:
        before = controller.decide(step("m", "cut", CUT))
    controller.decide(ChangeMirror(mirror="m", action="delete"))
    assert controller.begin("n", forks) == replace(before, mirror="n")
    assert [topic for topic in controller.topics if topic.startswith(DIVERGED)] == [DIVERGED]
    # It is the one that has the records promoted.
    assert controller.topics[DIVERGED].mirror == TopicMirror(mirror="n")
    after = controller.decide(step("n", "done"))
    assert (after.state, after.source_forks) == ("following", FORKS)
    assert controller.describe("n", forks).source_forks == forks


def test_a_mirror_that_was_deleted_before_it_set_anything_aside_leaves_nothing(
    controller: Controller,
) -> None:
    controller.begin("m")
    controller.decide(ChangeMirror(mirror="m", action="delete"))
    other = (replace(FORKS[0], offset=3),)
    assert controller.begin("n", other) == TopicMirror(mirror="n", state="rejoining", source_forks=other)


def test_another_mirror_is_refused_while_the_first_is_there(controller: Controller) -> None:
    before = controller.begin("m")
    assert controller.begin("n") == before
    assert "delete that mirror first" in controller.refusals[0].message


def test_a_promoted_topic_does_not_follow_itself(controller: Controller) -> None:
    promoted = TopicMirror(mirror="", state="promoted", forks=FORKS)
    controller.put(with_topic_mirror(controller.machine.catalog, "T", promoted))
    assert controller.begin("m") == promoted
    assert "is this topic itself" in controller.refusals[0].message
    assert controller.describe("m", (replace(FORKS[0], offset=9),)).state == "rejoining"


def test_the_topic_of_the_records_is_not_deleted_before_the_topic_follows(controller: Controller) -> None:
    controller.begin("m")
    controller.decide(step("m", "set_aside"))
    controller.decide(DeleteTopic(topic=DIVERGED))
    assert (controller.refusals[0].code, DIVERGED in controller.topics) == (ErrorCode.CONFLICT, True)
    assert "delete it once T follows" in controller.refusals[0].message
    controller.decide(step("m", "done"))
    controller.decide(DeleteTopic(topic=DIVERGED))
    assert DIVERGED not in controller.topics


@pytest.mark.parametrize("cuts", [(), (CUT,)], ids=["setting aside", "cutting"])
def test_a_topic_of_records_that_is_lost_is_made_again_and_the_loss_is_told(
    controller: Controller, cuts: tuple[Cut, ...]
) -> None:
    controller.begin("m")
    controller.decide(step("m", "set_aside"))
    if cuts:
        controller.decide(step("m", "cut", *cuts))
    controller.put(controller.machine.catalog.without_topic(DIVERGED))
    for late in ("cut", "done", "survey"):
        before = controller.topics["T"].mirror
        assert controller.decide(step("m", late)) == before
        assert controller.refusals[0].code == ErrorCode.CONFLICT
    found = controller.describe("m")
    assert (found.state, found.diverged, found.cuts, found.given_up) == ("rejoining", "", (), cuts)
    assert f"{DIVERGED} was lost" in found.reason
    assert ("are lost" in found.reason) == bool(cuts)
    again = controller.decide(step("m", "set_aside"))
    assert again.diverged in controller.topics
    assert controller.decide(step("m", "done")).reason == found.reason


def test_cuts_are_stored_only_if_the_records_are_in_the_topic_that_is_there(controller: Controller) -> None:
    """An attempt that set them aside in an earlier one may still be alive."""
    controller.begin("m")
    before = controller.decide(step("m", "set_aside"))
    diverged_id = controller.topics[DIVERGED].topic_id
    assert controller.decide(replace(step("m", "cut", CUT), diverged_id="lost")) == before
    assert controller.refusals[0].code == ErrorCode.CONFLICT
    found = controller.decide(replace(step("m", "cut", CUT), diverged_id=diverged_id))
    assert found.cuts == (CUT,)


def test_a_topic_of_records_that_an_operator_has_promoted_takes_no_more(controller: Controller) -> None:
    controller.begin("m")
    controller.decide(step("m", "set_aside"))
    promoted = TopicMirror(mirror="m", state="promoted")
    controller.put(with_topic_mirror(controller.machine.catalog, DIVERGED, promoted))
    found = controller.decide(step("m", "set_aside"))
    assert (found.diverged, found.reason) == (
        f"{DIVERGED}.2",
        f"{DIVERGED} was promoted: it has only a part of the records",
    )


def test_only_the_cuts_of_the_last_fail_backs_are_kept(controller: Controller) -> None:
    found = TopicMirror(mirror="")
    for number in range(CUTS_KEPT + 2):
        controller.begin(f"m{number}")
        controller.decide(step(f"m{number}", "cut", replace(CUT, offset=number, last_epoch=number)))
        found = controller.decide(step(f"m{number}", "done"))
        promoted = replace(found, state="promoted")
        controller.put(with_topic_mirror(controller.machine.catalog, "T", promoted))
        controller.decide(ChangeMirror(mirror=f"m{number}", action="delete"))
    assert [cut.offset for cut in found.given_up] == list(range(2, CUTS_KEPT + 2))


def test_a_cut_covers_what_a_replica_may_lose_by_another() -> None:
    whole = replace(CUT, is_whole=True)
    assert CUT.covers(replace(CUT, offset=6, last_epoch=2))
    assert whole.covers(CUT)
    for other in (whole, replace(CUT, offset=4), replace(CUT, last_epoch=4), replace(CUT, partition=1)):
        assert not CUT.covers(other)
