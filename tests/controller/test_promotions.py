"""Promotions of mirrored topics where several controllers go on with them, and the list of mirrors of other nodes."""

from itertools import count
from typing import Any

import msgspec
import pytest

from planaria.actors.controller.catalog import Catalog, put
from planaria.actors.controller.deployments import Nodes
from planaria.actors.controller.effects import TurnEnds
from planaria.actors.controller.keys import MirrorCall, MirrorReportCall, PromotionTimer
from planaria.actors.controller.machine import ControllerMachine
from planaria.actors.metadata.store import Applied, Changed, Delete, Propose, Rejected
from planaria.transport.machine import Answered, Call, Failed, Received, Reply, Sender, SetTimer, TimerFired
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.links import Relay
from planaria.transport.protocol.mirrored import Fork, TopicMirror
from planaria.transport.protocol.mirrors import (
    DescribeMirrorReply,
    ListMirrors,
    ListMirrorsReply,
    Mirror,
    MirroredTopic,
    MirrorReport,
    MirrorSpec,
    PromoteMirror,
    PromoteMirrorReply,
    PromotePartition,
    PromotePartitionReply,
    SealMirror,
    SealMirrorReply,
)
from planaria.transport.protocol.topics import TopicConfig

OPERATOR = Sender((b"operator",), 1)


class Controller:
    """One of several controllers; the test is the store, the partitions and the other ones."""

    def __init__(self, nodes: Nodes | None = None) -> None:
        spec = Mirror(spec=MirrorSpec(source="tcp://paris:5570", topics=("*",)))
        catalog = Catalog(catalog_id="test").with_topic(
            "T", 1, TopicConfig(), 0, mirror=TopicMirror(mirror="m")
        )
        catalog = catalog.decided((put("mirrors/m", spec),))
        durable = Catalog(catalog_id="test").applied(1, catalog.changes)
        self.revision = 1
        self.machine = ControllerMachine(
            durable, numbers=count(1), nodes=(lambda: nodes) if nodes is not None else Nodes
        )

    def handle(self, *events: Any) -> list[Any]:
        effects = [effect for event in events for effect in self.machine.handle(event, 0)]
        return [*effects, *self.machine.handle(TurnEnds(), 0)]

    def changed(self, changes: Any) -> Changed:
        self.revision += 1
        return Changed(self.revision, tuple(changes))

    def apply(self, proposal: Propose) -> list[Any]:
        return self.handle(self.changed(proposal.changes), Applied(proposal.number, self.revision))

    def reject(self, proposal: Propose, *others: Any) -> list[Any]:
        return self.handle(self.changed(others), Rejected(proposal.number, self.revision, {}))

    def topic(self, **changes: Any) -> Any:
        """Return a change of the topic's mirror, as another controller makes it."""
        entry = self.machine.catalog.topics["T"]
        assert entry.mirror is not None
        return put(
            "topics/T",
            msgspec.structs.replace(entry, mirror=msgspec.structs.replace(entry.mirror, **changes)),
        )


def requests(effects: list[Any], kind: type[Any]) -> list[Any]:
    return [each.request for each in effects if isinstance(each, Call) and isinstance(each.request, kind)]


def one(effects: list[Any], kind: type[Any]) -> Any:
    [found] = [each for each in effects if isinstance(each, kind)]
    return found


def replies(effects: list[Any]) -> list[Any]:
    return [each.body for each in effects if isinstance(each, Reply)]


def fork(offset: int) -> Fork:
    return Fork(partition=0, offset=offset, leader_epoch=4, first_epoch=1_004)


def named(offset: int, leader_epoch: int = 7) -> Answered:
    reply = SealMirrorReply(fork=fork(offset), leader_epoch=leader_epoch)
    return Answered(MirrorCall("T", 0), reply)


@pytest.fixture
def sealing() -> Controller:
    """It has sealed the topic, and waits for the fork."""
    controller = Controller()
    effects = controller.handle(Received(OPERATOR, PromoteMirror(mirror="m")))
    effects = controller.apply(one(effects, Propose))
    assert len(requests(effects, SealMirror)) == 1
    return controller


def test_the_forks_that_another_controller_has_stored_are_answered(sealing: Controller) -> None:
    proposal = one(sealing.handle(named(90)), Propose)
    effects = sealing.reject(proposal, sealing.topic(state="promoted", forks=(fork(100),)))
    assert len(requests(effects, PromotePartition)) == 1
    effects = sealing.handle(
        Answered(MirrorCall("T", 0, is_promotion=True), PromotePartitionReply(leader_epoch=1_004))
    )
    [answer] = replies(effects)
    assert isinstance(answer, PromoteMirrorReply)
    assert answer.topics[0].forks == [fork(100)]


