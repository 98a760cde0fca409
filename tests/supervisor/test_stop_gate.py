"""A stop by signals: at once on one machine; prepared, refused and forced on a node of a cluster."""

from typing import Any

import pytest

from planaria.supervisor.events import StopAsked
from planaria.supervisor.stop_gate import FORCE_MS, PREPARATION_MS, StopPolicy
from planaria.transport.protocol.control import AwaitStop, AwaitStopReply, ConcludeStop
from supervision import World, broker_like, supervisor


def serving(policy: StopPolicy = "permitted") -> World:
    world = World(broker_like(), stop_policy=policy)
    world.ready("controller")
    world.ready("gateway/0")
    assert world.up is not None
    return world


def state(reply: Any) -> str:
    assert isinstance(reply, AwaitStopReply)
    return reply.state


def refused(world: World) -> list[Any]:
    return [log.fields["reason"] for log in world.logs if log.event == "stop refused"]


def test_one_machine_stops_at_once() -> None:
    world = serving("at_once")
    world.give(StopAsked())
    assert world.asked_to_stop == ["gateway/0"]
    world.give(StopAsked())
    assert world.stops == 1


def test_a_stop_begins_once_the_controller_has_prepared_it() -> None:
    world = serving()
    assert world.ask(AwaitStop(known="none")) is None
    world.give(StopAsked())
    assert state(world.replies[-1].body) == "asked"
    assert world.ask(AwaitStop(known="asked")) is None
    assert world.asked_to_stop == []
    world.ask(ConcludeStop())
    assert (world.asked_to_stop, world.stops) == (["gateway/0"], 1)


def test_a_controller_that_starts_again_learns_of_the_stop() -> None:
    world = serving()
    world.give(StopAsked())
    assert state(world.ask(AwaitStop(known="none"))) == "asked"


def test_a_refused_stop_changes_nothing_and_another_signal_soon_after_forces_it() -> None:
    world = serving()
    world.give(StopAsked())
    world.ask(AwaitStop(known="asked"))
    world.ask(ConcludeStop(refusal="T/0 would be below"))
    assert (refused(world), world.asked_to_stop) == (["T/0 would be below"], [])
    assert state(world.replies[-2].body) == "none"
    world.pass_time(FORCE_MS)
    world.give(StopAsked())
    assert state(world.ask(AwaitStop(known="none"))) == "forced"
    world.ask(ConcludeStop(refusal="T/0 would be below"))
    assert world.asked_to_stop == ["gateway/0"]


def test_a_signal_long_after_a_refusal_is_a_first_one_again() -> None:
    world = serving()
    world.give(StopAsked())
    world.ask(ConcludeStop(refusal="no"))
    world.pass_time(FORCE_MS + 1)
    world.give(StopAsked())
    assert state(world.ask(AwaitStop(known="none"))) == "asked"


def test_a_third_signal_waits_for_no_preparation() -> None:
    world = serving()
    for _ in range(3):
        world.give(StopAsked())
    assert world.asked_to_stop == ["gateway/0"]


@pytest.mark.parametrize("policy", ["permitted", "prepared"])
def test_a_preparation_that_does_not_end_is_a_refusal_unless_forced(policy: StopPolicy) -> None:
    world = serving(policy)
    world.give(StopAsked())
    world.pass_time(PREPARATION_MS)
    assert bool(refused(world)) == (policy == "permitted")
    assert world.stops == (policy == "prepared")


def test_a_tree_that_is_not_up_yet_has_nothing_to_prepare() -> None:
    world = World(supervisor("one_for_one", "a"), stop_policy="permitted")
    world.give(StopAsked())
    assert world.stops == 1