def test_a_topic_that_another_controller_has_sealed_is_promoted_by_each() -> None:
    controller = Controller()
    effects = controller.handle(controller.changed([controller.topic(state="sealed")]))
    assert len(requests(effects, SealMirror)) == 1
    controller.apply(one(controller.handle(named(90)), Propose))
    mirror = controller.machine.catalog.topics["T"].mirror
    assert mirror is not None
    assert (mirror.state, mirror.forks) == ("promoted", (fork(90),))


def test_forks_that_were_not_stored_are_asked_for_again(sealing: Controller) -> None:
    proposal = one(sealing.handle(named(90)), Propose)
    assert one(sealing.reject(proposal), SetTimer).key == PromotionTimer()
    assert len(requests(sealing.handle(TimerFired(PromotionTimer())), SealMirror)) == 1


def test_the_fork_of_a_leader_that_was_replaced_is_not_stored(sealing: Controller) -> None:
    sealing.machine.mirrors.promotions.leader_epoch_of = lambda *_: 8
    effects = sealing.handle(named(90, leader_epoch=7))
    assert len(requests(effects, SealMirror)) == 1
    assert one(sealing.handle(named(100, leader_epoch=8)), Propose)


def test_a_partition_that_is_promoted_already_is_no_reason_to_answer_without_forks(
    sealing: Controller,
) -> None:
    effects = sealing.handle(Failed(MirrorCall("T", 0), ErrorBody(ErrorCode.NOT_MIRRORED, "promoted")))
    assert replies(effects) == []
    effects = sealing.handle(sealing.changed([sealing.topic(state="promoted", forks=(fork(100),))]))
    assert len(requests(effects, PromotePartition)) == 1


def test_a_requester_whose_change_was_refused_is_answered_once() -> None:
    controller = Controller()
    proposal = one(controller.handle(Received(OPERATOR, PromoteMirror(mirror="m"))), Propose)
    [error] = replies(controller.reject(proposal))
    assert error.retriable
    promoted = controller.topic(state="promoted", forks=(fork(100),))
    effects = controller.handle(controller.changed([promoted]))
    assert (replies(effects), requests(effects, PromotePartition)) == ([], [])


def test_the_figures_of_a_mirror_on_another_node_are_asked_for_through_the_link() -> None:
    controller = Controller(Nodes("n1", ("n2",)))
    [call] = [each for each in controller.handle(Received(OPERATOR, ListMirrors())) if isinstance(each, Call)]
    assert (call.address, call.request.node, call.request.address) == ("link/n1", "n2", "mirror/m")
    assert isinstance(call.request, Relay)
    lost = Failed(MirrorReportCall(1, "m"), ErrorBody(ErrorCode.TIMED_OUT, "no answer", True))
    [listed] = replies(controller.handle(lost))
    assert isinstance(listed, ListMirrorsReply)
    assert (listed.mirrors[0].state, listed.mirrors[0].topics[0].state) == ("starting", "following")


def test_a_topic_is_not_said_to_follow_before_that_is_stored() -> None:
    """The mirror's process has found it at the source. It may have to rejoin, or be refused."""
    controller = Controller()
    controller.handle(Received(OPERATOR, ListMirrors()))
    found = [
        MirroredTopic(topic=name, state=state) for name, state in (("NEW", "following"), ("NO", "refused"))
    ]
    report = MirrorReport(
        mirror="m", spec=MirrorSpec(source="a", topics=("*",)), state="running", topics=found
    )
    [listed] = replies(
        controller.handle(Answered(MirrorReportCall(1, "m"), DescribeMirrorReply(report=report)))
    )
    assert [(each.topic, each.state) for each in listed.mirrors[0].topics] == [
        ("NO", "refused"),
        ("T", "following"),
    ]


def test_topics_without_producers_are_listed_when_their_mirror_is_gone() -> None:
    controller = Controller()
    controller.handle(controller.changed([Delete("mirrors/m")]))
    [listed] = replies(controller.handle(Received(OPERATOR, ListMirrors())))
    assert (listed.mirrors, [each.topic for each in listed.left["m"]]) == ([], ["T"])
    controller.handle(controller.changed([controller.topic(state="promoted", forks=(fork(1),))]))
    [listed] = replies(controller.handle(Received(OPERATOR, ListMirrors())))
    assert (listed.mirrors, listed.left) == ([], {})
